#include <criterion/criterion.h>
#include <errno.h>

#include "tests/unit/support.h"
#include "vmm/error.h"

SUITE(error);

Test(error, returns_the_code_and_keeps_one_line)
{
    struct minivmm_error err;
    cr_assert_eq(error_set(&err, -EINVAL, "kernel %s: bad", "a\nb\x7f"), -EINVAL);
    cr_assert_str_eq(err.text, "kernel a?b?: bad");
}

Test(error, allows_nobody_to_listen)
{
    cr_assert_eq(error_set(NULL, -EIO, "lost"), -EIO);
}
