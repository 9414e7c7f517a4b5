/* What holds for every kernel file, whatever its format. */
#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/images.h"

SUITE(image);

#define RAM (32 * MIB)

static void (*const makers[])(struct image *) = {image_make_bzimage, image_make_signed_bzimage,
                                                 image_make_elf};
static const char *const names[] = {"bzImage", "signed bzImage", "ELF"};

Test(image, cut_at_any_byte_is_a_clean_error)
{
    struct guest_mem mem;
    support_guard_mem(&mem, RAM);
    for (size_t m = 0; m < COUNT(makers); m++) {
        struct image whole;
        struct kernel_image kernel;
        struct minivmm_error err;
        makers[m](&whole);
        for (size_t size = 0; size < whole.size; size++) {
            struct image cut = whole;
            cut.size = size;
            int rc = image_load(&cut, &mem, &kernel, &err);
            cr_expect_lt(rc, 0, "%s of %zu bytes", names[m], size);
            cr_expect(strstr(err.text, "truncated") || strstr(err.text, "empty") ||
                          strstr(err.text, "older than 2.12") || strstr(err.text, "32-bit") ||
                          strstr(err.text, "damaged"),
                      "%s of %zu bytes: %s", names[m], size, err.text);
        }
    }
    guest_mem_finish(&mem);
}

Test(image, random_damage_never_harms_the_vmm)
{
    enum { ROUNDS = 4000 };
    struct guest_mem mem;
    unsigned seed = 20240229, loaded = 0;
    support_guard_mem(&mem, RAM);
    for (unsigned round = 0; round < ROUNDS; round++) {
        struct image image;
        struct kernel_image kernel;
        struct minivmm_error err;
        makers[round % COUNT(makers)](&image);
        /* Mostly in the headers, where it hurts; values at the edges as often as any. */
        for (unsigned n = 1 + (unsigned)rand_r(&seed) % 4; n > 0; n--) {
            static const uint64_t edges[] = {0,          1,          0x7f,       0x80,
                                             0xff,       UINT32_MAX, UINT64_MAX, 1ull << 31,
                                             1ull << 32, 1ull << 63, RAM,        RAM - 1};
            unsigned headers = round % COUNT(makers) == 2 ? 232 : 0x270;
            unsigned at = (unsigned)rand_r(&seed) % (rand_r(&seed) % 8 ? headers : 1700);
            const struct image_patch patch = {
                .offset = round % COUNT(makers) != 2 && rand_r(&seed) % 2 ? 0x1f1 + at % 0x7b : at,
                .width = 1u << (unsigned)rand_r(&seed) % 4,
                .value = rand_r(&seed) % 2 ? (uint64_t)rand_r(&seed)
                                           : edges[(unsigned)rand_r(&seed) % COUNT(edges)]};
            image_patch(&image, &patch);
        }
        int rc = image_load(&image, &mem, &kernel, &err);
        cr_expect_neq(rc, -EFAULT, "round %u read beyond guest memory", round);
        if (rc < 0)
            continue;
        loaded++;
        cr_expect(kernel.load >= MIB && kernel.load < kernel.end && kernel.end <= kernel.needs &&
                      kernel.needs <= RAM,
                  "round %u: load 0x%llx end 0x%llx needs 0x%llx", round,
                  (unsigned long long)kernel.load, (unsigned long long)kernel.end,
                  (unsigned long long)kernel.needs);
        cr_expect(kernel.entry >= kernel.load && kernel.entry < kernel.end,
                  "round %u: entry 0x%llx", round, (unsigned long long)kernel.entry);
    }
    cr_expect(loaded > ROUNDS / 50 && loaded < ROUNDS, "%u loaded: both kinds must occur", loaded);
    guest_mem_finish(&mem);
}

Test(image, what_is_no_kernel_is_told)
{
    static const struct {
        const char *name, *bytes;
        size_t size;
        int rc;
        const char *text;
    } rows[] = {
        {"nothing", "", 0, -EINVAL, "is empty"},
        {"one byte", "x", 1, -ENOEXEC, "neither a Linux bzImage nor an ELF file, or truncated"},
        {"a text", "hello, world\n", 13, -ENOEXEC,
         "neither a Linux bzImage nor an ELF file, or truncated"},
        {"three quarters of a magic",
         "\x7f"
         "EL",
         3, -ENOEXEC, "neither a Linux bzImage nor an ELF file, or truncated"},
        {"just the magic",
         "\x7f"
         "ELF",
         4, -ENODATA, "truncated within its ELF header"},
    };
    struct guest_mem mem;
    support_guard_mem(&mem, RAM);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct image image = {.size = rows[i].size};
        struct kernel_image kernel;
        struct minivmm_error err;
        memcpy(image.bytes, rows[i].bytes, rows[i].size);
        cr_expect_eq(image_load(&image, &mem, &kernel, &err), rows[i].rc, "%s", rows[i].name);
        cr_expect_str_eq(image_error(&err), rows[i].text, "%s: %s", rows[i].name, err.text);
    }
    guest_mem_finish(&mem);
}

