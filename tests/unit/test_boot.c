/* boot_load as a whole: the initrd, and what failures leave behind. */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "boot/boot.h"
#include "tests/unit/images.h"
#include "vmm/layout.h"

SUITE(boot);

#define RAM (32 * MIB)

/* A kernel in a file, and memory to load it into. */
struct boot_test {
    struct guest_mem mem;
    struct support_file kernel;
    struct boot_config config;
    struct boot_result result;
    struct minivmm_error err;
};

static void boot_test_init(struct boot_test *test, const struct image *image, uint64_t ram)
{
    *test = (struct boot_test){.kernel = support_file(image->bytes, image->size)};
    support_guard_mem(&test->mem, ram);
    test->config = (struct boot_config){.kernel = test->kernel.path, .cpus = 1};
}

static void boot_test_finish(struct boot_test *test)
{
    boot_result_finish(&test->result);
    guest_mem_finish(&test->mem);
    close(test->kernel.fd);
}

static int load(struct boot_test *test)
{
    test->err.text[0] = '\0';
    return boot_load(&test->mem, &test->config, &test->result, &test->err);
}

static struct support_file make_initrd(size_t size)
{
    struct support_file file = support_file("first", 5);
    cr_assert_eq(ftruncate(file.fd, (off_t)size), 0);
    cr_assert_eq(pwrite(file.fd, "last", 4, (off_t)size - 4), 4);
    return file;
}

Test(boot, without_an_initrd_there_is_none)
{
    struct boot_test test;
    struct image image;
    image_make_bzimage(&image);
    boot_test_init(&test, &image, RAM);
    cr_assert_eq(load(&test), 0, "%s", test.err.text);
    cr_assert_eq(test.result.initrd.size, 0);
    cr_assert_str_eq(test.result.format, "bzImage");
    cr_assert_eq(test.result.kernel.gpa, BZIMAGE_LOAD);
    cr_assert_eq(test.result.kernel.size, BZIMAGE_CODE);
    cr_assert_eq(test.result.kernel_needs, BZIMAGE_LOAD + BZIMAGE_INIT_SIZE);
    boot_test_finish(&test);
}

Test(boot, the_initrd_lies_at_the_end_of_low_memory)
{
    const uint64_t needs = BZIMAGE_LOAD + BZIMAGE_INIT_SIZE;
    static const struct {
        const char *name;
        uint32_t max; /* the header's initrd_addr_max */
        uint64_t size, at;
    } rows[] = {
        {"a page", 0x7fffffff, 4096, RAM - 4096},
        {"a byte over a page", 0x7fffffff, 4097, RAM - 8192},
        {"nine bytes", 0x7fffffff, 9, RAM - 4096},
        {"below the kernel's limit", 0x17fffff, 4096, 0x17ff000},
        {"below an odd limit", 0x17ffffe, 4096, 0x17fe000},
        {"all there is", 0x7fffffff, RAM - (BZIMAGE_LOAD + BZIMAGE_INIT_SIZE),
         BZIMAGE_LOAD + BZIMAGE_INIT_SIZE},
        {"all there is below the limit", 0x17fffff, 0x1800000 - 0x1100000, 0x1100000},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct boot_test test;
        struct image image;
        const struct image_patch max = {SETUP(initrd_addr_max), 4, rows[i].max};
        image_make_bzimage(&image);
        image_patch(&image, &max);
        boot_test_init(&test, &image, RAM);
        struct support_file initrd = make_initrd(rows[i].size);
        test.config.initrd = initrd.path;
        cr_assert_eq(load(&test), 0, "%s: %s", rows[i].name, test.err.text);
        const struct boot_range *range = &test.result.initrd;
        cr_expect_eq(range->gpa, rows[i].at, "%s: 0x%llx", rows[i].name,
                     (unsigned long long)range->gpa);
        cr_expect_eq(range->size, rows[i].size, "%s", rows[i].name);
        cr_expect_geq(range->gpa, needs, "%s", rows[i].name);
        cr_expect_leq(range->gpa + range->size - 1, rows[i].max, "%s", rows[i].name);
        const uint8_t *bytes = guest_mem_at(&test.mem, range->gpa, range->size);
        cr_assert_not_null(bytes);
        cr_expect_eq(memcmp(bytes, "first", 5), 0, "%s", rows[i].name);
        cr_expect_eq(memcmp(bytes + range->size - 4, "last", 4), 0, "%s", rows[i].name);
        boot_test_finish(&test);
        close(initrd.fd);
    }
}

Test(boot, the_initrd_starts_behind_the_kernel_with_less_than_a_page_to_spare)
{
    struct boot_test test;
    struct image image;
    image_make_elf(&image); /* needs memory up to an address in the middle of a page */
    boot_test_init(&test, &image, 0x1402000);
    const uint64_t needs = ELF_SECOND_AT + ELF_SECOND;
    struct support_file initrd = make_initrd(0x1402000 - needs);
    test.config.initrd = initrd.path;
    cr_assert_eq(load(&test), 0, "%s", test.err.text);
    cr_assert_eq(test.result.initrd.gpa, needs);
    boot_test_finish(&test);
    close(initrd.fd);
}

