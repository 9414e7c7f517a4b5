#include "vmm/doctor.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/checked.h"
#include "vmm/kernel_config.h"
#include "vmm/kernel_unpack.h"

#define MIB            (1ull << 20)
#define DEFAULT_MEMORY (256 * MIB)
#define BANNER         "Linux version "

struct patient {
    const char *path;
    struct kernel_file file;
    uint64_t needs; /* bytes of RAM before it reads the memory map */
    struct kernel_config config;
    enum kernel_answer acpi, cmdline, dtb; /* whether it takes the platform from there */
    bool needs_initrd, initrd;             /* for its drivers; whether it can have one */
    char missing[200], unknown[200];       /* what keeps it from running; lists */
};

/* ---- the file ------------------------------------------------------------------------------ */

/* One past the last byte of its segments; a damaged file is refused later, by the loader. */
static uint64_t elf_end(const struct kernel_file *file)
{
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    uint64_t end = 0, last;

    if (pread(file->fd, &header, sizeof(header), 0) != sizeof(header))
        return 0;
    for (unsigned i = 0; i < header.e_phnum; i++) {
        uint64_t place;
        if (!checked_add(header.e_phoff, i * sizeof(segment), &place) || place > INT64_MAX ||
            pread(file->fd, &segment, sizeof(segment), (off_t)place) != sizeof(segment))
            break;
        if (segment.p_type == PT_LOAD && checked_add(segment.p_paddr, segment.p_memsz, &last) &&
            last > end)
            end = last;
    }
    return end;
}

/* An uncompressed kernel has its version in the words that it greets with. */
static void find_banner(struct kernel_file *file)
{
    const size_t skip = sizeof(BANNER) - 1;
    struct minivmm_error err;
    uint8_t *data;
    size_t size, n = 0;

    if (kernel_unpack(file, &data, &size, &err) < 0)
        return;
    const uint8_t *at = data;
    while ((at = memmem(at, size - (size_t)(at - data), BANNER, skip)) != NULL) {
        at += skip;
        if (at < data + size && *at >= '0' && *at <= '9') /* not the format "%s (%s)" */
            break;
    }
    while (at && at + n < data + size && n < sizeof(file->version) - 1 && at[n] >= ' ' &&
           at[n] < 0x7f)
        n++;
    memcpy(file->version, at ? (const char *)at : "", n);
    free(data);
}

/* Would minivmm load it? Asked with room enough. */
static int try_to_load(const struct patient *p, struct minivmm_error *err)
{
    struct minivmm_config config;

    minivmm_config_init(&config);
    config.kernel = p->path;
    uint64_t room = p->needs + 16 * MIB;
    if (room > config.memory && room <= MINIVMM_MEMORY_MAX)
        config.memory = room & ~0xfffull;
    FILE *nowhere = fopen("/dev/null", "we");
    if (!nowhere)
        return error_set(err, -errno, "/dev/null: %s", strerror(errno));
    int rc = minivmm_explain(&config, nowhere, err);
    fclose(nowhere);
    return rc;
}

static int examine_file(struct patient *p, struct minivmm_error *err)
{
    uint64_t end;

    int rc = kernel_file_open(&p->file, p->path, err);
    if (rc < 0)
        return rc;
    if (p->file.format == KERNEL_BZIMAGE) {
        uint64_t code = (uint64_t)p->file.header.syssize * 16;
        uint64_t size = p->file.header.init_size;
        if (checked_add(p->file.header.pref_address, size > code ? size : code, &end))
            p->needs = end;
    } else if (p->file.format == KERNEL_ELF) {
        p->needs = elf_end(&p->file);
    }
    rc = try_to_load(p, err);
    if (rc == 0 && p->file.format == KERNEL_ELF)
        find_banner(&p->file);
    for (char *c = p->file.version; *c; c++)
        *c = *c < ' ' || *c > '~' ? '?' : *c; /* it is the file's, and goes to a terminal */
    return rc;
}

/* ---- what it was built with ---------------------------------------------------------------- */

static void add(char *list, size_t size, const char *what)
{
    size_t length = strlen(list);
    snprintf(list + length, size - length, "%s%s", length ? ", " : "", what);
}

static enum kernel_answer all_of(const struct patient *p, const char *const *symbols)
{
    enum kernel_answer answer = ANSWER_BUILTIN;

