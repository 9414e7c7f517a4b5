#include "vmm/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/checked.h"

#define MIB (1ull << 20)

/*
 * An option: either a word or a flag whose place in struct options is known, or a value that
 * `store` checks; it returns -EINVAL with a text.
 */
struct option {
    const char *name;
    const char *value; /* what stands for it in the help; NULL: a flag */
    const char *help;
    size_t place; /* of a const char * or a bool, by `value`; not used with `store` */
    bool repeat;  /* may be given more than once */
    int (*store)(struct options *options, const char *name, const char *value,
                 struct minivmm_error *err);
};

/* A decimal number with nothing before or after it; *end is where it stopped. */
static bool parse_number(const char *text, uint64_t *number, const char **end)
{
    if (*text < '0' || *text > '9')
        return false;
    char *stop;
    errno = 0;
    *number = strtoull(text, &stop, 10);
    *end = stop;
    return errno == 0;
}

int store_count(const char *name, const char *value, unsigned max, const char *unit, unsigned *to,
                struct minivmm_error *err)
{
    uint64_t number;
    const char *end;
    if (!parse_number(value, &number, &end) || *end || number < 1 || number > max)
        return error_set(err, -EINVAL, "--%s %s: must be a number%s from 1 to %u", name, value,
                         unit, max);
    *to = (unsigned)number;
    return 0;
}

static int store_cpus(struct options *o, const char *name, const char *value,
                      struct minivmm_error *err)
{
    return store_count(name, value, MINIVMM_CPUS_MAX, "", &o->vm.cpus, err);
}

bool parse_size(const char *text, uint64_t *bytes)
{
    static const struct {
        const char *suffix;
        uint64_t unit;
    } units[] = {{"", MIB}, {"M", MIB}, {"G", MIB << 10}, {"T", MIB << 20}};
    uint64_t number;
    const char *end;

    if (!parse_number(text, &number, &end))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(end, units[i].suffix) == 0)
            return checked_mul(number, units[i].unit, bytes);
    }
    return false;
}

static int store_memory(struct options *o, const char *name, const char *value,
                        struct minivmm_error *err)
{
    uint64_t bytes;

    if (!parse_size(value, &bytes))
        bytes = 0;
    if (bytes < MINIVMM_MEMORY_MIN || bytes > MINIVMM_MEMORY_MAX)
        return error_set(err, -EINVAL,
                         "--%s %s: must be a size from 1M to 4T: a number of MiB, or one with the "
                         "suffix M, G or T",
                         name, value);
    o->vm.memory = bytes;
    return 0;
}

static int store_platform(struct options *o, const char *name, const char *value,
                          struct minivmm_error *err)
{
    static const char *const names[] = {
        [MINIVMM_PLATFORM_ACPI] = "acpi",
        [MINIVMM_PLATFORM_DTB] = "dtb",
        [MINIVMM_PLATFORM_CMDLINE] = "cmdline",
    };
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(value, names[i]) == 0) {
            o->vm.platform = (enum minivmm_platform)i;
            return 0;
        }
    }
    return error_set(err, -EINVAL, "--%s %s: must be acpi, dtb or cmdline", name, value);
}

static int store_transport(struct options *o, const char *name, const char *value,
                           struct minivmm_error *err)
{
    if (strcmp(value, "mmio") == 0)
        o->vm.transport = MINIVMM_TRANSPORT_MMIO;
    else if (strcmp(value, "pci") == 0)
        o->vm.transport = MINIVMM_TRANSPORT_PCI;
    else
        return error_set(err, -EINVAL, "--%s %s: must be mmio or pci", name, value);
    return 0;
}

static int store_timeout(struct options *o, const char *name, const char *value,
                         struct minivmm_error *err)
{
    return store_count(name, value, MINIVMM_TIMEOUT_MAX, " of seconds", &o->vm.timeout, err);
}

#define AT(member) offsetof(struct options, member)