Test(boot, an_initrd_that_does_not_fit_is_refused)
{
    static const struct {
        const char *name;
        uint32_t max;
        uint64_t size;
    } rows[] = {
        {"a byte too long", 0x7fffffff, RAM - 0x1100000 + 1},
        {"a byte too long for the limit", 0x17fffff, 0x700001},
        {"longer than the memory", 0x7fffffff, 1 * GIB},
        {"a limit in the kernel", 0x1000000, 9},
        {"a limit of zero", 0, 9},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct boot_test test;
        struct image image;
        char text[64];
        const struct image_patch max = {SETUP(initrd_addr_max), 4, rows[i].max};
        image_make_bzimage(&image);
        image_patch(&image, &max);
        boot_test_init(&test, &image, RAM);
        struct support_file initrd = make_initrd(rows[i].size);
        test.config.initrd = initrd.path;
        cr_expect_eq(load(&test), -ENOMEM, "%s", rows[i].name);
        snprintf(text, sizeof(text), "initrd %s: ", initrd.path);
        cr_expect(support_one_line(&test.err, text), "%s: %s", rows[i].name, test.err.text);
        cr_expect_not_null(strstr(test.err.text, "do not fit"), "%s", test.err.text);
        boot_test_finish(&test);
        close(initrd.fd);
    }
}

Test(boot, a_path_to_no_initrd_is_told_and_a_fifo_does_not_hang)
{
    struct boot_test test;
    struct image image;
    char dir[64], fifo[80], missing[80], empty[80];
    image_make_bzimage(&image);
    support_temp_dir(dir);
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    snprintf(missing, sizeof(missing), "%s/missing", dir);
    snprintf(empty, sizeof(empty), "%s/empty", dir);
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    fclose(fopen(empty, "w"));
    const struct {
        const char *path;
        int rc;
        const char *text;
    } rows[] = {
        {fifo, -EINVAL, "is not a regular file"},
        {dir, -EINVAL, "is a directory"},
        {missing, -ENOENT, "No such file or directory"},
        {empty, -EINVAL, "is empty"},
    };
    boot_test_init(&test, &image, RAM);
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[200];
        test.config.initrd = rows[i].path;
        cr_expect_eq(load(&test), rows[i].rc, "%s", rows[i].path);
        snprintf(text, sizeof(text), "initrd %s: %s", rows[i].path, rows[i].text);
        cr_expect_str_eq(test.err.text, text, "%s", test.err.text);
    }
    boot_test_finish(&test);
    support_remove_dir(dir);
}

Test(boot, a_failure_after_the_kernel_leaves_nothing_to_finish)
{
    static char longest[3000];
    struct boot_test test;
    struct image image;
    memset(longest, 'a', sizeof(longest) - 1);
    image_make_bzimage(&image);
    boot_test_init(&test, &image, RAM);
    test.config.cmdline = longest;
    cr_assert_eq(load(&test), -E2BIG);
    cr_assert_null(test.result.cmdline);
    boot_test_finish(&test); /* finishing it all the same is harmless */
}

Test(boot, a_kernel_that_takes_no_line_gets_an_empty_one)
{
    struct boot_test test;
    struct image image;
    const struct image_patch none = {SETUP(cmdline_size), 4, 0};
    image_make_bzimage(&image);
    image_patch(&image, &none);
    boot_test_init(&test, &image, RAM);
    cr_expect_eq(load(&test), -E2BIG, "the defaults do not fit");
    test.config.no_default_cmdline = true;
    cr_expect_eq(load(&test), 0, "%s", test.err.text);
    cr_expect_str_eq(test.result.cmdline, "");
    boot_test_finish(&test);
}

Test(boot, a_line_never_reaches_the_reserved_memory)
{
    static char longest[LAYOUT_LOW_RESERVED - LAYOUT_CMDLINE + 1];
    struct boot_test test;
    struct image image;
    const struct image_patch endless = {SETUP(cmdline_size), 4, UINT32_MAX};
    image_make_bzimage(&image);
    image_patch(&image, &endless);
    boot_test_init(&test, &image, RAM);
    memset(longest, 'a', sizeof(longest) - 1);
    test.config.cmdline = longest;
    test.config.no_default_cmdline = true;
    cr_expect_eq(load(&test), -E2BIG);
    longest[sizeof(longest) - 2] = '\0';
    cr_expect_eq(load(&test), 0, "%s", test.err.text);
    const char *line = guest_mem_at(&test.mem, LAYOUT_CMDLINE, sizeof(longest) - 1);
    cr_expect_str_eq(line, longest);
    boot_test_finish(&test);
}

Test(boot, tables_of_a_boot_do_not_overlap_each_other_or_the_kernel)
{
    for (unsigned platform = 0; platform <= MINIVMM_PLATFORM_CMDLINE; platform++) {
        struct boot_test test;
        struct image image;
        image_make_elf(&image);
        const struct image_patch low = {PHDR(0, p_paddr), 8, LAYOUT_HIGH_MEMORY};
        const struct image_patch entry = {EHDR(e_entry), 8, LAYOUT_HIGH_MEMORY};
        image_patch(&image, &low);
        image_patch(&image, &entry);
        boot_test_init(&test, &image, RAM);
        test.config.platform = platform;
        test.config.cpus = MINIVMM_CPUS_MAX;
        cr_assert_eq(load(&test), 0, "%s", test.err.text);
        const struct boot_result *r = &test.result;
        struct boot_range all[BOOT_TABLES_MAX + 3];
        unsigned n = r->table_count;
        memcpy(all, r->tables, n * sizeof(all[0]));
        all[n++] = r->kernel;
        all[n++] = (struct boot_range){"GDT", r->entry.gdt, r->entry.gdt_limit + 1u};
        all[n++] = (struct boot_range){"page tables", r->entry.cr3, 6 * 4096};
        for (unsigned a = 0; a < n; a++) {
            cr_expect_gt(all[a].size, 0, "%s", all[a].name);
            cr_expect_not_null(guest_mem_at(&test.mem, all[a].gpa, all[a].size), "%s", all[a].name);
            for (unsigned b = 0; b < a; b++)
                cr_expect(all[a].gpa + all[a].size <= all[b].gpa ||
                              all[b].gpa + all[b].size <= all[a].gpa,
                          "%s and %s", all[a].name, all[b].name);
        }
        boot_test_finish(&test);
    }
}
