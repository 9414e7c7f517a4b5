/* Linux bzImage: Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header". */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "boot/image.h"
#include "vmm/checked.h"
#include "vmm/layout.h"

#define BOOT_FLAG           0xaa55
#define HEADER_MAGIC        0x53726448u /* "HdrS" */
#define OLDEST_PROTOCOL     0x020c      /* the first with xloadflags and the 64-bit entry */
#define SECTOR              512u
#define DEFAULT_SETUP_SECTS 4u
#define ENTRY_64            0x200u /* of the 64-bit entry, from the start of the loaded part */

#define HEADER_OFFSET offsetof(struct boot_params, hdr)
/* The header's length is told by the byte after its jump instruction. */
#define HEADER_JUMP_OFFSET 0x201u
#define HEADER_JUMP_BASE   0x202u

/* PE/COFF, "Optional Header Data Directories": where a signature lies in the file. */
#define PE_POINTER         0x3cu
#define PE_SIGNATURE       0x00004550u
#define PE_OPTIONAL_HEADER 24u
#define PE32_PLUS          0x20b
#define PE_CERTIFICATES    (112u + 4 * 8)

static struct setup_header read_header(const uint8_t *first)
{
    struct setup_header header = {0};
    uint32_t end = HEADER_JUMP_BASE + first[HEADER_JUMP_OFFSET];
    uint32_t length = end - HEADER_OFFSET;

    /* What lies behind the header's end is code, and 0xff in newer kernels: not for boot_params. */
    memcpy(&header, first + HEADER_OFFSET, length < sizeof(header) ? length : sizeof(header));
    return header;
}

bool bzimage_probe(const uint8_t first[IMAGE_PROBE_SIZE])
{
    struct setup_header header;
    memcpy(&header, first + HEADER_OFFSET, sizeof(header));
    return header.boot_flag == BOOT_FLAG && header.header == HEADER_MAGIC;
}

/*
 * Where the file's signature ends, 0 if it has none. It lies behind everything that is loaded, so
 * that a file cut off there would still boot: it is looked at to tell a damaged file.
 */
static uint64_t signature_end(const uint8_t *first)
{
    uint32_t pe, offset, size, magic;
    uint16_t optional_magic;

    memcpy(&pe, first + PE_POINTER, sizeof(pe));
    if (!range_within(pe, PE_OPTIONAL_HEADER + PE_CERTIFICATES + 8, IMAGE_PROBE_SIZE))
        return 0;
    const uint8_t *optional = first + pe + PE_OPTIONAL_HEADER;
    memcpy(&magic, first + pe, sizeof(magic));
    memcpy(&optional_magic, optional, sizeof(optional_magic));
    if (magic != PE_SIGNATURE || optional_magic != PE32_PLUS)
        return 0;
    memcpy(&offset, optional + PE_CERTIFICATES, sizeof(offset));
    memcpy(&size, optional + PE_CERTIFICATES + 4, sizeof(size));
    return (uint64_t)offset + size;
}

/* The reason why this kernel cannot be started here, or NULL. */
static const char *unsuitable(const struct setup_header *header)
{
    if (header->version < OLDEST_PROTOCOL)
        return "boot protocol older than 2.12 (Linux 3.8)";
    if (!(header->xloadflags & XLF_KERNEL_64))
        return "32-bit kernel; minivmm boots 64-bit kernels";
    if (!(header->loadflags & LOADED_HIGH))
        return "a zImage, which loads below 1 MiB";
    if (header->pref_address < LAYOUT_HIGH_MEMORY)
        return "damaged header: its preferred address is below 1 MiB";
    return NULL;
}

int bzimage_load(const struct image_file *file, const uint8_t first[IMAGE_PROBE_SIZE],
                 const struct guest_mem *mem, struct kernel_image *kernel,
                 struct minivmm_error *err)
{
    const struct setup_header header = read_header(first);
    const char *fault = unsuitable(&header);
    if (fault)
        return error_set(err, -ENOEXEC, "kernel %s: %s", file->path, fault);

    uint32_t sectors = header.setup_sects ? header.setup_sects : DEFAULT_SETUP_SECTS;
    uint64_t setup = (sectors + 1) * SECTOR; /* the boot sector is not counted */
    uint64_t size = (uint64_t)header.syssize * 16;
    uint64_t signed_end = signature_end(first);
    uint64_t file_needs = setup + size > signed_end ? setup + size : signed_end;
    if (size <= ENTRY_64)
        return error_set(err, -ENOEXEC, "kernel %s: damaged header: %llu bytes of code", file->path,
                         (unsigned long long)size);
    if (file->size < file_needs)
        return error_set(err, -ENODATA,
                         "kernel %s: truncated: the file has %llu bytes, its header promises %llu",
                         file->path, (unsigned long long)file->size,
                         (unsigned long long)file_needs);

    /*
     * At the preferred address the kernel need not move itself; it would move up to there from
     * any lower one, so nothing is gained by trying less memory.
     */
    uint64_t load = header.pref_address, end;
    if (!checked_add(load, size > header.init_size ? size : header.init_size, &end))
        return error_set(err, -ENOEXEC, "kernel %s: damaged header: preferred address 0x%llx",
                         file->path, (unsigned long long)load);
    if (end > mem->regions[0].size)
        return image_needs_memory(file, end, mem, err);

    *kernel = (struct kernel_image){.format = "bzImage",
                                    .load = load,
                                    .end = load + size,
                                    .needs = end,
                                    .entry = load + ENTRY_64,
                                    .initrd_max = header.initrd_addr_max,
                                    .cmdline_max = header.cmdline_size,
                                    .header = header};
    return image_read(file, setup, guest_mem_at(mem, load, size), size, err);
}