static const struct option table[] = {
    {"kernel", "FILE", "bzImage or ELF vmlinux to boot (needed)", .place = AT(vm.kernel)},
    {"initrd", "FILE", "initial RAM file system", .place = AT(vm.initrd)},
    {"cmdline", "WORDS", "kernel command line, added to the defaults", .place = AT(vm.cmdline)},
    {"no-default-cmdline", NULL, "leave minivmm's own words out of it",
     .place = AT(vm.no_default_cmdline)},
    {"disk", "FILE[,...]", "a disk, /dev/vda and on; repeatable, see below", .repeat = true,
     .store = store_disk},
    {"tap", "NAME[,...]", "a network interface on a tap; repeatable", .repeat = true,
     .store = store_tap},
    {"net", "user[,...]", "or one that needs no root; repeatable", .repeat = true,
     .store = store_net},
    {"rng", NULL, "virtio-rng: random numbers of the host's", .place = AT(vm.rng)},
    {"balloon", "SIZE|auto", "memory that the guest gives back; see below",
     .store = store_balloon},
    {"serial", "WHERE", "where COM1 leads (default stdio), see below", .store = store_serial},
    {"console", "WHERE", "virtio-console hvc0, and the guest's console", .store = store_console},
    {"port", "NAME=WHERE", "a port of virtio-console; repeatable", .repeat = true,
     .store = store_port},
    {"status-port", NULL, "port " MINIVMM_STATUS_PORT "; with --console, --port too",
     .place = AT(vm.status_port)},
    {"cpus", "N", "vCPUs, 1 to 254 (default 1)", .store = store_cpus},
    {"memory", "SIZE", "guest memory: MiB, or a suffix M, G, T (default 256M)",
     .store = store_memory},
    {"platform", "HOW", "describe it by acpi, dtb or cmdline (default acpi)",
     .store = store_platform},
    {"transport", "HOW", "virtio devices by mmio or pci (default mmio)", .store = store_transport},
    {"timeout", "SECONDS", "end the guest when that long has passed", .store = store_timeout},
    {"expect", "RE", "it has to print this, in order; repeatable", .repeat = true,
     .store = store_expect},
    {"within", "SECONDS", "and the --expect before has so long", .repeat = true,
     .store = store_within},
    {"fail-on", "RE", "it must not print this; none: not even panics, BUGs", .repeat = true,
     .store = store_fail_on},
    {"until", "RE", "end well when this is printed", .place = AT(vm.until)},
    {"silence", "SECONDS", "end when nothing was printed for so long", .store = store_silence},
    {"symbols", "FILE", "System.map or vmlinux: names for addresses, if it hangs",
     .place = AT(vm.symbols)},
    {"api-sock", "PATH", "a control socket there, see minivmm ctl --help", .place = AT(api_sock)},
    {"debug-exit", NULL, "a 32-bit register at port 0xf4 ends the guest",
     .place = AT(vm.debug_exit)},
    {"explain", NULL, "print what the guest would find, and boot nothing", .place = AT(explain)},
    {"stats", NULL, "print times and exit counts at the end", .place = AT(stats)},
    {"quiet", NULL, "no verdict in words at the end", .place = AT(quiet)},
    {"report", "FILE", "write how it went into FILE, as JSON", .place = AT(report)},
    {"junit", "FILE", "the same as JUnit XML", .place = AT(junit)},
    {"timeline", "FILE", "when what happened, for Perfetto", .place = AT(timeline)},
    {"tap-output", NULL, "results as TAP on stdout; the console is on stderr",
     .place = AT(tap_output)},
    {"help", NULL, "this text; --help verdicts: what the exit codes mean", .place = AT(help)},
    {"version", NULL, "the version", .place = AT(version)},
};
#define TABLE_SIZE (sizeof(table) / sizeof(table[0]))

/* The option that `word` ("--name" or "--name=value") names; *value is behind '=', or NULL. */
static const struct option *find(const char *word, const char **value)
{
    if (strncmp(word, "--", 2) != 0)
        return NULL;
    size_t length = strcspn(word + 2, "=");
    *value = word[2 + length] ? word + 2 + length + 1 : NULL;
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        if (strlen(table[i].name) == length && strncmp(table[i].name, word + 2, length) == 0)
            return &table[i];
    }
    return NULL;
}

static int store(const struct option *option, struct options *options, const char *value,
                 struct minivmm_error *err)
{
    void *place = (char *)options + option->place;

    if (option->store)
        return option->store(options, option->name, value, err);
    if (option->value)
        *(const char **)place = value;
    else
        *(bool *)place = true;
    return 0;
}

