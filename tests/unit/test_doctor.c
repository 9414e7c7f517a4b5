/* What the doctor says about made-up kernels, whose configuration the test writes, and real ones.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/images.h"
#include "vmm/doctor.h"
#include "vmm/kernel_unpack.h"

SUITE(doctor);

#define VERSION "9.9.9-test"
#define GOOD                                                                                       \
    "# Linux/x86 9.9.4 Kernel Configuration\nCONFIG_64BIT=y\nCONFIG_ACPI=y\n"                      \
    "CONFIG_SERIAL_8250_CONSOLE=y\nCONFIG_BLK_DEV_INITRD=y\n"

static char dir[64], kernel[80], config[160];

static void write_file(const char *path, const void *bytes, size_t size)
{
    FILE *file = fopen(path, "w");
    cr_assert(file && fwrite(bytes, 1, size, file) == size && fclose(file) == 0, "%s", path);
}

/* A bzImage with a version, in a directory of its own. */
static void begin(void)
{
    struct image image;
    support_temp_dir(dir);
    snprintf(kernel, sizeof(kernel), "%s/vmlinuz", dir);
    snprintf(config, sizeof(config), "%s/config-" VERSION, dir);
    image_make_bzimage(&image);
    const struct image_patch version = {SETUP(kernel_version), 2, 0x180};
    image_patch(&image, &version);
    strcpy((char *)image.bytes + 0x380, VERSION " (somebody) #1\033");
    write_file(kernel, image.bytes, image.size);
}

static void end(void)
{
    support_remove_dir(dir);
}

/* The answer, or the error's text; the caller frees it. */
static char *ask(const char *const words[3], int *rc)
{
    struct minivmm_error err = {.text = ""};
    char *text;
    size_t size;
    int count = 0;
    while (count < 3 && words[count])
        count++;
    FILE *out = open_memstream(&text, &size);
    *rc = doctor(count, (char *const *)words, out, &err);
    fclose(out);
    if (*rc < 0) {
        cr_expect_str_eq(text, "", "an error says nothing else");
        cr_expect(support_one_line(&err, ""), "%s", err.text);
        free(text);
        text = strdup(err.text);
    }
    return text;
}

