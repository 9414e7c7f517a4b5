/* Kernel and initrd files that cannot be: named in one line, before KVM is touched. */
#include <asm/bootparam.h>
#include <elf.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(image_files);

#define MIB 1048576u

/* A value to put into a file. */
struct patch {
    size_t offset;
    unsigned size;
    uint64_t value;
};

enum kind {
    MISSING,
    DIRECTORY,
    FIFO,
    DEVICE,  /* /dev/zero */
    BYTES,   /* all 'a' */
    BZIMAGE, /* a good one, patched and cut */
    ELF,     /* likewise */
    SPARSE,  /* all zero */
};

struct file {
    const char *name;
    enum kind kind;
    struct patch patches[2];
    uint64_t length;     /* of the file; 0 with BZIMAGE and ELF: as it is */
    const char *pattern; /* behind "kernel FILE: " or "initrd FILE: "; NULL: it is good */
};

#define SETUP_SECTS  4u
#define KERNEL_BYTES 0x4000u
#define BZIMAGE_SIZE ((SETUP_SECTS + 1) * 512 + KERNEL_BYTES)
#define HDR(field)   (0x1f1 + offsetof(struct setup_header, field))
#define EHDR(field)  offsetof(Elf64_Ehdr, field)
#define PHDR(field)  (sizeof(Elf64_Ehdr) + offsetof(Elf64_Phdr, field))
#define WHOLE        0

static size_t make_bzimage(uint8_t *image)
{
    struct setup_header header = {.setup_sects = SETUP_SECTS,
                                  .syssize = KERNEL_BYTES / 16,
                                  .boot_flag = 0xaa55,
                                  .header = 0x53726448,
                                  .version = 0x20f,
                                  .loadflags = LOADED_HIGH,
                                  .initrd_addr_max = 0x7fffffff,
                                  .kernel_alignment = 0x200000,
                                  .relocatable_kernel = 1,
                                  .xloadflags = XLF_KERNEL_64,
                                  .cmdline_size = 2047,
                                  .pref_address = GUEST_BASE,
                                  .init_size = MIB};
    memset(image, 0, BZIMAGE_SIZE);
    memcpy(image + 0x1f1, &header, sizeof(header));
    image[0x201] = 0x6a; /* the header ends at 0x202 + 0x6a */
    return BZIMAGE_SIZE;
}

static size_t make_elf(uint8_t *image, size_t max)
{
    char path[32];
    int fd = guest_kernel(guest_spin, NULL, path);
    ssize_t n = pread(fd, image, max, 0);
    close(fd);
    cr_assert(n > 0 && (size_t)n < max);
    return (size_t)n;
}

static void make(const struct file *file, const char *path)
{
    static uint8_t image[1u << 18];
    size_t length = file->length < sizeof(image) ? file->length : 0;

    switch (file->kind) {
    case MISSING:
        return;
    case DIRECTORY:
        cr_assert_eq(mkdir(path, 0755), 0);
        return;
    case FIFO:
        cr_assert_eq(mkfifo(path, 0644), 0);
        return;
    case DEVICE:
        cr_assert_eq(symlink("/dev/zero", path), 0);
        return;
    case BYTES:
        memset(image, 'a', length);
        break;
    case BZIMAGE:
        length = make_bzimage(image);
        break;
    case ELF:
        length = make_elf(image, sizeof(image));
        break;
    case SPARSE:
        length = 0;
        break;
    }
    for (size_t i = 0; i < 2; i++)
        memcpy(image + file->patches[i].offset, &file->patches[i].value, file->patches[i].size);
    scratch_write(path, image, length);
    if (file->length)
        cr_assert_eq(truncate(path, (off_t)file->length), 0);
}

/* Run it with 32 MiB; nothing but the file may be in the directory before and after. */
static void expect(const struct file *file, const char *option)
{
    static struct program program;
    char directory[64], path[80], kernel[32], pattern[300];

    scratch_make(directory);
    snprintf(path, sizeof(path), "%s/file", directory);
    make(file, path);
    unsigned before = scratch_count(directory);
    int fd = guest_kernel(guest_spin, NULL, kernel);
    program = (struct program){.arguments = {"--memory", "32", option, path}};
    unsigned next = 4;
    if (strcmp(option, "--kernel") != 0) {
        program.arguments[next++] = "--kernel";
        program.arguments[next++] = kernel;
    }
    if (!file->pattern)
        program.arguments[next] = "--explain";
    program_run(&program);
    if (file->pattern) {
        snprintf(pattern, sizeof(pattern), "%s %s: %s", option + 2, path, file->pattern);
        program_expect_refusal(&program, file->name, pattern);
    } else {
        cr_expect_eq(program.exit_code, 0, "%s: %s", file->name, program.err_text);
    }
    cr_expect_eq(scratch_count(directory), before);
    close(fd);
    scratch_remove(directory);
}

#define NO_FORMAT "neither a Linux bzImage nor an ELF file"
#define CUT_SHORT NO_FORMAT ", or truncated"
#define PROMISES  "truncated: the file has * bytes, its header* promise* *"
#define TOO_BIG   "needs at least * MiB of memory below 3 GiB, the guest has 32 MiB"

