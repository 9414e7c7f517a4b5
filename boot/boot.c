#include "boot/boot.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/acpi.h"
#include "boot/boot_params.h"
#include "boot/cmdline.h"
#include "boot/devtree.h"
#include "boot/image.h"
#include "boot/mptable.h"
#include "vmm/layout.h"

#define PAGE_SIZE 4096u

/* The initrd goes to the end of low RAM, as far from the kernel as can be. */
static int load_initrd(const struct guest_mem *mem, const char *path,
                       const struct kernel_image *kernel, struct boot_range *initrd,
                       struct minivmm_error *err)
{
    struct image_file file;
    uint64_t top = mem->regions[0].size;

    int rc = image_open(&file, "initrd", path, err);
    if (rc < 0)
        return rc;
    if (top > kernel->initrd_max)
        top = kernel->initrd_max + 1;
    if (top < kernel->needs || file.size > top - kernel->needs) {
        rc = error_set(err, -ENOMEM,
                       "initrd %s: %llu KiB do not fit between the kernel, which needs the first "
                       "%llu KiB, and the end of low memory at %llu KiB",
                       path, (unsigned long long)(file.size >> 10),
                       (unsigned long long)(kernel->needs >> 10), (unsigned long long)(top >> 10));
    } else {
        uint64_t start = (top - file.size) & ~(uint64_t)(PAGE_SIZE - 1);
        if (start < kernel->needs)
            start = kernel->needs; /* less than a page to spare */
        *initrd = (struct boot_range){.name = "initrd", .gpa = start, .size = file.size};
        rc = image_read(&file, 0, guest_mem_at(mem, start, file.size), file.size, err);
    }
    image_close(&file);
    return rc;
}

static int write_cmdline(const struct guest_mem *mem, const struct boot_config *config,
                         const struct kernel_image *kernel, struct boot_result *result,
                         struct minivmm_error *err)
{
    uint32_t max = LAYOUT_LOW_RESERVED - LAYOUT_CMDLINE - 1;
    if (max > kernel->cmdline_max)
        max = kernel->cmdline_max;
    int rc = cmdline_compose(config, max, &result->cmdline, err);
    if (rc < 0)
        return rc;
    size_t size = strlen(result->cmdline) + 1;
    memcpy(guest_mem_at(mem, LAYOUT_CMDLINE, size), result->cmdline, size);
    boot_result_add_table(result, "command line", LAYOUT_CMDLINE, size);
    return 0;
}

/* The one description of the platform that this boot uses. */
static int write_platform(const struct guest_mem *mem, const struct boot_config *config,
                          struct boot_params_input *input, void **dtb, struct boot_result *result,
                          struct minivmm_error *err)
{
    int rc = 0;
    switch (config->platform) {
    case MINIVMM_PLATFORM_ACPI:
        return acpi_write(mem, config, &input->rsdp, result, err);
    case MINIVMM_PLATFORM_DTB:
        rc = devtree_build(config, dtb, &input->dtb_size, err);
        input->dtb = *dtb;
        return rc;
    case MINIVMM_PLATFORM_CMDLINE:
        return mptable_write(mem, config, result, err);
    }
    return rc;
}

/*
 * Linux restarts a hardware-reduced machine by way of EFI, or without EFI by a jump to the BIOS's
 * entry in real mode, unless reboot= on the command line says otherwise. There is no BIOS, so the
 * entry is code that resets: mov $0xfe, %al; out %al, $0x64; hlt; jmp to the hlt.
 */
static void write_reset_vector(const struct guest_mem *mem, struct boot_result *result)
{
    static const uint8_t code[] = {0xb0, 0xfe, 0xe6, LAYOUT_PORT_I8042_CMD, 0xf4, 0xeb, 0xfd};
    memcpy(guest_mem_at(mem, LAYOUT_RESET_VECTOR, sizeof(code)), code, sizeof(code));
    boot_result_add_table(result, "reset vector", LAYOUT_RESET_VECTOR, sizeof(code));
}

int boot_load(const struct guest_mem *mem, const struct boot_config *config,
              struct boot_result *result, struct minivmm_error *err)
{
    struct kernel_image kernel;
    void *dtb = NULL;

    *result = (struct boot_result){.initrd = {.name = "initrd"}};
    int rc = image_load_kernel(config->kernel, mem, &kernel, err);
    if (rc < 0)
        return rc;
    result->format = kernel.format;
    result->kernel =
        (struct boot_range){.name = "kernel", .gpa = kernel.load, .size = kernel.end - kernel.load};
    result->kernel_needs = kernel.needs;

    struct boot_params_input input = {.kernel = &kernel, .initrd = &result->initrd};
    if (config->initrd)
        rc = load_initrd(mem, config->initrd, &kernel, &result->initrd, err);
    if (rc == 0)
        rc = write_cmdline(mem, config, &kernel, result, err);
    if (rc == 0)
        rc = write_platform(mem, config, &input, &dtb, result, err);
    if (rc == 0)
        rc = boot_params_write(mem, &input, result, err);
    if (rc == 0) {
        write_reset_vector(mem, result);
        boot_entry_write(mem, kernel.entry, &result->entry);
    }
    free(dtb);
    if (rc < 0)
        boot_result_finish(result);
    return rc;
}

void boot_result_finish(struct boot_result *result)
{
    free(result->cmdline);
    result->cmdline = NULL;
}