Test(doctor, configurations)
{
    static const struct {
        const char *name, *config;
        int rc;
        const char *parts[4];
    } rows[] = {
        {"modules",
         GOOD "CONFIG_VIRTIO_MMIO=m\nCONFIG_VIRTIO_BLK=m\nCONFIG_EXT4_FS=y\n"
              "CONFIG_VIRTIO_NET=m\nCONFIG_PVPANIC=y\nCONFIG_PVPANIC_MMIO=m\n",
         DOCTOR_BOOTS,
         {"module virtio_mmio: from an initrd\n",
          "module virtio_net: from an initrd, or from the root file system\n",
          "module pvpanic_mmio:", "--initrd FILE\nit can run here with these options\n"}},
        {"built in",
         GOOD "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_BLK=y\nCONFIG_EXT4_FS=y\n",
         DOCTOR_BOOTS,
         {"--platform acpi     yes\n", "virtio-mmio: all devices below    built in\n",
          "/vmlinuz\nit can run here", "virtio-net              not there: CONFIG_VIRTIO_NET\n"}},
        {"an older pvpanic",
         GOOD "CONFIG_VIRTIO_MMIO=y\nCONFIG_PVPANIC=m\n",
         DOCTOR_BOOTS,
         {"module pvpanic:"}},
        {"an unset pvpanic of the newer kind",
         GOOD "CONFIG_VIRTIO_MMIO=y\nCONFIG_PVPANIC=y\n# CONFIG_PVPANIC_MMIO is not set\n",
         DOCTOR_BOOTS,
         {"not there: CONFIG_PVPANIC_MMIO\n"}},
        {"no ACPI, by the command line",
         "# Linux/x86 9.9.4 x\nCONFIG_64BIT=y\nCONFIG_SERIAL_8250_CONSOLE=y\n"
         "CONFIG_VIRTIO_MMIO=y\nCONFIG_VIRTIO_MMIO_CMDLINE_DEVICES=y\nCONFIG_X86_MPPARSE=y\n",
         DOCTOR_BOOTS,
         {"--platform acpi     no: CONFIG_ACPI not set\n", "--platform cmdline\n"}},
        {"no ACPI, by a device tree",
         "# Linux/x86 9.9.4 x\nCONFIG_64BIT=y\nCONFIG_SERIAL_8250_CONSOLE=y\n"
         "CONFIG_VIRTIO_MMIO=y\nCONFIG_OF=y\nCONFIG_OF_EARLY_FLATTREE=y\nCONFIG_PCI=y\n"
         "CONFIG_SERIAL_OF_PLATFORM=y\n",
         DOCTOR_BOOTS,
         {"/vmlinuz --platform dtb\n"}},
        {"no way to learn of devices",
         "# Linux/x86 9.9.4 x\nCONFIG_64BIT=y\nCONFIG_SERIAL_8250_CONSOLE=y\n"
         "CONFIG_VIRTIO_MMIO=y\nCONFIG_OF=y\n",
         DOCTOR_DOES_NOT,
         {"it cannot run here: it lacks a way to learn of its devices\n",
          "CONFIG_OF_EARLY_FLATTREE CONFIG_PCI CONFIG_SERIAL_OF_PLATFORM not set\n"}},
        {"no virtio-mmio",
         GOOD "# CONFIG_VIRTIO_MMIO is not set\n",
         DOCTOR_DOES_NOT,
         {"not there: CONFIG_VIRTIO_MMIO\n", "it lacks virtio-mmio"}},
        {"no console",
         "# Linux/x86 9.9.4 x\nCONFIG_64BIT=y\nCONFIG_ACPI=y\nCONFIG_VIRTIO_MMIO=y\n",
         DOCTOR_DOES_NOT,
         {"it lacks serial console"}},
        {"modules and no initrd",
         "# Linux/x86 9.9.4 x\nCONFIG_64BIT=y\nCONFIG_ACPI=y\nCONFIG_SERIAL_8250_CONSOLE=y\n"
         "CONFIG_VIRTIO_MMIO=m\n",
         DOCTOR_DOES_NOT,
         {"it lacks support for an initrd, for its modules\n"}},
        {"a name that only begins so",
         GOOD "CONFIG_VIRTIO_MMIO_X=y\nXCONFIG_VIRTIO_MMIO=y\n",
         DOCTOR_DOES_NOT,
         {"not there: CONFIG_VIRTIO_MMIO\n"}},
        {"of 32 bits",
         "# Linux/i386 9.9.4 x\nCONFIG_ACPI=y\nCONFIG_VIRTIO_MMIO=y\n",
         DOCTOR_DOES_NOT,
         {"configuration: unknown: ", "whether it can run here is unknown: "}},
        {"no configuration", "hello\n", DOCTOR_DOES_NOT, {"configuration: unknown: "}},
    };
    begin();
    for (size_t i = 0; i < COUNT(rows); i++) {
        int rc;
        write_file(config, rows[i].config, strlen(rows[i].config));
        char *text = ask((const char *const[3]){kernel}, &rc);
        cr_expect_eq(rc, rows[i].rc, "%s: %d: %s", rows[i].name, rc, text);
        cr_expect(strstr(text, "\nversion: " VERSION " (somebody) #1?\n"), "%s", text);
        cr_expect(strstr(text, "\nmemory: 17 MiB before "), "%s", text);
        for (size_t k = 0; k < 4 && rows[i].parts[k]; k++)
            cr_expect(strstr(text, rows[i].parts[k]), "%s: \"%s\" is not in\n%s", rows[i].name,
                      rows[i].parts[k], text);
        free(text);
    }
    end();
}

Test(doctor, says_where_its_knowledge_is_from)
{
    static const char text[] = GOOD "CONFIG_VIRTIO_MMIO=y\n";
    static const char other[] = "# Linux/x86 9.8.4 x\nCONFIG_64BIT=y\nCONFIG_ACPI=y\n";
    char path[160], expected[300];
    int rc;

    begin();
    snprintf(path, sizeof(path), "%s/config", dir);
    write_file(path, other, sizeof(other) - 1);
    char *said = ask((const char *const[3]){kernel}, &rc);
    cr_expect(strstr(said, "configuration: unknown: "), "another version's: %s", said);
    free(said);
    write_file(path, text, sizeof(text) - 1);
    said = ask((const char *const[3]){kernel}, &rc);
    snprintf(expected, sizeof(expected),
             "configuration: %s, beside the kernel and for the same minor version; nothing", path);
    cr_expect(strstr(said, expected), "%s", said);
    cr_expect_eq(rc, DOCTOR_BOOTS);
    free(said);
    write_file(config, text, sizeof(text) - 1);
    said = ask((const char *const[3]){kernel}, &rc);
    snprintf(expected, sizeof(expected), "configuration: %s\n", config);
    cr_expect(strstr(said, expected), "its own is better: %s", said);
    free(said);
    said = ask((const char *const[3]){kernel, "--config", path}, &rc);
    snprintf(expected, sizeof(expected), "configuration: %s, as given\n", path);
    cr_expect(strstr(said, expected), "%s", said);
    free(said);
    end();
}

