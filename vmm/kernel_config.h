/*
 * What a kernel was built with, from its configuration or, without one, from the lists of its
 * modules: yes, as a module, no, or not known.
 */
#ifndef VMM_KERNEL_CONFIG_H
#define VMM_KERNEL_CONFIG_H

#include "vmm/kernel_file.h"

enum kernel_answer {
    ANSWER_UNKNOWN,
    ANSWER_NO,
    ANSWER_MODULE,
    ANSWER_BUILTIN,
};

struct kernel_config {
    char *text;              /* the configuration; NULL: not found */
    char *builtin, *modules; /* modules.builtin and modules.dep; NULL: not found */
    char source[4400];       /* where from, for a person; why not, if nothing was found */
};

/*
 * Find it: in `given` if that is not NULL; inside the kernel; beside its file `path`, in /boot and
 * in /lib/modules by its release, the first word of `version`. Only a file that was `given` has to
 * be one: else negative errno with a text, and nothing to finish.
 */
int kernel_config_find(struct kernel_config *config, const struct kernel_file *file,
                       const char *path, const char *version, const char *given,
                       struct minivmm_error *err);
void kernel_config_finish(struct kernel_config *config);

/* CONFIG_`symbol`; `module` is its module's name, NULL for what can be none. */
enum kernel_answer kernel_config_ask(const struct kernel_config *config, const char *symbol,
                                     const char *module);

/* Does the configuration mention the symbol at all? */
bool kernel_config_mentions(const struct kernel_config *config, const char *symbol);

#endif
