#include "vmm/symbols.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "boot/image.h"
#include "vmm/checked.h"

#define SECTIONS_MAX 65536u
/* No function is larger; behind the last one nothing else says where it ends. */
#define FUNCTION_MAX (1u << 20)

/* Of several symbols at one address the first of these names it. */
enum rank { RANK_GLOBAL, RANK_LOCAL, RANK_DATA };

struct symbol {
    uint64_t address;
    uint32_t name; /* where in `names` */
    uint32_t rank;
};

struct symbols {
    char *names; /* zero-terminated texts */
    struct symbol *list;
    size_t count, room;
};

static int add(struct symbols *symbols, uint64_t address, size_t name, enum rank rank)
{
    if (symbols->count == symbols->room) {
        size_t room = symbols->room ? symbols->room * 2 : 4096;
        struct symbol *list = realloc(symbols->list, room * sizeof(list[0]));
        if (!list)
            return -ENOMEM;
        symbols->list = list;
        symbols->room = room;
    }
    symbols->list[symbols->count++] =
        (struct symbol){.address = address, .name = (uint32_t)name, .rank = rank};
    return 0;
}

static int fault(const struct image_file *file, int code, const char *what,
                 struct minivmm_error *err)
{
    return error_set(err, code, "symbols %s: %s", file->path, what);
}

static int too_large(const struct image_file *file, struct minivmm_error *err)
{
    return error_set(err, -EFBIG, "symbols %s: has more than %u MiB of them", file->path,
                     SYMBOLS_BYTES_MAX >> 20);
}

/* `size` bytes of the file with a zero behind them; NULL and *rc when that cannot be. */
static char *read_part(const struct image_file *file, uint64_t offset, uint64_t size, int *rc,
                       struct minivmm_error *err)
{
    if (size > SYMBOLS_BYTES_MAX) {
        *rc = too_large(file, err);
        return NULL;
    }
    if (!range_within(offset, size, file->size)) {
        *rc = fault(file, -ENODATA, "truncated: its headers promise more than it has", err);
        return NULL;
    }
    char *part = malloc(size + 1);
    if (!part) {
        *rc = fault(file, -ENOMEM, "out of memory", err);
        return NULL;
    }
    part[size] = '\0';
    *rc = image_read(file, offset, part, size, err);
    if (*rc < 0) {
        free(part);
        return NULL;
    }
    return part;
}

/* ---- text: nm's format, System.map and /proc/kallsyms ---------------------------------------- */

static enum rank rank_of_letter(char letter)
{
    return strchr("TW", letter) ? RANK_GLOBAL : strchr("tw", letter) ? RANK_LOCAL : RANK_DATA;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* A hexadecimal address, a letter and a name; kallsyms adds a module in brackets. */
static bool parse_line(struct symbols *symbols, char *line, int *rc)
{
    uint64_t address = 0;
    unsigned digits = 0;
    char *at = line;

    for (; digits < 16; digits++, at++) {
        unsigned digit = *at >= '0' && *at <= '9'   ? (unsigned)(*at - '0')
                         : *at >= 'a' && *at <= 'f' ? (unsigned)(*at - 'a') + 10
                         : *at >= 'A' && *at <= 'F' ? (unsigned)(*at - 'A') + 10
                                                    : 16;
        if (digit == 16)
            break;
        address = address << 4 | digit;
    }
    if (digits == 0 || at[0] != ' ' || at[1] <= ' ' || at[2] != ' ' || at[3] <= ' ')
        return false;
    char letter = at[1];
    char *name = at + 3;
    char *end = name + strlen(name);
    while (end > name && is_blank(end[-1]))
        end--;
    *end = '\0';
    *rc = add(symbols, address, (size_t)(name - symbols->names), rank_of_letter(letter));
    return true;
}

static int load_text(struct symbols *symbols, const struct image_file *file,
                     struct minivmm_error *err)
{
    int rc = 0;