/* Lists of modules tell of what can be a module, and of nothing else. */
Test(doctor, lists_of_modules_tell_some)
{
    static const char builtin[] = "kernel/drivers/virtio/virtio_mmio.ko\nkernel/fs/xext4.ko\n";
    static const char modules[] = "kernel/drivers/block/virtio_blk.ko.xz: a.ko\n"
                                  "kernel/drivers/char/hw_random/virtio-rng.ko:\n"
                                  "kernel/x/virtio_net.koala:\n";
    char command[400], moved[120];
    int rc, status;

    begin();
    snprintf(command, sizeof(command),
             "mkdir -p %s/lib/modules/" VERSION " %s/boot && mv %s %s/boot", dir, dir, kernel, dir);
    free(support_run(command, &status));
    snprintf(moved, sizeof(moved), "%s/lib/modules/" VERSION "/modules.builtin", dir);
    write_file(moved, builtin, sizeof(builtin) - 1);
    snprintf(moved, sizeof(moved), "%s/lib/modules/" VERSION "/modules.dep", dir);
    write_file(moved, modules, sizeof(modules) - 1);
    snprintf(moved, sizeof(moved), "%s/boot/vmlinuz", dir);
    char *text = ask((const char *const[3]){moved}, &rc);
    static const char *const parts[] = {"virtio-mmio: all devices below    built in\n",
                                        "module virtio_blk:",
                                        "module virtio_rng:",
                                        "ext4                              not there",
                                        "--platform acpi     unknown\n",
                                        "serial console (8250)             unknown\n",
                                        "what can be a module is told by "};
    for (size_t i = 0; i < COUNT(parts); i++)
        cr_expect(strstr(text, parts[i]), "%s is not in\n%s", parts[i], text);
    cr_expect_eq(rc, DOCTOR_DOES_NOT);
    free(text);
    end();
}

/* The payload behind the code, as the kernel's build puts it there: with its size behind it. */
static void make_packed(const char *packed_path, bool with_size)
{
    static uint8_t bytes[65536];
    struct image image;
    FILE *packed = fopen(packed_path, "r");
    image_make_bzimage(&image);
    memcpy(bytes, image.bytes, image.size);
    size_t length = fread(bytes + image.size, 1, sizeof(bytes) - image.size - 16, packed);
    fclose(packed);
    memcpy(bytes + image.size + length, "\1\2\3\4", 4);
    length += with_size ? 4 : 0;
    const struct image_patch patches[] = {{SETUP(payload_offset), 4, BZIMAGE_CODE},
                                          {SETUP(payload_length), 4, length},
                                          {SETUP(syssize), 4, (BZIMAGE_CODE + length + 15) / 16}};
    for (size_t i = 0; i < COUNT(patches); i++)
        image_patch(&image, &patches[i]);
    memcpy(bytes, image.bytes, image.size);
    write_file(kernel, bytes, image.size + length + 16);
}

