/* Arguments: what is wrong with them is said in one line, before anything is opened. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(command_line);

#define CPUS    "must be a number from 1 to 254"
#define MEMORY  "must be a size from 1M to 4T: a number of MiB, or one with the suffix M, G or T"
#define TIMEOUT "must be a number of seconds from 1 to 604800"

static void expect_refusal(const char *row, const char *const arguments[PROGRAM_ARGUMENTS],
                           const char *pattern)
{
    static struct program program;
    program = (struct program){0};
    memcpy(program.arguments, arguments, sizeof(program.arguments));
    program_run(&program);
    program_expect_refusal(&program, row, pattern);
}

Test(command_line, options_that_make_no_sense_are_named)
{
    static const struct {
        const char *name;
        const char *arguments[PROGRAM_ARGUMENTS];
        const char *pattern;
    } rows[] = {
        {"no arguments", {NULL}, "--kernel FILE is needed; see minivmm --help"},
        {"no kernel", {"--cpus", "1"}, "--kernel FILE is needed; see minivmm --help"},
        {"explain without kernel", {"--explain"}, "--kernel FILE is needed; see minivmm --help"},
        {"unknown", {"--nonsense"}, "--nonsense: no such option; see minivmm --help"},
        {"unknown, with value", {"--x=1"}, "--x=1: no such option; see minivmm --help"},
        {"abbreviated", {"--kern", "k"}, "--kern: no such option; see minivmm --help"},
        {"longer", {"--kernels", "k"}, "--kernels: no such option; see minivmm --help"},
        {"upper case", {"--KERNEL", "k"}, "--KERNEL: no such option; see minivmm --help"},
        {"one dash", {"-kernel", "k"}, "-kernel: no such option; see minivmm --help"},
        {"short", {"-h"}, "-h: no such option; see minivmm --help"},
        {"only dashes", {"--"}, "--: no such option; see minivmm --help"},
        {"one dash alone", {"-"}, "-: no such option; see minivmm --help"},
        {"empty word", {""}, ": no such option; see minivmm --help"},
        {"stray word", {"--kernel", "k", "stray"}, "stray: no such option; see minivmm --help"},
        {"control characters", {"--a\nb\033c"}, "--a[?]b[?]c: no such option; *"},
        {"twice", {"--kernel", "k", "--kernel", "k"}, "--kernel: given twice"},
        {"flag twice", {"--quiet", "--kernel", "k", "--quiet"}, "--quiet: given twice"},
        {"twice, two forms", {"--cpus=1", "--cpus", "1"}, "--cpus: given twice"},
        {"value missing", {"--kernel"}, "--kernel: needs a value: FILE"},
        {"number missing", {"--kernel", "k", "--cpus"}, "--cpus: needs a value: N"},
        {"value for a flag", {"--quiet=yes"}, "--quiet: takes no value"},
        {"empty value for a flag", {"--help="}, "--help: takes no value"},
        {"platform", {"--platform", "isa"}, "--platform isa: must be acpi, dtb or cmdline"},
        {"empty platform", {"--platform="}, "--platform : must be acpi, dtb or cmdline"},
        {"one vCPU more", {"--cpus", "255"}, "--cpus 255: " CPUS},
        {"one second more", {"--timeout", "604801"}, "--timeout 604801: " TIMEOUT},
        {"memory: rubbish behind", {"--memory", "1Gx"}, "--memory 1Gx: " MEMORY},
        {"memory: KiB", {"--memory", "1K"}, "--memory 1K: " MEMORY},
        {"memory: no number", {"--memory", "M"}, "--memory M: " MEMORY},
        {"memory: small g", {"--memory", "1g"}, "--memory 1g: " MEMORY},
        {"memory: a space", {"--memory", "1 G"}, "--memory 1 G: " MEMORY},
        {"memory: two suffixes", {"--memory", "1GM"}, "--memory 1GM: " MEMORY},
        {"memory: none", {"--memory", "0M"}, "--memory 0M: " MEMORY},
        {"memory: too much", {"--memory", "99999T"}, "--memory 99999T: " MEMORY},
        {"memory: a little too much", {"--memory", "4194305"}, "--memory 4194305: " MEMORY},
        {"memory: 2^64 + 1 MiB",
         {"--memory", "17592186044417M"},
         "--memory 17592186044417M: " MEMORY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_refusal(rows[i].name, rows[i].arguments, rows[i].pattern);
}

Test(command_line, numbers_are_decimal_digits_within_their_range)
{
    static const struct {
        const char *option, *reason;
    } options[] = {{"--cpus", CPUS}, {"--memory", MEMORY}, {"--timeout", TIMEOUT}};
    static const char *const values[] = {
        "0",  "-1",  "+1",   " 1",  "1 ", "1.5",        "1e3",
        "1x", "0x8", "junk", "1,0", "½",  "1000000000", "1000000000000000000000000000000",
        ""};

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        for (size_t k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
            const char *arguments[PROGRAM_ARGUMENTS] = {"--kernel", "k", options[i].option,
                                                        values[k]};
            char pattern[200], word[64];
            snprintf(pattern, sizeof(pattern), "%s %s: %s", options[i].option, values[k],
                     options[i].reason);
            expect_refusal(arguments[2], arguments, pattern);
            snprintf(word, sizeof(word), "%s=%s", options[i].option, values[k]);
            arguments[2] = word;
            arguments[3] = NULL;
            expect_refusal(word, arguments, pattern);
        }
    }
}

Test(command_line, the_kernels_words_are_checked)
{
    static char long_line[3001];
    memset(long_line, 'x', sizeof(long_line) - 1);
    const struct {
        const char *words, *pattern;
    } rows[] = {
        {long_line, "command line: * characters, of them 3000 yours; this kernel takes 2047"},
        {"a\nb", "command line: it contains a control character"},
        {"a\tb", "command line: it contains a control character"},
        {"\x7f", "command line: it contains a control character"},
    };
    char kernel[32];
    guest_kernel(guest_spin, NULL, kernel);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *arguments[PROGRAM_ARGUMENTS] = {"--kernel", kernel, "--cmdline", rows[i].words};
        expect_refusal(rows[i].pattern, arguments, rows[i].pattern);
    }
}

Test(command_line, more_memory_than_the_host_has_is_refused)
{
    const char *arguments[PROGRAM_ARGUMENTS] = {"--kernel", "k", "--memory", "4T"};
    expect_refusal("4T", arguments, "memory: 4194304 MiB is more than this host's * MiB");
}

/* Help, version and explanation are for hosts without KVM as well. */
Test(command_line, questions_need_no_kvm)
{
    static struct program program;
    char kernel[32];

    guest_kernel(guest_spin, NULL, kernel);
    const struct {
        const char *arguments[PROGRAM_ARGUMENTS];
        const char *begins, *contains;
    } rows[] = {
        {{"--help"}, "usage: minivmm --kernel FILE [option]...\n", "--debug-exit"},
        {{"--version"}, "minivmm " MINIVMM_VERSION "\n", "\n"},
        {{"--kernel", kernel, "--version"}, "minivmm " MINIVMM_VERSION "\n", "\n"},
        {{"--explain", "--kernel", kernel, "--cpus", "254", "--memory", "64"},
         "254 vCPUs, 64 MiB of memory, platform described by ACPI tables\n",
         "entry: rip 0x10"},
        {{"--explain", "--kernel", kernel, "--memory=1G", "--platform=dtb"},
         "1 vCPU, 1024 MiB of memory, platform described by device tree\n",
         "acpi=off"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int nobody = 0; nobody < 2; nobody++) {
            program = (struct program){.nobody = nobody, .over_kvm = nobody ? NULL : ""};
            memcpy(program.arguments, rows[i].arguments, sizeof(program.arguments));
            program_run(&program);
            cr_expect_eq(program.exit_code, 0, "%s", program.err_text);
            cr_expect_str_eq(program.err_text, "");
            cr_expect_eq(strncmp(program.out_text, rows[i].begins, strlen(rows[i].begins)), 0, "%s",
                         program.out_text);
            cr_expect(strstr(program.out_text, rows[i].contains), "%s", program.out_text);
        }
    }
}

