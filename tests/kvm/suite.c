#include "tests/kvm/suite.h"

#include <stdio.h>
#include <stdlib.h>

/* Of LeakSanitizer, where the build has it: sanitizer/lsan_interface.h. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
const char *__lsan_default_options(void);

/* Criterion takes no assertion from here, but a crash fails the run. */
void suite_check_leaks(void)
{
    if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check()) {
        fprintf(stderr, "the test has left memory allocated\n");
        abort();
    }
}

/*
 * Each test is looked at when it has ended; once more at exit takes as long again, and fails no
 * test. Criterion's own process loses some of its memory when two suites overlap.
 */
const char *__lsan_default_options(void)
{
    return "leak_check_at_exit=0";
}