    symbols->names = read_part(file, 0, file->size, &rc, err);
    if (!symbols->names)
        return rc;
    char *const end = symbols->names + file->size;
    unsigned long number = 0;
    for (char *line = symbols->names; line < end;) {
        char *newline = memchr(line, '\n', (size_t)(end - line));
        char *next = newline ? newline + 1 : end;
        if (newline)
            *newline = '\0';
        number++;
        if (strlen(line) != (size_t)((newline ? newline : end) - line) ||
            !parse_line(symbols, line, &rc))
            return error_set(err, -EINVAL,
                             "symbols %s: line %lu is not an address, a letter and a name; it must "
                             "be a System.map, a copy of /proc/kallsyms or an ELF vmlinux",
                             file->path, number);
        if (rc < 0)
            return fault(file, rc, "out of memory", err);
        line = next;
    }
    return 0;
}

/* ---- ELF ----------------------------------------------------------------------------------- */

struct elf_sections {
    Elf64_Shdr *list;
    uint64_t count;
};

static int read_sections(struct elf_sections *sections, const struct image_file *file,
                         struct minivmm_error *err)
{
    Elf64_Ehdr header;
    Elf64_Shdr first;

    if (file->size < sizeof(header))
        return fault(file, -ENODATA, "truncated within its ELF header", err);
    int rc = image_read(file, 0, &header, sizeof(header), err);
    if (rc < 0)
        return rc;
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
        header.e_machine != EM_X86_64)
        return fault(file, -ENOEXEC, "an ELF file for another processor than x86-64", err);
    sections->count = header.e_shnum;
    if (header.e_shoff && !header.e_shnum) { /* more than fit into that field */
        if (!range_within(header.e_shoff, sizeof(first), file->size))
            return fault(file, -ENODATA, "truncated: it ends before its section headers", err);
        rc = image_read(file, header.e_shoff, &first, sizeof(first), err);
        if (rc < 0)
            return rc;
        sections->count = first.sh_size;
    }
    if (!header.e_shoff || sections->count == 0)
        return fault(file, -ENOENT, "has no symbol table: it is stripped", err);
    if (header.e_shentsize != sizeof(first) || sections->count > SECTIONS_MAX)
        return fault(file, -ENOEXEC, "damaged ELF header: section headers", err);
    sections->list = (Elf64_Shdr *)(void *)read_part(file, header.e_shoff,
                                                     sections->count * sizeof(first), &rc, err);
    return rc;
}

static int take_elf_symbol(struct symbols *symbols, const struct elf_sections *sections,
                           const Elf64_Sym *symbol)
{
    unsigned type = ELF64_ST_TYPE(symbol->st_info);
    if (symbol->st_shndx == SHN_UNDEF || type == STT_SECTION || type == STT_FILE ||
        !symbols->names[symbol->st_name])
        return 0;
    bool text = symbol->st_shndx < sections->count &&
                (sections->list[symbol->st_shndx].sh_flags & SHF_EXECINSTR);
    bool global = ELF64_ST_BIND(symbol->st_info) != STB_LOCAL;
    return add(symbols, symbol->st_value, symbol->st_name,
               !text    ? RANK_DATA
               : global ? RANK_GLOBAL
                        : RANK_LOCAL);
}

static int read_table(struct symbols *symbols, const struct elf_sections *sections,
                      const struct image_file *file, struct minivmm_error *err)
{
    const Elf64_Shdr *table = NULL;
    int rc = 0;

    for (uint64_t i = 0; i < sections->count && !table; i++) {
        if (sections->list[i].sh_type == SHT_SYMTAB)
            table = &sections->list[i];
    }
    if (!table)
        return fault(file, -ENOENT, "has no symbol table: it is stripped", err);
    if (table->sh_entsize != sizeof(Elf64_Sym) || table->sh_size % sizeof(Elf64_Sym) ||
        table->sh_link >= sections->count || sections->list[table->sh_link].sh_type != SHT_STRTAB)
        return fault(file, -ENOEXEC, "damaged symbol table", err);

    const Elf64_Shdr *names = &sections->list[table->sh_link];
    symbols->names = read_part(file, names->sh_offset, names->sh_size, &rc, err);
    if (!symbols->names)
        return rc;
    char *entries = read_part(file, table->sh_offset, table->sh_size, &rc, err);
    if (!entries)
        return rc;
    for (uint64_t at = 0; rc == 0 && at < table->sh_size; at += sizeof(Elf64_Sym)) {
        Elf64_Sym symbol;
        memcpy(&symbol, entries + at, sizeof(symbol));
        if (symbol.st_name > names->sh_size)
            rc = fault(file, -ENOEXEC, "damaged symbol table: a name beyond its string table", err);
        else if (take_elf_symbol(symbols, sections, &symbol) < 0)
            rc = fault(file, -ENOMEM, "out of memory", err);
    }
    free(entries);
    return rc;
}