Test(command_line, every_option_of_the_help_is_taken)
{
    static struct program help, program;

    help = (struct program){.arguments = {"--help"}};
    program_run(&help);
    unsigned count = 0;
    for (char *at = help.out_text; (at = strstr(at, "\n  --")) != NULL; count++) {
        char word[32], refusal[64];
        at += 3;
        snprintf(word, sizeof(word), "%.*s", (int)strcspn(at, " \n"), at);
        snprintf(refusal, sizeof(refusal), "%s: no such option", word);
        program = (struct program){.arguments = {word, "1", "--nonsense"}};
        program_run(&program);
        cr_expect(!strstr(program.err_text, refusal), "%s", program.err_text);
        cr_expect_eq(program.exit_code, 125);
    }
    cr_expect_geq(count, 14);
}

static void expect_refusal_with(struct program *program, const char *pattern)
{
    char kernel[32];
    int fd = guest_kernel(guest_spin, NULL, kernel);
    program->arguments[0] = "--kernel";
    program->arguments[1] = kernel;
    program_run(program);
    program_expect_refusal(program, pattern, pattern);
    close(fd);
}

Test(command_line, a_kvm_that_is_missing_is_named_with_the_cure)
{
    static struct program program = {.over_kvm = ""};
    expect_refusal_with(&program, "/dev/kvm: No such file or directory; *");
}

