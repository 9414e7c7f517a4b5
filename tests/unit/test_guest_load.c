/* The configuration that a program gives: checked before anything is made. */
#include "vmm/guest_load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/images.h"

SUITE(guest_load);

struct load_test {
    struct support_file kernel;
    struct minivmm_config config;
};

static void load_test_init(struct load_test *test)
{
    struct image image;
    image_make_bzimage(&image);
    test->kernel = support_file(image.bytes, image.size);
    minivmm_config_init(&test->config);
    test->config.kernel = test->kernel.path;
}

Test(guest_load, refuses_a_bad_configuration_in_one_line)
{
    static const struct {
        const char *name;
        size_t place, size;
        uint64_t value;
        int rc;
        const char *text;
    } rows[] = {
        {"no kernel", offsetof(struct minivmm_config, kernel), 8, 0, -EINVAL, "kernel: none given"},
        {"no vCPU", offsetof(struct minivmm_config, cpus), 4, 0, -EINVAL,
         "cpus: 0 is not within 1 to 254"},
        {"255 vCPUs", offsetof(struct minivmm_config, cpus), 4, 255, -EINVAL,
         "cpus: 255 is not within 1 to 254"},
        {"no memory", offsetof(struct minivmm_config, memory), 8, 0, -EINVAL,
         "memory: 0 bytes: not a multiple of 4096 from 1 MiB to 4 TiB"},
        {"memory below 1 MiB", offsetof(struct minivmm_config, memory), 8, MIB - 4096, -EINVAL,
         "memory: 1044480 bytes: not a multiple of 4096 from 1 MiB to 4 TiB"},
        {"odd memory", offsetof(struct minivmm_config, memory), 8, 32 * MIB + 512, -EINVAL,
         "memory: 33554944 bytes: not a multiple of 4096 from 1 MiB to 4 TiB"},
        {"memory above 4 TiB", offsetof(struct minivmm_config, memory), 8, (1ull << 42) + 4096,
         -EINVAL, "memory: 4398046515200 bytes: not a multiple of 4096 from 1 MiB to 4 TiB"},
        {"memory of all ones", offsetof(struct minivmm_config, memory), 8, UINT64_MAX, -EINVAL,
         "memory: 18446744073709551615 bytes: not a multiple of 4096 from 1 MiB to 4 TiB"},
        {"a timeout of more than a week", offsetof(struct minivmm_config, timeout), 4, 604801,
         -EINVAL, "timeout: 604801 is more than 604800 seconds"},
        {"no such platform", offsetof(struct minivmm_config, platform), 4, 3, -EINVAL,
         "platform: 3 is none"},
        {"a negative platform", offsetof(struct minivmm_config, platform), 4, UINT32_MAX, -EINVAL,
         "platform: -1 is none"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct load_test test;
        struct guest_load load;
        struct minivmm_error err;
        load_test_init(&test);
        memcpy((char *)&test.config + rows[i].place, &rows[i].value, rows[i].size);
        cr_expect_eq(guest_load_init(&load, &test.config, &err), rows[i].rc, "%s", rows[i].name);
        cr_expect_str_eq(err.text, rows[i].text, "%s: %s", rows[i].name, err.text);
        close(test.kernel.fd);
    }
}

Test(guest_load, memory_of_more_than_the_host_has_is_refused)
{
    struct load_test test;
    struct guest_load load;
    struct minivmm_error err;
    load_test_init(&test);
    test.config.memory = MINIVMM_MEMORY_MAX;
    cr_assert_eq(guest_load_init(&load, &test.config, &err), -ENOMEM);
    cr_assert(support_one_line(&err, "memory: 4194304 MiB is more than this host's "), "%s",
              err.text);
    close(test.kernel.fd);
}

Test(guest_load, a_failed_load_leaves_nothing)
{
    struct load_test test;
    struct guest_load load;
    struct minivmm_error err;
    load_test_init(&test);
    test.config.cmdline = "a\tb";
    cr_assert_eq(guest_load_init(&load, &test.config, &err), -EINVAL);
    cr_assert_eq(load.mem.count, 0);
    guest_load_finish(&load);
    close(test.kernel.fd);
}

Test(guest_load, explain_prints_what_the_guest_would_find)
{
    static const char *const parts[][5] = {
        [MINIVMM_PLATFORM_ACPI] = {"described by ACPI tables", "DSDT", "FADT", "MADT", "RSDP"},
        [MINIVMM_PLATFORM_DTB] = {"described by device tree", "setup_data: device tree",
                                  "acpi=off mine\n", "RNG seed", "boot_params"},
        [MINIVMM_PLATFORM_CMDLINE] = {"described by MP table and command line", "MP table (",
                                      "MP pointer", "acpi=off mine\n", "boot_params"},
    };
    static const char *const always[] = {
        "3 vCPUs, 64 MiB of memory",
        "0x001000000-0x0010002ff  bzImage (768 bytes)",
        "the kernel uses 0x1000000-0x10fffff",
        "entry: rip 0x1000200, rsi 0x7000, cr3 0x9000",
        "0x000000000-0x000097fff  usable",
        "0x000098000-0x0000fffff  reserved",
        "0x000100000-0x003ffffff  usable",
        "port 0x3f8, 8 bytes, line 4 (edge, active high): COM1",
        "port 0x505, 1 byte, no line: panic register",
        "0x0fec00000-0x0fec00fff  I/O APIC, 24 lines",
    };
    for (unsigned platform = 0; platform < COUNT(parts); platform++) {
        struct load_test test;
        struct minivmm_error err;
        char *text;
        size_t length;
        load_test_init(&test);
        test.config.cpus = 3;
        test.config.memory = 64 * MIB;
        test.config.cmdline = "mine";
        test.config.platform = platform;
        FILE *out = open_memstream(&text, &length);
        cr_assert_eq(minivmm_explain(&test.config, out, &err), 0, "%s", err.text);
        fclose(out);
        for (size_t i = 0; i < 5; i++)
            cr_expect_not_null(strstr(text, parts[platform][i]), "%s: %s", parts[platform][i],
                               text);
        for (size_t i = 0; i < COUNT(always); i++)
            cr_expect_not_null(strstr(text, always[i]), "%s: %s", always[i], text);
        free(text);
        close(test.kernel.fd);
    }
}

Test(guest_load, explain_names_the_device_of_each_slot)
{
    static const char *const parts[] = {
        "line 8 (edge, active high): virtio-mmio slot 0: disk 0 (root.img)\n",
        "line 9 (edge, active high): virtio-mmio slot 1: disk 1 (two?lines.img)\n",
        "virtio-mmio slot 2: net 0 (tap7)\n",
        "virtio-mmio slot 3: net 1 (descriptor 99)\n",
        "virtio-mmio slot 4: net 2 (user)\n",
        "virtio-mmio slot 5: net 3 (/run/passt.socket)\n",
        "virtio-mmio slot 6: rng\n",
    };
    const struct minivmm_disk disks[] = {{.path = "root.img"}, {.path = "two\nlines.img"}};
    const struct minivmm_net nets[] = {
        {.tap = "tap7"}, {.tap_fd = 99}, {.user = true}, {.socket = "/run/passt.socket"}};
    struct load_test test;
    struct minivmm_error err;
    char *text;
    size_t length;
    load_test_init(&test);
    test.config.memory = 64 * MIB;
    test.config.disks = disks;
    test.config.disk_count = COUNT(disks);
    test.config.nets = nets;
    test.config.net_count = COUNT(nets);
    test.config.rng = true;
    FILE *out = open_memstream(&text, &length);
    cr_assert_eq(minivmm_explain(&test.config, out, &err), 0, "%s", err.text);
    fclose(out);
    for (size_t i = 0; i < COUNT(parts); i++)
        cr_expect_not_null(strstr(text, parts[i]), "%s: %s", parts[i], text);
    cr_expect_null(strstr(text, "slot 7"), "%s", text);
    free(text);
    close(test.kernel.fd);
}
