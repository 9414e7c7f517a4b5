#include <errno.h>
#include <string.h>

#include "vmm/config.h"
#include "vmm/suboptions.h"

struct sizes {
    const char *min, *reserve;
};

/* A size for the balloon, or -EINVAL; `least` is 0 or 1. */
static int take_size(const char *what, const char *text, uint64_t least, uint64_t *to,
                     struct minivmm_error *err)
{
    if (!parse_size(text, to) || *to < least || *to > MINIVMM_MEMORY_MAX)
        return error_set(err, -EINVAL,
                         "balloon: %s%s: must be a size of at most 4T: a number of MiB, or one "
                         "with the suffix M, G or T",
                         what, text);
    return 0;
}

int store_balloon(struct options *o, const char *name, const char *value, struct minivmm_error *err)
{
    static const struct suboption table[] = {
        {"min", SUBOPTION_TEXT, offsetof(struct sizes, min), .max = 40},
        {"reserve", SUBOPTION_TEXT, offsetof(struct sizes, reserve), .max = 40},
    };
    struct sizes sizes = {0};
    const char *first;
    char text[128];

    if (strlen(value) >= sizeof(text))
        return error_set(err, -EINVAL, "--%s: its value is too long", name);
    strcpy(text, value);
    int rc = suboptions_parse(text, table, 2, &sizes, &first, "balloon", err);
    if (rc < 0)
        return rc;
    bool off = strcmp(first, "off") == 0;
    if (off && strcmp(value, "off") != 0)
        return error_set(err, -EINVAL, "balloon: %s: off stands alone", value);
    o->vm.balloon = !off;
    o->vm.balloon_auto = strcmp(first, "auto") == 0;
    if (!off && !o->vm.balloon_auto)
        rc = take_size("", first, 0, &o->vm.balloon_initial, err);
    if (rc == 0 && sizes.min)
        rc = take_size("min=", sizes.min, 1, &o->vm.balloon_min, err);
    if (rc == 0 && sizes.reserve && !o->vm.balloon_auto)
        return error_set(err, -EINVAL, "balloon: reserve is for auto");
    if (rc == 0 && sizes.reserve)
        rc = take_size("reserve=", sizes.reserve, 1, &o->vm.balloon_reserve, err);
    return rc;
}
