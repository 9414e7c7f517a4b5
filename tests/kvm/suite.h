/*
 * A suite of tests with a deadline for each of them, none of which may leave memory allocated. Only
 * a build with AddressSanitizer can tell the latter.
 */
#ifndef TESTS_KVM_SUITE_H
#define TESTS_KVM_SUITE_H

#include <criterion/criterion.h>

#define SUITE(name) TestSuite(name, .timeout = 180, .fini = suite_check_leaks)

void suite_check_leaks(void);

#endif