Test(doctor, finds_the_configuration_inside_a_kernel_however_packed)
{
    static const struct {
        const char *program, *command;
        bool with_size;
    } rows[] = {
        {"gzip", "gzip -9c", false},         {"xz", "xz -c --check=crc32", true},
        {"xz", "xz -c --format=lzma", true}, {"zstd", "zstd -19qc", true},
        {"lz4", "lz4 -l -9 -c", true},       {"bzip2", "bzip2 -9c", true},
        {"lzop", "lzop -9c", true},
    };
    char command[500], path[100];
    int status, rc;

    begin();
    snprintf(path, sizeof(path), "%s/packed", dir);
    snprintf(command, sizeof(command), "%s/text", dir);
    write_file(command, GOOD "CONFIG_VIRTIO_MMIO=y\nCONFIG_IKCONFIG=y\n",
               strlen(GOOD "CONFIG_VIRTIO_MMIO=y\nCONFIG_IKCONFIG=y\n"));
    snprintf(command, sizeof(command),
             "cd %s && (head -c 5000 /dev/urandom; printf IKCFG_ST; gzip -c text; printf IKCFG_ED; "
             "head -c 100 /dev/urandom) >inner",
             dir);
    free(support_run(command, &status));
    cr_assert_eq(status, 0);
    for (size_t i = 0; i < COUNT(rows); i++) {
        if (!support_has_program(rows[i].program))
            continue;
        snprintf(command, sizeof(command), "cd %s && %s <inner >packed", dir, rows[i].command);
        free(support_run(command, &status));
        make_packed(path, rows[i].with_size);
        char *text = ask((const char *const[3]){kernel}, &rc);
        cr_expect_eq(rc, DOCTOR_BOOTS, "%s: %s", rows[i].command, text);
        cr_expect(strstr(text, "configuration: inside the kernel\n"), "%s: %s", rows[i].command,
                  text);
        free(text);
        /* What is cut off or damaged is said, and nothing is made of it. */
        snprintf(command, sizeof(command), "cd %s && truncate -s -3000 packed", dir);
        free(support_run(command, &status));
        make_packed(path, rows[i].with_size);
        text = ask((const char *const[3]){kernel}, &rc);
        cr_expect_eq(rc, DOCTOR_DOES_NOT, "%s: %s", rows[i].command, text);
        cr_expect(strstr(text, "configuration: unknown: not looked for inside the kernel: "),
                  "%s: %s", rows[i].command, text);
        free(text);
    }
    end();
}

Test(doctor, what_makes_no_sense_is_one_line)
{
    char missing[100];
    begin();
    snprintf(missing, sizeof(missing), "%s/none", dir);
    const struct {
        const char *name, *words[3], *part;
    } rows[] = {
        {"nothing", {NULL}, "doctor: usage: "},
        {"an option", {"--kernel", kernel}, "doctor: --kernel: usage: "},
        {"two kernels", {kernel, kernel}, "usage: "},
        {"no value", {kernel, "--config"}, "usage: "},
        {"no such kernel", {missing}, "none: No such file or directory"},
        {"a directory", {dir}, "not a regular file"},
        {"a device", {"/dev/zero"}, "not a regular file"},
        {"a text", {"README.md"}, "neither a Linux bzImage nor an ELF file"},
        {"empty", {"/dev/null"}, "not a regular file"},
        {"no such configuration", {kernel, "--config", missing}, "No such file or directory"},
        {"a directory for one", {kernel, "--config", dir}, "not a regular file"},
        {"a text for one", {kernel, "--config", "README.md"}, "not the configuration of a 64-bit"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        int rc;
        char *text = ask(rows[i].words, &rc);
        cr_expect_lt(rc, 0, "%s: %s", rows[i].name, text);
        cr_expect(strstr(text, rows[i].part), "%s: %s", rows[i].name, text);
        free(text);
    }
    end();
}

/* MINIVMM_TEST_KERNELS: directories with a "vmlinuz" and a "config", as scripts/guest-kernel has.
 */
Test(doctor, stock_kernels_can_run_and_truncated_ones_are_refused)
{
    const char *list = getenv("MINIVMM_TEST_KERNELS");
    if (!list || !*list)
        cr_skip_test("MINIVMM_TEST_KERNELS names no directory");
    char *copy = strdup(list), *rest;
    for (char *at = strtok_r(copy, ":", &rest); at; at = strtok_r(NULL, ":", &rest)) {
        char path[512];
        int rc;
        snprintf(path, sizeof(path), "%s/vmlinuz", at);
        char *text = ask((const char *const[3]){path}, &rc);
        cr_expect_eq(rc, DOCTOR_BOOTS, "%s", text);
        cr_expect(strstr(text, "--platform acpi     yes\n"), "%s", text);
        cr_expect(strstr(text, "module virtio_mmio: from an initrd\n"), "%s", text);
        cr_expect(strstr(text, "--initrd FILE\n"), "%s", text);
        free(text);
        const off_t sizes[] = {1, 512, 1024, 65536, 4 << 20};
        for (size_t i = 0; i < COUNT(sizes); i++) {
            char cut[80], command[700];
            int status;
            begin();
            snprintf(cut, sizeof(cut), "%s/cut", dir);
            snprintf(command, sizeof(command), "head -c %ld %s >%s", (long)sizes[i], path, cut);
            free(support_run(command, &status));
            text = ask((const char *const[3]){cut}, &rc);
            cr_expect_lt(rc, 0, "%ld bytes: %s", (long)sizes[i], text);
            free(text);
            end();
        }
    }
    free(copy);
}
