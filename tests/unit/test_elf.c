#include <elf.h>
#include <errno.h>

#include "tests/unit/images.h"

SUITE(elf);

#define RAM (32 * MIB)

Test(elf, lands_segment_by_segment)
{
    struct guest_mem mem;
    struct image image;
    struct kernel_image kernel;
    struct minivmm_error err;
    support_guard_mem(&mem, RAM);
    image_make_elf(&image);
    cr_assert_eq(image_load(&image, &mem, &kernel, &err), 0, "%s", err.text);
    cr_expect_str_eq(kernel.format, "ELF");
    cr_expect_eq(kernel.load, ELF_LOAD);
    cr_expect_eq(kernel.end, ELF_SECOND_AT + ELF_SECOND);
    cr_expect_eq(kernel.needs, kernel.end);
    cr_expect_eq(kernel.entry, ELF_ENTRY);
    cr_expect_eq(kernel.header.boot_flag, 0xaa55);
    const uint8_t *first = guest_mem_at(&mem, ELF_LOAD, ELF_FIRST_MEM);
    for (size_t i = 0; i < ELF_FIRST_MEM; i++)
        cr_assert_eq(first[i], i < ELF_FIRST ? image_code(i) : 0, "byte %zu", i);
    const uint8_t *second = guest_mem_at(&mem, ELF_SECOND_AT, ELF_SECOND);
    for (size_t i = 0; i < ELF_SECOND; i++)
        cr_assert_eq(second[i], image_code(ELF_FIRST + i), "byte %zu", i);
    guest_mem_finish(&mem);
}

Test(elf, unusual_but_right_files_load)
{
    static const struct {
        const char *name;
        struct image_patch patches[3];
        uint64_t entry;
    } rows[] = {
        {"position-independent", {{EHDR(e_type), 2, ET_DYN}}, ELF_ENTRY},
        {"a virtual entry", {{EHDR(e_entry), 8, ELF_VIRTUAL + 0x20}}, ELF_LOAD + 0x20},
        {"a virtual entry into the second segment",
         {{EHDR(e_entry), 8, ELF_VIRTUAL + (ELF_SECOND_AT - ELF_LOAD) + 1}},
         ELF_SECOND_AT + 1},
        {"the last byte as entry",
         {{EHDR(e_entry), 8, ELF_LOAD + ELF_FIRST - 1}},
         ELF_LOAD + ELF_FIRST - 1},
        {"an empty segment anywhere",
         {{PHDR(2, p_memsz), 8, 0}, {PHDR(2, p_filesz), 8, 0}, {PHDR(2, p_paddr), 8, 0}},
         ELF_ENTRY},
        {"a segment of zeros", {{PHDR(2, p_filesz), 8, 0}}, ELF_ENTRY},
        {"a segment at 1 MiB", {{PHDR(2, p_paddr), 8, 0x100000}}, ELF_ENTRY},
        {"a segment that ends with the memory",
         {{PHDR(2, p_paddr), 8, RAM - ELF_SECOND}},
         ELF_ENTRY},
    };
    struct guest_mem mem;
    support_guard_mem(&mem, RAM);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct image image;
        struct kernel_image kernel;
        struct minivmm_error err;
        image_make_elf(&image);
        for (size_t n = 0; n < 3; n++)
            image_patch(&image, &rows[i].patches[n]);
        cr_expect_eq(image_load(&image, &mem, &kernel, &err), 0, "%s: %s", rows[i].name, err.text);
        cr_expect_eq(kernel.entry, rows[i].entry, "%s: 0x%llx", rows[i].name,
                     (unsigned long long)kernel.entry);
    }
    guest_mem_finish(&mem);
}

#define HEADERS "damaged ELF header: program headers"
#define SEGMENT "damaged, or not for a machine like this: a segment of "
#define FOREIGN "an ELF file for another processor than x86-64"