int options_parse(int argc, char *const argv[], struct options *options, struct minivmm_error *err)
{
    bool seen[TABLE_SIZE] = {false};

    *options = (struct options){0};
    minivmm_config_init(&options->vm);
    for (int i = 1; i < argc; i++) {
        const char *value;
        const struct option *option = find(argv[i], &value);
        if (!option)
            return error_set(err, -EINVAL, "%s: no such option; see minivmm --help", argv[i]);
        if (seen[option - table] && !option->repeat)
            return error_set(err, -EINVAL, "--%s: given twice", option->name);
        seen[option - table] = true;
        if (!option->value && value)
            return error_set(err, -EINVAL, "--%s: takes no value", option->name);
        if (option->value && !value) {
            if (i + 1 == argc)
                return error_set(err, -EINVAL, "--%s: needs a value: %s", option->name,
                                 option->value);
            value = argv[++i];
        }
        int rc = store(option, options, value, err);
        if (rc < 0)
            return rc;
        if (option->place == AT(help) && argv[i + 1] && argv[i + 1][0] != '-')
            options->help_topic = argv[++i];
    }
    if (options->help_topic && strcmp(options->help_topic, "verdicts") != 0)
        return error_set(err, -EINVAL, "--help %s: must be verdicts, or nothing",
                         options->help_topic);
    if (!options->vm.kernel && !options->help && !options->version)
        return error_set(err, -EINVAL, "--kernel FILE is needed; see minivmm --help");
    settle_consoles(options);
    return 0;
}

void options_print_help(FILE *out)
{
    fputs("usage: minivmm --kernel FILE [option]...\n"
          "       minivmm doctor KERNEL [--config FILE]\n"
          "       minivmm ctl SOCKET COMMAND; see minivmm ctl --help\n"
          "Boot a Linux kernel in a virtual machine on this terminal. Ctrl-A x leaves it.\n\n",
          out);
    for (size_t i = 0; i < TABLE_SIZE; i++) {
        char left[32];
        snprintf(left, sizeof(left), "--%s %s", table[i].name,
                 table[i].value ? table[i].value : "");
        fprintf(out, "  %-22s %s\n", left, table[i].help);
    }
    fputs("\n--disk FILE[,readonly][,direct][,ephemeral][,cache=writeback|writethrough]\n"
          "           [,serial=TEXT][,queues=N][,queue-size=N]\n"
          "  readonly      the guest cannot write; several VMs may share the image\n"
          "  ephemeral     what the guest writes is gone at its end; the image is shared too\n"
          "  direct        round the host's page cache\n"
          "  writethrough  each write is on stable storage before the guest hears it is done\n"
          "--tap NAME[,mac=ADDRESS][,mtu=N][,queues=N][,vhost][,offload=off][,pcap=FILE]\n"
          "  NAME          a tap of the host, created if there is none; or fd=N, an open one\n"
          "  vhost         the host's kernel moves the packets\n"
          "--net user[,forward=tcp:HOSTPORT:GUESTPORT]...[,deny][,mac=ADDRESS][,pcap=FILE]\n"
          "  user          this user's own network, by passt; deny: but nothing gets out\n"
          "--net socket=PATH[,mac=ADDRESS][,pcap=FILE]\n"
          "  PATH          a listening socket that takes frames, such as a running passt's\n"
          "--balloon SIZE[,min=SIZE]\n"
          "  SIZE          the guest does without that much from the start; 0: it gives back\n"
          "                only what it frees\n"
          "  min           what it keeps at least (default an eighth)\n"
          "--balloon auto[,min=SIZE][,reserve=SIZE]\n"
          "  auto          as much as the host needs of what the guest has idle\n"
          "  reserve       what the host should have left (default an eighth)\n"
          "WHERE: stdio | null | file:PATH | unix:PATH | pty | fd:N\n"
          "  file          a file that gets the output; unix: a socket that one client at a time\n"
          "                connects to; pty: a new terminal; fd: an open descriptor\n",
          out);
    fputs(
        "\nexit code: 0 powered off or restarted in order; 1-119 a status the guest reported;\n"
        "120 panic; 121 triple fault, or KVM refused to run it; 122 silence; 123 printed what it\n"
        "must not, or not what it had to; 124 deadline; 125 an error of minivmm or its host;\n"
        " 128+N stopped by signal N, Ctrl-A x counting as 2\n",
        out);
}