Test(command_line, a_kvm_that_is_something_else_is_named)
{
    static struct program program = {.over_kvm = "/dev/null"};
    guest_need_kvm();
    expect_refusal_with(&program, "/dev/kvm: not a KVM device: Inappropriate ioctl for device");
}

Test(command_line, a_kvm_that_is_forbidden_is_named_with_the_cure)
{
    static struct program program = {.nobody = true};
    struct stat st;
    if (stat("/dev/kvm", &st) < 0 || (st.st_mode & S_IROTH))
        cr_skip_test("/dev/kvm is missing, or open to everybody");
    expect_refusal_with(&program, "/dev/kvm: Permission denied; *group*");
}

/* minivmm doctor: a kernel that can run is 0, one that cannot, or may not, 1; nonsense is 125. */
Test(command_line, the_doctors_answer_is_its_exit_code)
{
    static const char good[] = "CONFIG_64BIT=y\nCONFIG_ACPI=y\nCONFIG_SERIAL_8250_CONSOLE=y\n"
                               "CONFIG_VIRTIO_MMIO=y\n";
    static const char poor[] = "CONFIG_64BIT=y\nCONFIG_SERIAL_8250_CONSOLE=y\n";
    static struct program program;
    char kernel[32], dir[64], good_path[80], poor_path[80];

    guest_kernel(guest_spin, NULL, kernel);
    scratch_make(dir);
    snprintf(good_path, sizeof(good_path), "%s/good", dir);
    snprintf(poor_path, sizeof(poor_path), "%s/poor", dir);
    scratch_write(good_path, good, sizeof(good) - 1);
    scratch_write(poor_path, poor, sizeof(poor) - 1);
    const struct {
        const char *arguments[PROGRAM_ARGUMENTS];
        int code;
        const char *part;
    } rows[] = {
        {{"doctor", kernel, "--config", good_path}, 0, "it can run here with these options\n"},
        {{"doctor", kernel, "--config", poor_path}, 1, "it cannot run here: it lacks a way to"},
        {{"doctor", kernel}, 1, "whether it can run here is unknown: "},
        {{"--help", "verdicts"}, 0, "\n128+N  was stopped by signal N"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        program = (struct program){0};
        memcpy(program.arguments, rows[i].arguments, sizeof(program.arguments));
        program_run(&program);
        cr_expect_eq(program.exit_code, rows[i].code, "%zu: %s", i, program.out_text);
        cr_expect(strstr(program.out_text, rows[i].part), "%zu: %s", i, program.out_text);
        cr_expect_str_eq(program.err_text, "", "%zu", i);
        program.out = PROGRAM_FULL;
        program.out_text[0] = '\0';
        program.out_length = program.err_length = 0;
        program_run(&program);
        program_expect_refusal(&program, "full", "standard output: No space left on device");
    }
    expect_refusal("no kernel", (const char *const[PROGRAM_ARGUMENTS]){"doctor"},
                   "doctor: usage: *");
    expect_refusal("a device", (const char *const[PROGRAM_ARGUMENTS]){"doctor", "/dev/zero"},
                   "kernel /dev/zero: not a regular file");
    expect_refusal("a directory", (const char *const[PROGRAM_ARGUMENTS]){"doctor", dir},
                   "kernel *: not a regular file");
    scratch_remove(dir);
}