    for (; *symbols; symbols++) {
        enum kernel_answer one = kernel_config_ask(&p->config, *symbols, NULL);
        answer = one < answer ? one : answer;
    }
    return answer;
}

/* README.md's table of platforms. */
static void examine_platform(struct patient *p, FILE *out)
{
    static const char *const acpi[] = {"ACPI", NULL},
                             *const cmdline[] = {"VIRTIO_MMIO_CMDLINE_DEVICES", "X86_MPPARSE",
                                                 NULL},
                             *const dtb[] = {"OF", "OF_EARLY_FLATTREE", "PCI", "SERIAL_OF_PLATFORM",
                                             NULL};
    const struct {
        const char *name;
        const char *const *symbols;
        enum kernel_answer *answer;
    } rows[] = {{"acpi", acpi, &p->acpi}, {"cmdline", cmdline, &p->cmdline}, {"dtb", dtb, &p->dtb}};
    bool known = true, any = false;

    fputs("it learns of its devices, virtio-mmio among them:\n", out);
    for (size_t i = 0; i < 3; i++) {
        enum kernel_answer answer = all_of(p, rows[i].symbols);
        *rows[i].answer = answer;
        known &= answer != ANSWER_UNKNOWN;
        any |= answer == ANSWER_BUILTIN;
        fprintf(out, "  --platform %-8s %s", rows[i].name,
                answer == ANSWER_BUILTIN   ? "yes"
                : answer == ANSWER_UNKNOWN ? "unknown"
                                           : "no:");
        for (const char *const *s = rows[i].symbols; *s && answer == ANSWER_NO; s++) {
            if (kernel_config_ask(&p->config, *s, NULL) == ANSWER_NO)
                fprintf(out, " CONFIG_%s", *s);
        }
        fprintf(out, "%s\n", answer == ANSWER_NO ? " not set" : "");
    }
    if (!any)
        add(known ? p->missing : p->unknown, sizeof(p->missing), "a way to learn of its devices");
}

struct driver {
    const char *what, *symbol, *module;
    bool needed; /* nothing goes without it */
    bool early;  /* no root file system on a disk is reached without it */
};

static void examine_driver(struct patient *p, const struct driver *driver, FILE *out)
{
    enum kernel_answer answer = kernel_config_ask(&p->config, driver->symbol, driver->module);

    fprintf(out, "  %-34s", driver->what);
    switch (answer) {
    case ANSWER_BUILTIN:
        fputs("built in\n", out);
        break;
    case ANSWER_MODULE:
        fprintf(out, "module %s: from an initrd%s\n", driver->module,
                driver->early ? "" : ", or from the root file system");
        p->needs_initrd |= driver->early;
        break;
    case ANSWER_NO:
        fprintf(out, "not there: CONFIG_%s\n", driver->symbol);
        break;
    case ANSWER_UNKNOWN:
        fputs("unknown\n", out);
    }
    if (driver->needed && answer < ANSWER_MODULE)
        add(answer == ANSWER_NO ? p->missing : p->unknown, sizeof(p->missing), driver->what);
}

static void examine_drivers(struct patient *p, FILE *out)
{
    static const struct driver drivers[] = {
        {"serial console (8250)", "SERIAL_8250_CONSOLE", NULL, true, false},
        {"virtio-mmio: all devices below", "VIRTIO_MMIO", "virtio_mmio", true, true},
        {"disks: virtio-blk", "VIRTIO_BLK", "virtio_blk", false, true},
        {"networks: virtio-net", "VIRTIO_NET", "virtio_net", false, false},
        {"virtio-console", "VIRTIO_CONSOLE", "virtio_console", false, false},
        {"virtio-balloon", "VIRTIO_BALLOON", "virtio_balloon", false, false},
        {"virtio-rng", "HW_RANDOM_VIRTIO", "virtio_rng", false, false},
        {"ext4", "EXT4_FS", "ext4", false, true},
    };
    /* Before Linux 5.13 it was one driver for every place of the device. */
    static const struct driver pvpanic = {"pvpanic: a panic is told at once", "PVPANIC_MMIO",
                                          "pvpanic_mmio", false, false},
                               old_pvpanic = {"pvpanic: a panic is told at once", "PVPANIC",
                                              "pvpanic", false, false};

    fputs("drivers:\n", out);
    for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++)
        examine_driver(p, &drivers[i], out);
    bool old = p->config.text && !kernel_config_mentions(&p->config, "PVPANIC_MMIO");
    examine_driver(p, old ? &old_pvpanic : &pvpanic, out);
    enum kernel_answer initrd = kernel_config_ask(&p->config, "BLK_DEV_INITRD", NULL);
    p->initrd = initrd == ANSWER_BUILTIN;
    if (p->needs_initrd && initrd < ANSWER_MODULE)
        add(initrd == ANSWER_NO ? p->missing : p->unknown, sizeof(p->missing),
            "support for an initrd, for its modules");
}