Test(image, a_path_to_no_file_is_told_and_a_fifo_does_not_hang)
{
    struct guest_mem mem;
    char dir[64], fifo[80], missing[80], below[80], file[80];
    support_guard_mem(&mem, RAM);
    support_temp_dir(dir);
    snprintf(fifo, sizeof(fifo), "%s/fifo", dir);
    snprintf(missing, sizeof(missing), "%s/missing", dir);
    snprintf(file, sizeof(file), "%s/file", dir);
    snprintf(below, sizeof(below), "%s/file/below", dir);
    cr_assert_eq(mkfifo(fifo, 0600), 0);
    fclose(fopen(file, "w"));
    const struct {
        const char *path;
        int rc;
        const char *text;
    } rows[] = {
        {fifo, -EINVAL, "is not a regular file"},
        {dir, -EINVAL, "is a directory"},
        {missing, -ENOENT, "No such file or directory"},
        {below, -ENOTDIR, "Not a directory"},
        {file, -EINVAL, "is empty"},
        {"/dev/null", -EINVAL, "is not a regular file"},
        {"/dev/zero", -EINVAL, "is not a regular file"},
        {"", -ENOENT, "No such file or directory"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct kernel_image kernel;
        struct minivmm_error err;
        char text[200];
        cr_expect_eq(image_load_kernel(rows[i].path, &mem, &kernel, &err), rows[i].rc, "%s",
                     rows[i].path);
        snprintf(text, sizeof(text), "kernel %s: %s", rows[i].path, rows[i].text);
        cr_expect_str_eq(err.text, text, "%s", err.text);
    }
    support_remove_dir(dir);
    guest_mem_finish(&mem);
}

Test(image, stays_one_line_whatever_the_file_is_called)
{
    struct guest_mem mem;
    struct kernel_image kernel;
    struct minivmm_error err;
    char longest[1000];
    support_guard_mem(&mem, RAM);
    memset(longest, 'x', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    cr_assert_lt(image_load_kernel("/no\nsuch\x1b[31mfile", &mem, &kernel, &err), 0);
    cr_assert_str_eq(err.text, "kernel /no?such?[31mfile: No such file or directory");
    cr_assert_lt(image_load_kernel(longest, &mem, &kernel, &err), 0);
    cr_assert(support_one_line(&err, "kernel xxx"));
    guest_mem_finish(&mem);
}

/* MINIVMM_TEST_KERNELS: directories with a "vmlinuz" each, as scripts/guest-kernel prints them. */
Test(image, stock_kernels_load_and_truncated_ones_do_not)
{
    const char *list = getenv("MINIVMM_TEST_KERNELS");
    if (!list || !*list)
        cr_skip_test("MINIVMM_TEST_KERNELS names no directory");
    char *copy = strdup(list), *rest;
    struct guest_mem mem;
    struct kernel_image kernel;
    struct minivmm_error err;
    cr_assert_eq(guest_mem_init(&mem, 256 * MIB, &err), 0, "%s", err.text);
    for (char *dir = strtok_r(copy, ":", &rest); dir; dir = strtok_r(NULL, ":", &rest)) {
        char path[512];
        struct stat st;
        snprintf(path, sizeof(path), "%s/vmlinuz", dir);
        cr_assert_eq(stat(path, &st), 0, "%s: %s", path, strerror(errno));
        cr_expect_eq(image_load_kernel(path, &mem, &kernel, &err), 0, "%s", err.text);
        cr_expect_str_eq(kernel.format, "bzImage");
        cr_expect_eq(kernel.cmdline_max, 2047, "%s", path);
        cr_expect_eq(kernel.load, 16 * MIB, "%s", path);

        FILE *whole = fopen(path, "r");
        char *bytes = malloc((size_t)st.st_size);
        cr_assert_eq(fread(bytes, 1, (size_t)st.st_size, whole), (size_t)st.st_size);
        fclose(whole);
        const size_t sizes[] = {(size_t)st.st_size - 1,
                                (size_t)st.st_size - 512,
                                (size_t)st.st_size / 2,
                                65536,
                                1024,
                                512};
        for (size_t i = 0; i < COUNT(sizes); i++) {
            struct support_file file = support_file(bytes, sizes[i]);
            cr_expect_lt(image_load_kernel(file.path, &mem, &kernel, &err), 0, "%s: %zu bytes",
                         path, sizes[i]);
            close(file.fd);
        }
        free(bytes);
    }
    free(copy);
    guest_mem_finish(&mem);
}
