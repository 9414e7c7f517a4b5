#include <errno.h>
#include <string.h>

#include "tests/unit/images.h"
#include "vmm/layout.h"

SUITE(bzimage);

#define RAM (32 * MIB)

static void expect_code(const struct guest_mem *mem, uint64_t at, size_t first, size_t size)
{
    const uint8_t *code = guest_mem_at(mem, at, size);
    cr_assert_not_null(code);
    for (size_t i = 0; i < size; i++)
        cr_assert_eq(code[i], image_code(first + i), "byte %zu", i);
}

Test(bzimage, lands_at_its_preferred_address)
{
    static void (*const makers[])(struct image *) = {image_make_bzimage, image_make_signed_bzimage};
    for (size_t i = 0; i < COUNT(makers); i++) {
        struct guest_mem mem;
        struct image image;
        struct kernel_image kernel;
        struct minivmm_error err;
        support_guard_mem(&mem, RAM);
        makers[i](&image);
        cr_assert_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
        cr_expect_str_eq(kernel.format, "bzImage");
        cr_expect_eq(kernel.load, BZIMAGE_LOAD);
        cr_expect_eq(kernel.end, BZIMAGE_LOAD + BZIMAGE_CODE);
        cr_expect_eq(kernel.needs, BZIMAGE_LOAD + BZIMAGE_INIT_SIZE);
        cr_expect_eq(kernel.entry, BZIMAGE_LOAD + 0x200);
        cr_expect_eq(kernel.initrd_max, 0x7fffffff);
        cr_expect_eq(kernel.cmdline_max, 2047);
        expect_code(&mem, BZIMAGE_LOAD, 0, BZIMAGE_CODE);
        cr_expect_eq(*(uint8_t *)guest_mem_at(&mem, BZIMAGE_LOAD - 1, 1), 0, "nothing before");
        cr_expect_eq(*(uint8_t *)guest_mem_at(&mem, kernel.end, 1), 0, "nothing behind");
        guest_mem_finish(&mem);
    }
}

Test(bzimage, hands_on_its_header_and_nothing_beyond_the_headers_end)
{
    struct guest_mem mem;
    struct image image;
    struct kernel_image kernel;
    struct minivmm_error err;
    support_guard_mem(&mem, RAM);
    image_make_bzimage(&image);
    cr_assert_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
    cr_expect_eq(memcmp(&kernel.header, image.bytes + 0x1f1, sizeof(kernel.header)), 0);

    /* A header that ends behind init_size: the fields after it are 0 in what is handed on. */
    const struct image_patch shorter = {0x201, 1, SETUP(handover_offset) - 0x202};
    image_patch(&image, &shorter);
    memset(image.bytes + SETUP(handover_offset), 0xff, 8);
    cr_assert_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
    cr_expect_eq(kernel.header.init_size, BZIMAGE_INIT_SIZE);
    cr_expect_eq(kernel.header.handover_offset, 0);

    /* A header that claims to be longer than any is cut, not believed. */
    const struct image_patch longest = {0x201, 1, 0xff};
    image_patch(&image, &longest);
    cr_assert_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
    guest_mem_finish(&mem);
}

Test(bzimage, fits_exactly_or_not_at_all)
{
    struct guest_mem mem;
    struct image image;
    struct kernel_image kernel;
    struct minivmm_error err;
    image_make_bzimage(&image);
    support_guard_mem(&mem, BZIMAGE_LOAD + BZIMAGE_INIT_SIZE);
    cr_expect_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
    guest_mem_finish(&mem);
    support_guard_mem(&mem, BZIMAGE_LOAD + BZIMAGE_INIT_SIZE - 4096);
    cr_expect_eq(image_load(&image, &mem, &kernel, &err), -ENOMEM);
    cr_expect_str_eq(image_error(&err),
                     "needs at least 17 MiB of memory below 3 GiB, the guest has 16 MiB");
    guest_mem_finish(&mem);

    /* The code counts where init_size says less. */
    const struct image_patch small = {SETUP(init_size), 4, 16};
    image_patch(&image, &small);
    support_guard_mem(&mem, BZIMAGE_LOAD + 4096);
    cr_expect_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
    cr_expect_eq(kernel.needs, BZIMAGE_LOAD + BZIMAGE_CODE);
    guest_mem_finish(&mem);
}

Test(bzimage, a_setup_of_zero_sectors_has_four)
{
    struct guest_mem mem;
    struct image image;
    struct kernel_image kernel;
    struct minivmm_error err;
    support_guard_mem(&mem, RAM);
    image_make_bzimage(&image);
    memmove(image.bytes + 5 * 512, image.bytes + BZIMAGE_SETUP, BZIMAGE_CODE);
    image.size = 5 * 512 + BZIMAGE_CODE;
    const struct image_patch zero = {SETUP(setup_sects), 1, 0};
    image_patch(&image, &zero);
    cr_assert_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
    expect_code(&mem, BZIMAGE_LOAD, 0, BZIMAGE_CODE);
    guest_mem_finish(&mem);
}