Test(image_files, a_kernel_that_is_none_is_refused_with_the_reason)
{
    static const struct file rows[] = {
        {"missing", MISSING, {{0}}, 0, "No such file or directory"},
        {"empty", BYTES, {{0}}, 0, "is empty"},
        {"directory", DIRECTORY, {{0}}, 0, "is a directory"},
        {"FIFO", FIFO, {{0}}, 0, "is not a regular file"},
        {"device", DEVICE, {{0}}, 0, "is not a regular file"},
        {"one byte", BYTES, {{0}}, 1, CUT_SHORT},
        {"short text", BYTES, {{0}}, 511, CUT_SHORT},
        {"long text", BYTES, {{0}}, 5000, NO_FORMAT},
        {"zeros", SPARSE, {{0}}, 1u << 30, NO_FORMAT},
        {"bzImage", BZIMAGE, {{0}}, WHOLE, NULL},
        {"bzImage cut in its boot sector", BZIMAGE, {{0}}, 0x1fe, CUT_SHORT},
        {"bzImage cut in its header", BZIMAGE, {{0}}, 0x204, CUT_SHORT},
        {"bzImage cut after its magic", BZIMAGE, {{0}}, 0x206, "boot protocol older than *"},
        {"bzImage cut in its set-up code", BZIMAGE, {{0}}, 1000, PROMISES},
        {"bzImage cut after its set-up code", BZIMAGE, {{0}}, 5 * 512, PROMISES},
        {"bzImage without its last byte", BZIMAGE, {{0}}, BZIMAGE_SIZE - 1, PROMISES},
        {"bzImage without boot flag", BZIMAGE, {{HDR(boot_flag), 2, 0}}, WHOLE, NO_FORMAT},
        {"bzImage without magic", BZIMAGE, {{HDR(header), 4, 0}}, WHOLE, NO_FORMAT},
        {"protocol 2.11", BZIMAGE, {{HDR(version), 2, 0x20b}}, WHOLE, "boot protocol older than *"},
        {"32-bit bzImage", BZIMAGE, {{HDR(xloadflags), 2, 0}}, WHOLE, "32-bit kernel; *"},
        {"zImage", BZIMAGE, {{HDR(loadflags), 1, 0}}, WHOLE, "a zImage, *"},
        {"bzImage for low memory", BZIMAGE, {{HDR(pref_address), 8, 0x1000}}, WHOLE, "damaged *"},
        {"bzImage at the end of the address space",
         BZIMAGE,
         {{HDR(pref_address), 8, UINT64_MAX - 0xfff}},
         WHOLE,
         "damaged header: *"},
        {"bzImage behind the memory",
         BZIMAGE,
         {{HDR(pref_address), 8, 1ull << 40}},
         WHOLE,
         TOO_BIG},
        {"bzImage that needs 17 MiB of 16",
         BZIMAGE,
         {{HDR(init_size), 4, 17 * MIB}},
         WHOLE,
         "needs at least 33 MiB of memory below 3 GiB, the guest has 32 MiB"},
        {"bzImage without a body", BZIMAGE, {{HDR(syssize), 4, 0}}, WHOLE, "damaged header: *"},
        {"ELF", ELF, {{0}}, WHOLE, NULL},
        {"ELF cut in its header", ELF, {{0}}, 40, "truncated within its ELF header"},
        {"ELF cut in its program header", ELF, {{0}}, 100, "truncated: it ends at byte 100"},
        {"ELF cut in its code", ELF, {{0}}, 200, PROMISES},
        {"32-bit ELF", ELF, {{EI_CLASS, 1, ELFCLASS32}}, WHOLE, "32-bit kernel; *"},
        {"ELF of another processor",
         ELF,
         {{EHDR(e_machine), 2, EM_AARCH64}},
         WHOLE,
         "an ELF file for another processor than x86-64"},
        {"ELF object", ELF, {{EHDR(e_type), 2, ET_REL}}, WHOLE, "an ELF file that is no program"},
        {"ELF without segments", ELF, {{EHDR(e_phnum), 2, 0}}, WHOLE, "damaged ELF header: *"},
        {"ELF of a thousand segments", ELF, {{EHDR(e_phnum), 2, 1000}}, WHOLE, "damaged ELF *"},
        {"ELF in low memory", ELF, {{PHDR(p_paddr), 8, 0x1000}}, WHOLE, "damaged, or not for *"},
        {"ELF behind the memory", ELF, {{PHDR(p_paddr), 8, 32 * MIB}}, WHOLE, TOO_BIG},
        {"ELF larger than memory", ELF, {{PHDR(p_memsz), 8, 1ull << 32}}, WHOLE, TOO_BIG},
        {"ELF that wraps", ELF, {{PHDR(p_memsz), 8, UINT64_MAX}}, WHOLE, "damaged, or not for *"},
        {"ELF with its entry outside",
         ELF,
         {{EHDR(e_entry), 8, 0x10}},
         WHOLE,
         "its entry 0x10 lies in no segment"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect(&rows[i], "--kernel");
}

Test(image_files, an_initrd_that_is_none_is_refused_with_the_reason)
{
    static const struct file rows[] = {
        {"missing", MISSING, {{0}}, 0, "No such file or directory"},
        {"empty", BYTES, {{0}}, 0, "is empty"},
        {"directory", DIRECTORY, {{0}}, 0, "is a directory"},
        {"FIFO", FIFO, {{0}}, 0, "is not a regular file"},
        {"fits", SPARSE, {{0}}, 15 * MIB, NULL},
        {"16 MiB behind the kernel", SPARSE, {{0}}, 16 * MIB, "16384 KiB do not fit between *"},
        {"64 MiB of 32", SPARSE, {{0}}, 64 * MIB, "65536 KiB do not fit between *"},
        {"4 GiB", SPARSE, {{0}}, 4ull << 30, "4194304 KiB do not fit between *"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect(&rows[i], "--initrd");
}
