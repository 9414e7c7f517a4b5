/* ELF kernels: an uncompressed vmlinux, or a bare-metal program that starts like one. elf.h. */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "boot/image.h"
#include "vmm/checked.h"
#include "vmm/layout.h"

#define SEGMENTS_MAX 64u

/* What a bzImage's header would say; an ELF file has none. */
#define CMDLINE_MAX 2047u /* COMMAND_LINE_SIZE of x86, without the zero */
#define INITRD_MAX  0x7fffffffu

bool elf_probe(const uint8_t first[IMAGE_PROBE_SIZE])
{
    return memcmp(first, ELFMAG, SELFMAG) == 0;
}

static const char *unsuitable(const Elf64_Ehdr *header)
{
    if (header->e_ident[EI_CLASS] == ELFCLASS32)
        return "32-bit kernel; minivmm boots 64-bit kernels";
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != EM_X86_64)
        return "an ELF file for another processor than x86-64";
    if (header->e_type != ET_EXEC && header->e_type != ET_DYN)
        return "an ELF file that is no program";
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum == 0 ||
        header->e_phnum > SEGMENTS_MAX)
        return "damaged ELF header: program headers";
    return NULL;
}

/* Past the last byte that the headers speak of; UINT64_MAX on overflow. */
static uint64_t file_end(const Elf64_Ehdr *header, const Elf64_Phdr *segments)
{
    uint64_t end, last = 0;
    uint64_t sections = (uint64_t)header->e_shentsize * header->e_shnum;

    if (!checked_add(header->e_shoff, sections, &end))
        return UINT64_MAX;
    if (sections > 0)
        last = end;
    for (unsigned i = 0; i < header->e_phnum; i++) {
        if (!checked_add(segments[i].p_offset, segments[i].p_filesz, &end))
            return UINT64_MAX;
        if (segments[i].p_type == PT_LOAD && end > last)
            last = end;
    }
    return last;
}

static int load_segment(const struct image_file *file, const Elf64_Phdr *segment,
                        const struct guest_mem *mem, struct kernel_image *kernel,
                        struct minivmm_error *err)
{
    uint64_t start = segment->p_paddr, end;

    if (segment->p_memsz == 0 && segment->p_filesz == 0)
        return 0;
    if (segment->p_filesz > segment->p_memsz || !checked_add(start, segment->p_memsz, &end) ||
        start < LAYOUT_HIGH_MEMORY)
        return error_set(err, -ENOEXEC,
                         "kernel %s: damaged, or not for a machine like this: a segment of %llu "
                         "bytes at address 0x%llx",
                         file->path, (unsigned long long)segment->p_memsz,
                         (unsigned long long)start);
    if (end > mem->regions[0].size)
        return image_needs_memory(file, end, mem, err);
    if (start < kernel->load)
        kernel->load = start;
    if (end > kernel->end)
        kernel->end = end;
    if (segment->p_filesz == 0)
        return 0;
    return image_read(file, segment->p_offset, guest_mem_at(mem, start, segment->p_filesz),
                      segment->p_filesz, err);
}

/* The entry as a physical address: Linux stores one, other programs a virtual one. 0: nowhere. */
static uint64_t find_entry(const Elf64_Ehdr *header, const Elf64_Phdr *segments)
{
    for (unsigned i = 0; i < header->e_phnum; i++) {
        const Elf64_Phdr *s = &segments[i];
        if (s->p_type == PT_LOAD && header->e_entry - s->p_paddr < s->p_filesz)
            return header->e_entry;
    }
    for (unsigned i = 0; i < header->e_phnum; i++) {
        const Elf64_Phdr *s = &segments[i];
        if (s->p_type == PT_LOAD && header->e_entry - s->p_vaddr < s->p_filesz)
            return header->e_entry - s->p_vaddr + s->p_paddr;
    }
    return 0;
}

int elf_load(const struct image_file *file, const uint8_t first[IMAGE_PROBE_SIZE],
             const struct guest_mem *mem, struct kernel_image *kernel, struct minivmm_error *err)
{
    Elf64_Ehdr header;
    Elf64_Phdr segments[SEGMENTS_MAX];

    memcpy(&header, first, sizeof(header));
    if (file->size < sizeof(header))
        return error_set(err, -ENODATA, "kernel %s: truncated within its ELF header", file->path);
    const char *fault = unsuitable(&header);
    if (fault)
        return error_set(err, -ENOEXEC, "kernel %s: %s", file->path, fault);
    int rc = image_read(file, header.e_phoff, segments, header.e_phnum * sizeof(segments[0]), err);
    if (rc < 0)
        return rc;
    uint64_t end = file_end(&header, segments);
    if (file->size < end)
        return error_set(err, -ENODATA,
                         "kernel %s: truncated: the file has %llu bytes, its headers promise %llu",
                         file->path, (unsigned long long)file->size, (unsigned long long)end);

    *kernel = (struct kernel_image){.format = "ELF",
                                    .load = UINT64_MAX,
                                    .initrd_max = INITRD_MAX,
                                    .cmdline_max = CMDLINE_MAX,
                                    .header = {.boot_flag = 0xaa55,
                                               .header = 0x53726448, /* "HdrS" */
                                               .version = 0x020c,
                                               .kernel_alignment = 0x200000}};
    for (unsigned i = 0; i < header.e_phnum; i++) {
        if (segments[i].p_type == PT_LOAD)
            rc = load_segment(file, &segments[i], mem, kernel, err);
        if (rc < 0)
            return rc;
    }
    kernel->needs = kernel->end;
    kernel->entry = find_entry(&header, segments);
    if (kernel->entry == 0)
        return error_set(err, -ENOEXEC, "kernel %s: its entry 0x%llx lies in no segment",
                         file->path, (unsigned long long)header.e_entry);
    return 0;
}
