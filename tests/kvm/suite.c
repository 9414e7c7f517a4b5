#include "tests/kvm/suite.h"

#include <stdio.h>
#include <stdlib.h>

/* Of LeakSanitizer, where the build has it: sanitizer/lsan_interface.h. */
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
int __lsan_is_turned_off(void);

/* Criterion takes no assertion from here, but a crash fails the run. */
void suite_check_leaks(void)
{
    if (__lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check()) {
        fprintf(stderr, "the test has left memory allocated\n");
        abort();
    }
}

/*
 * Criterion's own process, the parent of those that run a test each, loses some of its memory when
 * two suites overlap. Boxfort, its runner, tells its children by this variable.
 */
int __lsan_is_turned_off(void)
{
    return getenv("BXFI_MAP") == NULL;
}
