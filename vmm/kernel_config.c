#include "vmm/kernel_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/kernel_unpack.h"

#define TEXT_MAX (64u << 20)

/* A regular file as text; NULL with errno. */
static char *read_text(const char *path)
{
    struct stat st;
    char *text = NULL;

    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return NULL;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > TEXT_MAX) {
        close(fd);
        errno = EINVAL;
        return NULL;
    }
    text = malloc((size_t)st.st_size + 1);
    ssize_t n = text ? read(fd, text, (size_t)st.st_size) : -1;
    if (text)
        text[n > 0 ? n : 0] = '\0';
    close(fd);
    return text;
}

/* The line that begins with `start`, or NULL. */
static const char *find_line(const char *text, const char *start)
{
    size_t length = strlen(start);
    for (const char *at = text; (at = strstr(at, start)) != NULL; at += length) {
        if (at == text || at[-1] == '\n')
            return at;
    }
    return NULL;
}

static bool is_config(const char *text)
{
    return find_line(text, "CONFIG_") && find_line(text, "CONFIG_64BIT=y");
}

/* Is it of the same major and minor version? Its head says "# Linux/x86 6.1.192 Kernel...". */
static bool fits(const char *text, const char *version)
{
    const char *head = find_line(text, "# Linux/");
    unsigned ours[2], theirs[2];

    return head && sscanf(head, "# Linux/%*s %u.%u", &theirs[0], &theirs[1]) == 2 &&
           sscanf(version, "%u.%u", &ours[0], &ours[1]) == 2 && ours[0] == theirs[0] &&
           ours[1] == theirs[1];
}

/* Take the file at `path` if it is a configuration and, if its name does not say so, fits. */
static bool try_file(struct kernel_config *config, const char *path, const char *version,
                     bool named)
{
    char *text = read_text(path);
    if (!text)
        return false;
    if (!is_config(text) || (!named && !fits(text, version))) {
        free(text);
        return false;
    }
    config->text = text;
    snprintf(config->source, sizeof(config->source), "%s%s", path,
             named ? "" : ", beside the kernel and for the same minor version; nothing tells more");
    return true;
}

/* The first of some places, by the kernel's directory and release, that `take` likes. */
struct place {
    bool in_dir;                 /* the kernel's, not the root */
    const char *before, *behind; /* the release; `behind` NULL: the name has none */
};

static bool try_places(struct kernel_config *config, const struct place *places, size_t count,
                       const char *dir, const char *version,
                       bool (*take)(struct kernel_config *config, const char *path,
                                    const char *version, bool named))
{
    size_t release = strcspn(version, " ");
    char path[4200];

    if (release == 0 || memchr(version, '/', release))
        return false;
    for (size_t i = 0; i < count; i++) {
        const struct place *p = &places[i];
        snprintf(path, sizeof(path), "%s%s%.*s%s", p->in_dir ? dir : "", p->before,
                 p->behind ? (int)release : 0, version, p->behind ? p->behind : "");
        if (take(config, path, version, p->behind != NULL))
            return true;
    }
    return false;
}

static bool try_modules(struct kernel_config *config, const char *path, const char *version,
                        bool named)
{
    char file[4300];

    (void)version, (void)named;
    snprintf(file, sizeof(file), "%s/modules.builtin", path);
    config->builtin = read_text(file);
    snprintf(file, sizeof(file), "%s/modules.dep", path);
    config->modules = config->builtin ? read_text(file) : NULL;
    if (config->modules)
        snprintf(config->source, sizeof(config->source),
                 "not found; what can be a module is told by %s", path);
    return config->modules != NULL;
}

/* From inside the kernel; false leaves the reason in `source`. */
static bool take_embedded(struct kernel_config *config, const struct kernel_file *file)
{
    struct minivmm_error err;
    uint8_t *data;
    size_t size;

    if (kernel_unpack(file, &data, &size, &err) < 0) {
        snprintf(config->source, sizeof(config->source), "not looked for inside the kernel: %s",
                 err.text);
        return false;
    }
    snprintf(config->source, sizeof(config->source), "none inside the kernel (CONFIG_IKCONFIG)");
    int rc = kernel_unpack_config(data, size, &config->text, &err);
    if (rc < 0)
        snprintf(config->source, sizeof(config->source), "inside the kernel, and %s", err.text);
    free(data);
    if (config->text && !is_config(config->text)) {
        free(config->text);
        config->text = NULL;
    }
    if (config->text)
        snprintf(config->source, sizeof(config->source), "inside the kernel");
    return config->text != NULL;
}