/* ---- advice -------------------------------------------------------------------------------- */

static void advise(const struct patient *p, FILE *out)
{
    uint64_t memory = DEFAULT_MEMORY;
    while (memory < p->needs + 128 * MIB)
        memory += 64 * MIB;

    fprintf(out, "options:\n  --kernel %s", p->path);
    if (p->needs_initrd && p->initrd)
        fputs(" --initrd FILE", out);
    if (p->acpi != ANSWER_BUILTIN && p->cmdline == ANSWER_BUILTIN)
        fputs(" --platform cmdline", out);
    else if (p->acpi != ANSWER_BUILTIN && p->dtb == ANSWER_BUILTIN)
        fputs(" --platform dtb", out);
    if (memory > DEFAULT_MEMORY)
        fprintf(out, " --memory %lluM", (unsigned long long)(memory / MIB));
    fputc('\n', out);
}

static void describe(const struct patient *p, FILE *out)
{
    const struct kernel_file *file = &p->file;

    fprintf(out, "kernel: %s, %s", p->path, file->format == KERNEL_ELF ? "ELF" : "bzImage");
    if (file->format == KERNEL_BZIMAGE)
        fprintf(out, ", boot protocol %u.%02u", file->header.version >> 8u,
                file->header.version & 0xffu);
    fprintf(out, "\nversion: %s\n",
            *file->version ? file->version : "unknown: the file does not say");
    fprintf(out,
            "memory: %llu MiB before it reads the memory map; what it and its programs need after "
            "that is unknown\n",
            (unsigned long long)((p->needs + MIB - 1) / MIB));
    fprintf(out, "configuration: %s%s\n", p->config.text ? "" : "unknown: ", p->config.source);
}

static int parse(int count, char *const words[], const char **kernel, const char **config,
                 struct minivmm_error *err)
{
    for (int i = 0; i < count; i++) {
        if (strcmp(words[i], "--config") == 0 && i + 1 < count && !*config)
            *config = words[++i];
        else if (strncmp(words[i], "--config=", 9) == 0 && !*config)
            *config = words[i] + 9;
        else if (words[i][0] != '-' && !*kernel)
            *kernel = words[i];
        else
            return error_set(err, -EINVAL,
                             "doctor: %s: usage: minivmm doctor KERNEL [--config FILE]", words[i]);
    }
    if (!*kernel)
        return error_set(err, -EINVAL, "doctor: usage: minivmm doctor KERNEL [--config FILE]");
    return 0;
}

int doctor(int count, char *const words[], FILE *out, struct minivmm_error *err)
{
    struct patient p = {.file.fd = -1};
    const char *config = NULL;

    int rc = parse(count, words, &p.path, &config, err);
    if (rc == 0)
        rc = examine_file(&p, err);
    if (rc == 0)
        rc = kernel_config_find(&p.config, &p.file, p.path, p.file.version, config, err);
    if (rc == 0) {
        describe(&p, out);
        examine_platform(&p, out);
        examine_drivers(&p, out);
        bool boots = !p.missing[0] && !p.unknown[0];
        if (boots)
            advise(&p, out);
        if (p.missing[0])
            fprintf(out, "it cannot run here: it lacks %s\n", p.missing);
        else if (p.unknown[0])
            fprintf(out, "whether it can run here is unknown: %s\n", p.unknown);
        else
            fputs("it can run here with these options\n", out);
        rc = boots ? DOCTOR_BOOTS : DOCTOR_DOES_NOT;
    }
    kernel_config_finish(&p.config);
    kernel_file_close(&p.file);
    return rc;
}
