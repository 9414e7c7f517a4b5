#include "tests/unit/images.h"

#include <elf.h>
#include <string.h>
#include <unistd.h>

uint8_t image_code(size_t i)
{
    return (uint8_t)(i * 13 + 1);
}

void image_make_bzimage(struct image *image)
{
    const struct setup_header header = {
        .setup_sects = BZIMAGE_SETUP / 512 - 1,
        .syssize = BZIMAGE_CODE / 16,
        .boot_flag = 0xaa55,
        .jump = (sizeof(struct setup_header) + 0x1f1 - 0x202) << 8 | 0xeb,
        .header = 0x53726448,
        .version = 0x20f,
        .loadflags = LOADED_HIGH,
        .code32_start = 0x100000,
        .initrd_addr_max = 0x7fffffff,
        .kernel_alignment = 0x200000,
        .relocatable_kernel = 1,
        .xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G,
        .cmdline_size = 2047,
        .pref_address = BZIMAGE_LOAD,
        .init_size = BZIMAGE_INIT_SIZE,
    };
    *image = (struct image){.size = BZIMAGE_SETUP + BZIMAGE_CODE};
    memset(image->bytes, 0xff, BZIMAGE_SETUP); /* what is not the header must not matter */
    memset(image->bytes, 0, 64);
    memcpy(image->bytes + 0x1f1, &header, sizeof(header));
    for (size_t i = 0; i < BZIMAGE_CODE; i++)
        image->bytes[BZIMAGE_SETUP + i] = image_code(i);
}

void image_make_signed_bzimage(struct image *image)
{
    const unsigned pe = 0x40, optional = pe + 24, certificates = optional + 112 + 4 * 8;
    const struct image_patch patches[] = {
        {0x3c, 4, pe},
        {pe, 4, 0x4550},
        {optional, 2, 0x20b},
        {certificates, 4, BZIMAGE_SETUP + BZIMAGE_CODE},
        {certificates + 4, 4, BZIMAGE_SIGNATURE},
    };
    image_make_bzimage(image);
    for (size_t i = 0; i < COUNT(patches); i++)
        image_patch(image, &patches[i]);
    memset(image->bytes + image->size, 0x5a, BZIMAGE_SIGNATURE);
    image->size += BZIMAGE_SIGNATURE;
}

void image_make_elf(struct image *image)
{
    const uint64_t first_at = 0x100, second_at = first_at + ELF_FIRST;
    const Elf64_Ehdr header = {
        .e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = ELF_ENTRY,
        .e_phoff = sizeof(Elf64_Ehdr),
        .e_ehsize = sizeof(Elf64_Ehdr),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 3,
    };
    const Elf64_Phdr segments[] = {
        {.p_type = PT_LOAD,
         .p_offset = first_at,
         .p_vaddr = ELF_VIRTUAL,
         .p_paddr = ELF_LOAD,
         .p_filesz = ELF_FIRST,
         .p_memsz = ELF_FIRST_MEM},
        {.p_type = PT_NOTE, .p_offset = first_at, .p_paddr = 0, .p_filesz = 8, .p_memsz = 8},
        {.p_type = PT_LOAD,
         .p_offset = second_at,
         .p_vaddr = ELF_VIRTUAL + (ELF_SECOND_AT - ELF_LOAD),
         .p_paddr = ELF_SECOND_AT,
         .p_filesz = ELF_SECOND,
         .p_memsz = ELF_SECOND},
    };
    *image = (struct image){.size = second_at + ELF_SECOND};
    memcpy(image->bytes, &header, sizeof(header));
    memcpy(image->bytes + sizeof(header), segments, sizeof(segments));
    for (size_t i = 0; i < ELF_FIRST + ELF_SECOND; i++)
        image->bytes[first_at + i] = image_code(i);
}

void image_patch(struct image *image, const struct image_patch *patch)
{
    memcpy(image->bytes + patch->offset, &patch->value, patch->width);
}

int image_load(const struct image *image, const struct guest_mem *mem, struct kernel_image *kernel,
               struct minivmm_error *err)
{
    struct support_file file = support_file(image->bytes, image->size);
    err->text[0] = '\0';
    int rc = image_load_kernel(file.path, mem, kernel, err);
    if (rc < 0) {
        char start[64];
        snprintf(start, sizeof(start), "kernel %s: ", file.path);
        cr_expect_eq(strncmp(err->text, start, strlen(start)), 0, "no file named: %s", err->text);
        cr_expect(support_one_line(err, start), "%s", err->text);
    }
    close(file.fd);
    return rc;
}

const char *image_error(const struct minivmm_error *err)
{
    const char *colon = strstr(err->text, ": ");
    return colon ? colon + 2 : err->text;
}