static int load_elf(struct symbols *symbols, const struct image_file *file,
                    struct minivmm_error *err)
{
    struct elf_sections sections = {0};
    int rc = read_sections(&sections, file, err);
    if (rc == 0)
        rc = read_table(symbols, &sections, file, err);
    free(sections.list);
    return rc;
}

/* ---- both ---------------------------------------------------------------------------------- */

static int compare(const void *left, const void *right)
{
    const struct symbol *a = left, *b = right;
    if (a->address != b->address)
        return a->address < b->address ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank < b->rank ? -1 : 1;
    return (a->name > b->name) - (a->name < b->name);
}

static void sort(struct symbols *symbols)
{
    for (size_t i = 1; i < symbols->count; i++) {
        if (compare(&symbols->list[i - 1], &symbols->list[i]) > 0) {
            qsort(symbols->list, symbols->count, sizeof(symbols->list[0]), compare);
            return;
        }
    }
}

/* A file that can name nothing is not what was meant. */
static int check(const struct symbols *symbols, const struct image_file *file,
                 struct minivmm_error *err)
{
    bool text = false;

    for (size_t i = 0; i < symbols->count; i++) {
        if (symbols->list[i].rank == RANK_DATA)
            continue;
        if (symbols->list[i].address)
            return 0;
        text = true;
    }
    if (text)
        return fault(file, -EINVAL, "all addresses are 0: /proc/kallsyms shows them to root alone",
                     err);
    if (symbols->count > 0 &&
        strstr(symbols->names + symbols->list[0].name, "The real System.map is in"))
        return fault(file, -EINVAL,
                     "has no symbols, it only says where they are: in a -dbg package", err);
    return fault(file, -EINVAL, "has no symbols of functions", err);
}

int symbols_create(const char *path, struct symbols **out, struct minivmm_error *err)
{
    struct image_file file;
    uint8_t magic[SELFMAG] = {0};

    *out = NULL;
    int rc = image_open(&file, "symbols", path, err);
    if (rc < 0)
        return rc;
    struct symbols *symbols = calloc(1, sizeof(*symbols));
    if (!symbols)
        rc = fault(&file, -ENOMEM, "out of memory", err);
    if (rc == 0)
        rc = image_read(&file, 0, magic, file.size < SELFMAG ? file.size : SELFMAG, err);
    if (rc == 0 && memcmp(magic, ELFMAG, SELFMAG) == 0)
        rc = load_elf(symbols, &file, err);
    else if (rc == 0)
        rc = load_text(symbols, &file, err);
    if (rc == 0)
        rc = check(symbols, &file, err);
    image_close(&file);
    if (rc < 0) {
        symbols_destroy(symbols);
        return rc;
    }
    sort(symbols);
    *out = symbols;
    return 0;
}

void symbols_destroy(struct symbols *symbols)
{
    if (!symbols)
        return;
    free(symbols->names);
    free(symbols->list);
    free(symbols);
}

/* How many symbols lie below `address`. */
static size_t below(const struct symbols *symbols, uint64_t address)
{
    size_t low = 0, high = symbols->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (symbols->list[middle].address < address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const char *symbols_find(const struct symbols *symbols, uint64_t address, uint64_t *offset,
                         uint64_t *size)
{
    size_t next = address == UINT64_MAX ? symbols->count : below(symbols, address + 1);
    if (next == 0)
        return NULL;
    /* The best of those at the nearest address. */
    const struct symbol *found = &symbols->list[below(symbols, symbols->list[next - 1].address)];
    *offset = address - found->address;
    *size = next < symbols->count ? symbols->list[next].address - found->address : 0;
    if (found->rank == RANK_DATA || *offset >= FUNCTION_MAX)
        return NULL;
    return symbols->names + found->name;
}

bool symbols_address(const struct symbols *symbols, const char *name, uint64_t *address)
{
    for (size_t i = 0; i < symbols->count; i++) {
        const struct symbol *symbol = &symbols->list[i];
        if (symbol->rank != RANK_DATA && strcmp(symbols->names + symbol->name, name) == 0) {
            *address = symbol->address;
            return true;
        }
    }
    return false;
}
