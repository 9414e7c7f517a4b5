# minivmm: one Makefile, no configure. `make help` lists what it can do.

BUILD   ?= build
ifeq ($(origin CC),default)
CC      := gcc
endif
V       ?= 0
Q       := $(if $(filter 1,$(V)),,@)
say      = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' $(1) $(2))

WARN    := -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -Wstrict-prototypes -Wundef \
           -Wpointer-arith -Wwrite-strings
HARDEN  := -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
CFLAGS  ?= -O2 -g
override CFLAGS += -std=gnu11 -D_GNU_SOURCE -I. -pthread $(WARN) $(if $(WERROR),-Werror)
LDFLAGS ?=
override LDFLAGS += -pthread -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed
# All go in statically: they are small, and each shared library costs start-up time.
LIBS    := -Wl,-Bstatic -lfdt -laio -Wl,-Bdynamic
# The reports' and the control socket's, for the program alone.
CLILIBS := -Wl,-Bstatic -levent_extra -levent_core -ljansson -Wl,-Bdynamic

# Everything but the command line is the library.
CLI     := vmm/main.c vmm/suboptions.c vmm/terminal.c vmm/help_verdicts.c vmm/text.c vmm/doctor.c \
           $(wildcard vmm/config*.c vmm/kernel_*.c vmm/report*.c vmm/api*.c vmm/ctl*.c)
