/* Verdicts from what the guest prints, as a user meets them: exit code and last line. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(watch);

GUEST(watch_says, "print \"first\\r\\nsecond test ok\\r\\nprompt> \"\npoweroff");
GUEST(watch_waits, "print \"first\\r\\nsecond test ok\\r\\nprompt> \"\njmp guest_stop");
GUEST(watch_panic, "print \"[    1.000000] Kernel panic - not syncing: x\\r\\n\"\npoweroff");
GUEST(watch_panic_stays, "print \"Kernel panic - not syncing: x\\r\\n\"\njmp guest_stop");
GUEST(watch_bug, "print \"[    1.000000] BUG: x\\r\\n\"\npoweroff");
GUEST(watch_status, "print \"first\\r\\n\"\nexit 5");
GUEST(watch_status_0, "print \"first\\r\\n\"\nexit 0");

static const struct {
    const char *name;
    const char *kernel;
    const char *words[8];
    int code;
    const char *line; /* the last one on standard error */
} rows[] = {
    {"met",
     guest_watch_says,
     {"--expect", "^first$", "--expect", "test ok"},
     0,
     "minivmm: guest powered off (exit code 0)"},
    {"met by a prompt",
     guest_watch_says,
     {"--expect", "prompt> $"},
     0,
     "minivmm: guest powered off (exit code 0)"},
    {"missed",
     guest_watch_says,
     {"--expect", "first", "--expect", "third"},
     123,
     "minivmm: expectation 2 was not met: third (exit code 123)"},
    {"out of order",
     guest_watch_says,
     {"--expect", "second", "--expect", "first"},
     123,
     "minivmm: expectation 2 was not met: first (exit code 123)"},
    {"too late",
     guest_watch_waits,
     {"--expect", "third", "--within", "1"},
     123,
     "minivmm: expectation 1 was not met within 1 s: third (exit code 123)"},
    {"forbidden",
     guest_watch_says,
     {"--fail-on", "test (ok|failed)"},
     123,
     "minivmm: forbidden text: second test ok (exit code 123)"},
    {"forbidden, on a line that does not end",
     guest_watch_says,
     {"--fail-on", "prompt"},
     123,
     "minivmm: forbidden text: prompt>  (exit code 123)"},
    {"forbidden, and it stays",
     guest_watch_waits,
     {"--fail-on", "test (ok|failed)"},
     123,
     "minivmm: forbidden text: second test ok (exit code 123)"},
    {"bug",
     guest_watch_bug,
     {NULL},
     123,
     "minivmm: forbidden text: [    1.000000] BUG: x (exit code 123)"},
    {"bug, and that is all right",
     guest_watch_bug,
     {"--fail-on", "none"},
     0,
     "minivmm: guest powered off (exit code 0)"},
    {"panic on the console only",
     guest_watch_panic,
     {NULL},
     120,
     "minivmm: guest kernel panic (exit code 120)"},
    {"panic, and it stays",
     guest_watch_panic_stays,
     {NULL},
     120,
     "minivmm: guest kernel panic (exit code 120)"},
    {"panic before expectations",
     guest_watch_panic,
     {"--expect", "first"},
     120,
     "minivmm: guest kernel panic (exit code 120)"},
    {"until",
     guest_watch_waits,
     {"--until", "prompt> $"},
     0,
     "minivmm: guest printed: prompt> $ (exit code 0)"},
    {"until, with expectations",
     guest_watch_waits,
     {"--expect", "test", "--until", "ok"},
     0,
     "minivmm: guest printed: ok (exit code 0)"},
    {"silence",
     guest_watch_waits,
     {"--silence", "1"},
     122,
     "minivmm: nothing was printed for 1 s (exit code 122)"},
    {"status 0 is a pass like the others",
     guest_watch_status_0,
     {"--debug-exit", "--expect", "third"},
     123,
     "minivmm: expectation 1 was not met: third (exit code 123)"},
    {"a status is the guest's own word",
     guest_watch_status,
     {"--debug-exit", "--expect", "third"},
     5,
     "minivmm: guest reported status 5 (exit code 5)"},
};

Test(watch, verdicts)
{
    guest_need_kvm();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static struct program program;
        char kernel[32];
        int fd = guest_kernel(rows[i].kernel, NULL, kernel);
        program = (struct program){.arguments = {"--kernel", kernel, "--timeout", "100"}};
        for (size_t word = 0; word < 8 && rows[i].words[word]; word++)
            program.arguments[4 + word] = rows[i].words[word];
        program_run(&program);
        char *line = program_last_line(&program);
        cr_expect_eq(program.exit_code, rows[i].code, "%s: %d", rows[i].name, program.exit_code);
        cr_expect_str_eq(line, rows[i].line, "%s: %s", rows[i].name, line);
        free(line);
        close(fd);
    }
}

Test(watch, a_bad_expression_is_refused_before_anything_runs)
{
    static struct program program;
    char kernel[32];
    guest_need_kvm();
    int fd = guest_kernel(guest_watch_says, NULL, kernel);
    program = (struct program){.arguments = {"--kernel", kernel, "--expect", "a(b"}};
    program_run(&program);
    program_expect_refusal(&program, "parenthesis", "expect: 'a(b': *");
    close(fd);
}