Test(bzimage, every_fault_of_the_header_has_its_text)
{
    static const struct {
        const char *name;
        struct image_patch patches[2];
        int rc;
        const char *text;
    } rows[] = {
        {"no boot flag",
         {{SETUP(boot_flag), 2, 0}},
         -ENOEXEC,
         "neither a Linux bzImage nor an ELF file"},
        {"no magic", {{SETUP(header), 4, 0}}, -ENOEXEC, "neither a Linux bzImage nor an ELF file"},
        {"protocol 2.11",
         {{SETUP(version), 2, 0x20b}},
         -ENOEXEC,
         "boot protocol older than 2.12 (Linux 3.8)"},
        {"protocol 0",
         {{SETUP(version), 2, 0}},
         -ENOEXEC,
         "boot protocol older than 2.12 (Linux 3.8)"},
        {"a header that ends before its version",
         {{0x201, 1, 0}},
         -ENOEXEC,
         "boot protocol older than 2.12 (Linux 3.8)"},
        {"32 bits",
         {{SETUP(xloadflags), 2, 0xfffe}},
         -ENOEXEC,
         "32-bit kernel; minivmm boots 64-bit kernels"},
        {"a zImage", {{SETUP(loadflags), 1, 0xfe}}, -ENOEXEC, "a zImage, which loads below 1 MiB"},
        {"preferred address 0",
         {{SETUP(pref_address), 8, 0}},
         -ENOEXEC,
         "damaged header: its preferred address is below 1 MiB"},
        {"preferred address just below 1 MiB",
         {{SETUP(pref_address), 8, 0xfffff}},
         -ENOEXEC,
         "damaged header: its preferred address is below 1 MiB"},
        {"preferred address that wraps",
         {{SETUP(pref_address), 8, UINT64_MAX}},
         -ENOEXEC,
         "damaged header: preferred address 0xffffffffffffffff"},
        {"preferred address near the end",
         {{SETUP(pref_address), 8, 0xffffffffffe00000}},
         -ENOMEM,
         "needs at least 17592186044415 MiB of memory below 3 GiB, the guest has 32 MiB"},
        {"preferred address at 4 GiB",
         {{SETUP(pref_address), 8, 4 * GIB}},
         -ENOMEM,
         "needs at least 4097 MiB of memory below 3 GiB, the guest has 32 MiB"},
        {"init_size of 4 GiB",
         {{SETUP(init_size), 4, UINT32_MAX}},
         -ENOMEM,
         "needs at least 4112 MiB of memory below 3 GiB, the guest has 32 MiB"},
        {"255 setup sectors",
         {{SETUP(setup_sects), 1, 255}},
         -ENODATA,
         "truncated: the file has 1792 bytes, its header promises 131840"},
        {"0 setup sectors, which are 4",
         {{SETUP(setup_sects), 1, 0}},
         -ENODATA,
         "truncated: the file has 1792 bytes, its header promises 3328"},
        {"no code", {{SETUP(syssize), 4, 0}}, -ENOEXEC, "damaged header: 0 bytes of code"},
        {"code that ends before its entry",
         {{SETUP(syssize), 4, 0x20}},
         -ENOEXEC,
         "damaged header: 512 bytes of code"},
        {"one piece of code too much",
         {{SETUP(syssize), 4, BZIMAGE_CODE / 16 + 1}},
         -ENODATA,
         "truncated: the file has 1792 bytes, its header promises 1808"},
        {"64 GiB of code",
         {{SETUP(syssize), 4, UINT32_MAX}},
         -ENODATA,
         "truncated: the file has 1792 bytes, its header promises 68719477744"},
    };
    struct guest_mem mem;
    support_guard_mem(&mem, RAM);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct image image;
        struct kernel_image kernel;
        struct minivmm_error err;
        image_make_bzimage(&image);
        image_patch(&image, &rows[i].patches[0]);
        image_patch(&image, &rows[i].patches[1]);
        cr_expect_eq(image_load(&image, &mem, &kernel, &err), rows[i].rc, "%s", rows[i].name);
        cr_expect_str_eq(image_error(&err), rows[i].text, "%s: %s", rows[i].name, err.text);
    }
    guest_mem_finish(&mem);
}

Test(bzimage, a_signature_past_the_end_tells_a_damaged_file)
{
    const unsigned certificates = 0x40 + 24 + 112 + 4 * 8;
    static const struct {
        const char *name;
        unsigned at, width;
        uint64_t value;
        int rc;
    } rows[] = {
        {"one byte more", 4, 4, BZIMAGE_SIGNATURE + 1, -ENODATA},
        {"huge", 4, 4, UINT32_MAX, -ENODATA},
        {"far away", 0, 4, UINT32_MAX, -ENODATA},
        {"none", 0, 8, 0, 0},
    };
    struct guest_mem mem;
    support_guard_mem(&mem, RAM);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct image image;
        struct kernel_image kernel;
        struct minivmm_error err;
        const struct image_patch patch = {certificates + rows[i].at, rows[i].width, rows[i].value};
        image_make_signed_bzimage(&image);
        image_patch(&image, &patch);
        cr_expect_eq(image_load(&image, &mem, &kernel, &err), rows[i].rc, "%s: %s", rows[i].name,
                     err.text);
    }
    /* A pointer to a PE header out of the part that is looked at is no PE header. */
    static const uint64_t pointers[] = {0x3fe, 0x400, 0xffffffff, 0x80000000, 0};
    for (size_t i = 0; i < COUNT(pointers); i++) {
        struct image image;
        struct kernel_image kernel;
        struct minivmm_error err;
        const struct image_patch patch = {0x3c, 4, pointers[i]};
        image_make_signed_bzimage(&image);
        image_patch(&image, &patch);
        cr_expect_eq(image_load(&image, &mem, &kernel, &err), 0, "pointer 0x%llx: %s",
                     (unsigned long long)pointers[i], err.text);
    }
    guest_mem_finish(&mem);
}