Test(elf, every_fault_of_the_headers_has_its_text)
{
    static const struct {
        const char *name;
        struct image_patch patches[3];
        int rc;
        const char *text;
    } rows[] = {
        {"32 bits",
         {{EI_CLASS, 1, ELFCLASS32}},
         -ENOEXEC,
         "32-bit kernel; minivmm boots 64-bit kernels"},
        {"no class", {{EI_CLASS, 1, 0}}, -ENOEXEC, FOREIGN},
        {"big-endian", {{EI_DATA, 1, ELFDATA2MSB}}, -ENOEXEC, FOREIGN},
        {"another processor", {{EHDR(e_machine), 2, EM_AARCH64}}, -ENOEXEC, FOREIGN},
        {"an object file", {{EHDR(e_type), 2, ET_REL}}, -ENOEXEC, "an ELF file that is no program"},
        {"a core dump", {{EHDR(e_type), 2, ET_CORE}}, -ENOEXEC, "an ELF file that is no program"},
        {"no segments", {{EHDR(e_phnum), 2, 0}}, -ENOEXEC, HEADERS},
        {"65 segments", {{EHDR(e_phnum), 2, 65}}, -ENOEXEC, HEADERS},
        {"65535 segments", {{EHDR(e_phnum), 2, 65535}}, -ENOEXEC, HEADERS},
        {"program headers of another size", {{EHDR(e_phentsize), 2, 32}}, -ENOEXEC, HEADERS},
        {"program headers past the end",
         {{EHDR(e_phoff), 8, 0x1b0}},
         -ENODATA,
         "truncated: it ends at byte 448"},
        {"section headers past the end",
         {{EHDR(e_shoff), 8, 0x180}, {EHDR(e_shentsize), 2, 64}, {EHDR(e_shnum), 2, 2}},
         -ENODATA,
         "truncated: the file has 448 bytes, its headers promise 512"},
        {"a segment's file part past the end",
         {{PHDR(0, p_offset), 8, 0x1c0}},
         -ENODATA,
         "truncated: the file has 448 bytes, its headers promise 576"},
        {"a file part that wraps",
         {{PHDR(0, p_offset), 8, UINT64_MAX - 15}},
         -ENODATA,
         "truncated: the file has 448 bytes, its headers promise 18446744073709551615"},
        {"below 1 MiB",
         {{PHDR(0, p_paddr), 8, 0xfffff}},
         -ENOEXEC,
         SEGMENT "8192 bytes at address 0xfffff"},
        {"a segment that wraps",
         {{PHDR(0, p_paddr), 8, UINT64_MAX - 15}},
         -ENOEXEC,
         SEGMENT "8192 bytes at address 0xfffffffffffffff0"},
        {"more file than memory",
         {{PHDR(0, p_memsz), 8, ELF_FIRST - 1}},
         -ENOEXEC,
         SEGMENT "127 bytes at address 0x1000000"},
        {"file without memory",
         {{PHDR(0, p_memsz), 8, 0}},
         -ENOEXEC,
         SEGMENT "0 bytes at address 0x1000000"},
        {"past the RAM",
         {{PHDR(2, p_paddr), 8, RAM - ELF_SECOND + 1}},
         -ENOMEM,
         "needs at least 33 MiB of memory below 3 GiB, the guest has 32 MiB"},
        {"at 4 GiB",
         {{PHDR(2, p_paddr), 8, 4 * GIB}},
         -ENOMEM,
         "needs at least 4097 MiB of memory below 3 GiB, the guest has 32 MiB"},
        {"a memory part of 2^63",
         {{PHDR(0, p_memsz), 8, 1ull << 63}},
         -ENOMEM,
         "needs at least 8796093022224 MiB of memory below 3 GiB, the guest has 32 MiB"},
        {"entry 0", {{EHDR(e_entry), 8, 0}}, -ENOEXEC, "its entry 0x0 lies in no segment"},
        {"entry in the zeros of a segment",
         {{EHDR(e_entry), 8, ELF_LOAD + ELF_FIRST}},
         -ENOEXEC,
         "its entry 0x1000080 lies in no segment"},
        {"entry between segments",
         {{EHDR(e_entry), 8, 0x1200000}},
         -ENOEXEC,
         "its entry 0x1200000 lies in no segment"},
        {"nothing to load",
         {{PHDR(0, p_type), 4, PT_NULL}, {PHDR(2, p_type), 4, PT_NULL}},
         -ENOEXEC,
         "its entry 0x1000010 lies in no segment"},
    };
    struct guest_mem mem;
    support_guard_mem(&mem, RAM);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct image image;
        struct kernel_image kernel;
        struct minivmm_error err;
        image_make_elf(&image);
        for (size_t n = 0; n < 3; n++)
            image_patch(&image, &rows[i].patches[n]);
        cr_expect_eq(image_load(&image, &mem, &kernel, &err), rows[i].rc, "%s", rows[i].name);
        cr_expect_str_eq(image_error(&err), rows[i].text, "%s: %s", rows[i].name, err.text);
    }
    guest_mem_finish(&mem);
}

Test(elf, program_headers_at_a_negative_offset_are_a_clean_error)
{
    struct guest_mem mem;
    struct image image;
    struct kernel_image kernel;
    struct minivmm_error err;
    const struct image_patch patch = {EHDR(e_phoff), 8, UINT64_MAX - 7};
    support_guard_mem(&mem, RAM);
    image_make_elf(&image);
    image_patch(&image, &patch);
    cr_assert_lt(image_load(&image, &mem, &kernel, &err), 0);
    guest_mem_finish(&mem);
}