static int take_given(struct kernel_config *config, const char *path, struct minivmm_error *err)
{
    char *text = read_text(path);
    if (!text)
        return error_set(err, -errno, "--config %s: %s", path,
                         errno == EINVAL ? "not a regular file" : strerror(errno));
    if (!is_config(text)) {
        free(text);
        return error_set(err, -EINVAL, "--config %s: not the configuration of a 64-bit kernel",
                         path);
    }
    config->text = text;
    snprintf(config->source, sizeof(config->source), "%s, as given", path);
    return 0;
}

int kernel_config_find(struct kernel_config *config, const struct kernel_file *file,
                       const char *path, const char *version, const char *given,
                       struct minivmm_error *err)
{
    static const struct place texts[] = {{true, "/config-", ""},
                                         {false, "/boot/config-", ""},
                                         {false, "/lib/modules/", "/config"},
                                         {true, "/config", NULL}},
                              lists[] = {{true, "/../lib/modules/", ""},
                                         {false, "/lib/modules/", ""}};
    const char *slash = strrchr(path, '/');
    char dir[4096];

    *config = (struct kernel_config){0};
    if (given)
        return take_given(config, given, err);
    snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    if (take_embedded(config, file) ||
        try_places(config, texts, sizeof(texts) / sizeof(texts[0]), dir, version, try_file) ||
        try_places(config, lists, sizeof(lists) / sizeof(lists[0]), dir, version, try_modules))
        return 0;
    size_t length = strlen(config->source);
    snprintf(config->source + length, sizeof(config->source) - length,
             "%s; give it with --config FILE",
             *version ? ", nor beside it, in /boot or /lib/modules" : "");
    return 0;
}

void kernel_config_finish(struct kernel_config *config)
{
    free(config->text);
    free(config->builtin);
    free(config->modules);
    *config = (struct kernel_config){0};
}

/* ---- questions ----------------------------------------------------------------------------- */

/* Does a list of modules have it? A '-' of a file's name may be a '_' and the other way round. */
static bool lists_module(const char *list, const char *module)
{
    size_t length = strlen(module);

    for (const char *at = list; (at = strstr(at, ".ko")) != NULL; at++) {
        if ((size_t)(at - list) < length + 1 || at[-(ptrdiff_t)length - 1] != '/')
            continue;
        size_t same = 0;
        for (const char *c = at - length; same < length; same++) {
            char a = c[same] == '-' ? '_' : c[same], b = module[same] == '-' ? '_' : module[same];
            if (a != b)
                break;
        }
        if (same == length)
            return true;
    }
    return false;
}

enum kernel_answer kernel_config_ask(const struct kernel_config *config, const char *symbol,
                                     const char *module)
{
    char start[100];

    if (config->text) {
        snprintf(start, sizeof(start), "CONFIG_%s=", symbol);
        const char *line = find_line(config->text, start);
        char value = line ? line[strlen(start)] : 'n';
        return value == 'y' ? ANSWER_BUILTIN : value == 'm' ? ANSWER_MODULE : ANSWER_NO;
    }
    if (!config->modules || !module)
        return ANSWER_UNKNOWN;
    if (lists_module(config->builtin, module))
        return ANSWER_BUILTIN;
    return lists_module(config->modules, module) ? ANSWER_MODULE : ANSWER_NO;
}

bool kernel_config_mentions(const struct kernel_config *config, const char *symbol)
{
    char set[100], unset[100];

    snprintf(set, sizeof(set), "CONFIG_%s=", symbol);
    snprintf(unset, sizeof(unset), "# CONFIG_%s is not set", symbol);
    return config->text && (find_line(config->text, set) || find_line(config->text, unset));
}
