#include <errno.h>
#include <string.h>

#include "vmm/config.h"

int store_expect(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    if (o->vm.expect_count == OPTIONS_RULES_MAX)
        return error_set(err, -EINVAL, "--%s: more than %u of them", name, OPTIONS_RULES_MAX);
    o->expects[o->vm.expect_count++].pattern = value;
    o->vm.expects = o->expects;
    return 0;
}

int store_within(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    if (o->vm.expect_count == 0 || o->expects[o->vm.expect_count - 1].within)
        return error_set(err, -EINVAL, "--%s %s: belongs behind the --expect that it is for", name,
                         value);
    return store_count(name, value, MINIVMM_TIMEOUT_MAX, " of seconds",
                       &o->expects[o->vm.expect_count - 1].within, err);
}

int store_fail_on(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    if (strcmp(value, "none") == 0) {
        o->vm.no_default_fail_on = true;
        return 0;
    }
    if (o->vm.fail_on_count == OPTIONS_RULES_MAX)
        return error_set(err, -EINVAL, "--%s: more than %u of them", name, OPTIONS_RULES_MAX);
    o->fail_on[o->vm.fail_on_count++] = value;
    o->vm.fail_on = o->fail_on;
    return 0;
}

int store_silence(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    return store_count(name, value, MINIVMM_TIMEOUT_MAX, " of seconds", &o->vm.silence, err);
}