SRC     := $(filter-out $(CLI),$(wildcard vmm/*.c devices/*.c virtio/*.c boot/*.c))
OBJ     := $(SRC:%.c=$(BUILD)/%.o)
CLIOBJ  := $(CLI:%.c=$(BUILD)/%.o)

all: $(BUILD)/minivmm

$(BUILD)/minivmm: $(CLIOBJ) $(BUILD)/libminivmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -Wl,--gc-sections -o $@ $^ $(CLILIBS) $(LIBS)

$(BUILD)/libminivmm.a: $(OBJ)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) $(HARDEN) -ffunction-sections -fdata-sections -MMD -MP -c -o $@ $<

# ---- tests: Criterion programs out of tests/unit and tests/kvm ---------------------------------

RESULTS  := $(BUILD)/results
TESTLIBS := -lcriterion $(LIBS) $(CLILIBS) -Wl,--export-dynamic-symbol=mbedtls_x509_crt_parse_file # tests/unit/certificates.c
# Options belong to the command line, and are tested too.
OPTOBJ   := $(filter-out %/main.o %/terminal.o,$(CLIOBJ))
unit-src := $(wildcard tests/unit/*.c)
kvm-src  := $(wildcard tests/kvm/*.c)
TESTOBJ  := $(unit-src:%.c=$(BUILD)/%.o) $(kvm-src:%.c=$(BUILD)/%.o)

# Options for the tests' own code alone.
TESTFLAGS ?=
$(BUILD)/tests/%.o: override CFLAGS += $(TESTFLAGS)

# Calls that tests/unit/disk_faults.c can let fail.
wraps := preadv pwritev preadv2 pwritev2 fdatasync fallocate io_submit io_setup pthread_create
$(BUILD)/tests/unit-tests: TESTLIBS += $(wraps:%=-Wl,--wrap=%)
$(BUILD)/tests/unit-tests: $(unit-src:%.c=$(BUILD)/%.o) $(OPTOBJ) $(BUILD)/libminivmm.a
$(BUILD)/tests/kvm-tests: TESTLIBS += -Wl,--wrap=ioctl # tests/kvm/test_run_errors.c
$(BUILD)/tests/kvm-tests: $(kvm-src:%.c=$(BUILD)/%.o) $(BUILD)/tests/unit/certificates.o $(BUILD)/libminivmm.a
$(BUILD)/tests/unit-tests $(BUILD)/tests/kvm-tests:
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(TESTLIBS)

# Each suite leaves a TAP file in $(RESULTS), which scripts/check counts.
check-build: $(BUILD)/tests/unit-tests $(BUILD)/tests/kvm-tests $(BUILD)/minivmm

check-unit: $(BUILD)/tests/unit-tests $(BUILD)/minivmm
	$(Q)mkdir -p $(RESULTS)
	$(Q)MINIVMM=$(BUILD)/minivmm $< --timeout 180 --short-filename --tap=$(RESULTS)/unit.tap

# What is true of devices is true over PCI too, and with interrupts as a datapath outside gives them.
check-unit-pci: $(BUILD)/tests/unit-tests
	$(Q)mkdir -p $(RESULTS)
	$(Q)MINIVMM_TEST_TRANSPORT=pci $< --timeout 180 --short-filename --filter '@(virtio_*|blk_*|rng*)/*' \
		--tap=$(RESULTS)/unit-pci.tap
	$(Q)sed -i '/# SKIP test was skipped/d' $(RESULTS)/unit-pci.tap # what the filter leaves out
	$(Q)MINIVMM_TEST_TRANSPORT=pci-calls $< --timeout 180 --short-filename --filter '@(virtio_*|blk_*|rng*)/*'

check-kvm: $(BUILD)/tests/kvm-tests $(BUILD)/minivmm
	$(Q)mkdir -p $(RESULTS)
	$(Q)MINIVMM=$(BUILD)/minivmm $< --timeout 180 --short-filename --tap=$(RESULTS)/kvm.tap

check-boot: $(BUILD)/minivmm
	$(Q)mkdir -p $(RESULTS)
	$(Q)tests/boot/run $(BUILD)/minivmm $(RESULTS)/boot.tap

# Stock kernels again, by what is tried on them.
boot-suites := disk net verdicts autopsy balloon console pause
$(boot-suites:%=check-%): $(BUILD)/minivmm
	$(Q)mkdir -p $(RESULTS)
	$(Q)tests/boot/$(@:check-%=%) $(BUILD)/minivmm $(RESULTS)/$(@:check-%=%).tap

# The same suites under AddressSanitizer and UndefinedBehaviorSanitizer, in a tree of their own. The tests' own code is
# not optimized: that would take longer than it saves. -g1 is what reports need: functions and lines.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
asan: # one after the other: both fill the same tree
	$(Q)$(MAKE) --no-print-directory asan-unit
	$(Q)$(MAKE) --no-print-directory asan-unit-pci
	$(Q)$(MAKE) --no-print-directory asan-kvm
asan-build asan-unit asan-unit-pci asan-kvm:
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/asan CFLAGS="-O1 -g1 $(SANITIZE)" TESTFLAGS=-O0 \
		LDFLAGS="$(SANITIZE)" $(@:asan-%=check-%)

# Many short VMs under ThreadSanitizer: a plain program, because Criterion does not start under it.
# gcc warns that ThreadSanitizer does not follow bare fences.
TSAN := -fsanitize=thread
check-race:
	$(Q)$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan CFLAGS="-O1 -g $(TSAN) -Wno-tsan" \
		LDFLAGS="$(TSAN)" run-race

race-src := $(wildcard tests/race/*.c)
TESTOBJ  += $(race-src:%.c=$(BUILD)/%.o)

# The fake drivers of the unit tests, which need no Criterion, for other programs.
rigs := balloon_rig blk_driver call_rig fake_driver net_driver net_rig pci_driver resources virtio_driver virtio_rig
$(BUILD)/tests/rigs.a: $(rigs:%=$(BUILD)/tests/unit/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/tests/race-tests: $(race-src:%.c=$(BUILD)/%.o) $(BUILD)/tests/rigs.a $(BUILD)/libminivmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

run-race: $(BUILD)/tests/race-tests
	$(Q)mkdir -p $(RESULTS)
	$(Q)$< $(RESULTS)/race.tap

# ---- fuzzers: libFuzzer programs out of tests/fuzz, built by clang in a tree of their own --------

FUZZ_SECONDS ?= 600
fuzz-src     := $(wildcard tests/fuzz/*.c)
fuzz-names   := $(fuzz-src:tests/fuzz/%.c=%)
fuzz-bin     := $(fuzz-src:%.c=$(BUILD)/%)
fuzz-short: fuzz-time := 12
fuzz: fuzz-time := $(FUZZ_SECONDS)
fuzz-short fuzz:
	$(Q)mkdir -p $(RESULTS)
	$(Q)MAKE="$(MAKE)" tests/fuzz/run $(BUILD)/fuzz $(fuzz-time) $(RESULTS)/fuzz.tap $(fuzz-names)

fuzz-programs: $(fuzz-bin)
$(BUILD)/tests/fuzz/api: $(patsubst %,$(BUILD)/vmm/api_%.o,request describe metrics)
$(fuzz-bin): %: %.o $(BUILD)/libminivmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(CLILIBS) $(LIBS)

check-layers:
	$(Q)scripts/layers

# reads.c runs in a guest, and is linked statically.
bench-bin := $(patsubst %.c,$(BUILD)/%,$(filter-out %/reads.c,$(wildcard tests/bench/*.c)))
$(bench-bin): %: %.o $(BUILD)/tests/rigs.a $(BUILD)/libminivmm.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/tests/bench/reads: $(BUILD)/tests/bench/reads.o
	$(call say,LINK,$@)
	$(Q)$(CC) -static -pthread -o $@ $^ -laio

bench-programs: $(bench-bin) $(BUILD)/tests/bench/reads

bench: $(BUILD)/minivmm bench-programs
	$(Q)tests/bench/run $(BUILD)/minivmm

check:
	$(Q)scripts/check

PREFIX  ?= /usr/local
install: $(BUILD)/minivmm
	$(Q)install -D -m 755 $(BUILD)/minivmm $(DESTDIR)$(PREFIX)/bin/minivmm
	$(Q)install -D -m 644 $(BUILD)/libminivmm.a $(DESTDIR)$(PREFIX)/lib/libminivmm.a
	$(Q)install -D -m 644 vmm/minivmm.h $(DESTDIR)$(PREFIX)/include/minivmm.h

format:
	$(Q)clang-format -i $(wildcard */*.[ch] tests/*/*.[ch])

help:
	@echo 'make              build/minivmm and build/libminivmm.a'
	@echo 'make install      binary, library and header, under PREFIX (default /usr/local)'
	@echo 'make check        most of what is below, with dependencies (scripts/check)'
	@echo 'make check-unit   unit tests             make check-kvm     tiny guests on /dev/kvm'
	@echo 'make check-boot   stock kernels          make check-layers  who may include whom'
	@echo 'make check-disk   disks on them          make check-net     networks on them'
	@echo 'make check-verdicts  every end of them, and its reports'
	@echo 'make check-autopsy guests that hang'
	@echo 'make check-balloon memory that guests give back'
	@echo 'make check-pause  pauses under load'
	@echo 'make check-console  consoles on them'
	@echo 'make asan         unit and kvm tests under ASan and UBSan'
	@echo 'make fuzz-short   every fuzzer for 12 s  make fuzz          for FUZZ_SECONDS, 600'
	@echo 'make check-race   many short VMs under ThreadSanitizer'
	@echo 'make bench        measurements           make format        clang-format'
	@echo 'V=1 shows commands, WERROR=1 makes warnings errors, CC=clang BUILD=dir another build'

# A missing library is named, with the cure, before the compiler drowns it.
$(BUILD)/boot/devtree.o: | $(BUILD)/have-fdt
$(BUILD)/devices/disk_direct.o: | $(BUILD)/have-aio
$(BUILD)/vmm/api.o: | $(BUILD)/have-event_extra
$(filter $(BUILD)/vmm/api_% $(BUILD)/vmm/ctl% $(BUILD)/vmm/report_%,$(CLIOBJ)): | $(BUILD)/have-jansson
have-fdt := fdt_check_header("")
have-aio := io_queue_release(0)
have-event_extra := !event_get_version() || !evhttp_new(0)
have-jansson := !json_null()
header-event_extra := event2/http.h -include event2/event.h
header-jansson := jansson.h
package-event_extra := libevent
$(BUILD)/have-%:
	$(Q)mkdir -p $(@D)
	$(Q)echo 'int main(void) { return $(have-$*); }' | \
		$(CC) $(CFLAGS) -include $(or $(header-$*),lib$*.h) -x c - -o $@ $(LDFLAGS) -Wl,-Bstatic -l$* $(if $(package-$*),-levent_core) -Wl,-Bdynamic 2>/dev/null || \
		{ echo 'lib$*: not found; scripts/deps installs it (Debian: $(or $(package-$*),lib$*)-dev)' >&2; exit 1; }

-include $(OBJ:.o=.d) $(CLIOBJ:.o=.d) $(TESTOBJ:.o=.d) $(fuzz-bin:%=%.d)

clean:
	$(Q)rm -rf $(BUILD)

.PHONY: all clean check check-build check-unit check-unit-pci check-kvm check-boot $(boot-suites:%=check-%) check-layers check-race run-race asan asan-build asan-unit asan-unit-pci asan-kvm fuzz fuzz-short \
        fuzz-programs bench bench-programs format help install
