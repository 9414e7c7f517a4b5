# minivmm: one Makefile, no configure. `make help` lists what it can do.

BUILD   ?= build
CC      ?= gcc
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' $(1) $(2))

WARN    := -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wundef \
           -Wpointer-arith -Wwrite-strings
HARDEN  := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
CFLAGS  ?= -O2 -g
override CFLAGS += -std=gnu11 -D_GNU_SOURCE -I. -pthread $(WARN) $(if $(WERROR),-Werror)
LDFLAGS ?=
override LDFLAGS += -pthread -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed -Wl,--gc-sections
# libfdt goes in statically: it is small, and each shared library costs start-up time.
LIBS    := -Wl,-Bstatic -lfdt -Wl,-Bdynamic

# Everything but the command line is the library.
CLI     := vmm/main.c vmm/config.c vmm/terminal.c
SRC     := $(filter-out $(CLI),$(wildcard vmm/*.c devices/*.c virtio/*.c boot/*.c))
OBJ     := $(SRC:%.c=$(BUILD)/%.o)
CLIOBJ  := $(CLI:%.c=$(BUILD)/%.o)

all: $(BUILD)/minivmm

$(BUILD)/minivmm: $(CLIOBJ) $(BUILD)/libminivmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libminivmm.a: $(OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(HARDEN) -ffunction-sections -fdata-sections -MMD -MP -c -o $@ $<

-include $(OBJ:.o=.d) $(CLIOBJ:.o=.d)

clean:
	$(Q)rm -rf $(BUILD)

.PHONY: all clean
