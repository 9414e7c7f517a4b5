/* Symbol files as kernels come with, and as nobody should. */
#include "vmm/symbols.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/support.h"

SUITE(symbols);

#define BASE 0xffffffff81000000ull

static struct symbols *open_symbols(const void *data, size_t size, int *rc,
                                    struct minivmm_error *err)
{
    struct symbols *symbols;
    struct support_file file = support_file(data, size);
    *rc = symbols_create(file.path, &symbols, err);
    close(file.fd);
    return symbols;
}

/* "name+offset/size", or "-": static, until the next call. */
static const char *find(const struct symbols *symbols, uint64_t address)
{
    static char text[200];
    uint64_t offset, size;
    const char *name = symbols_find(symbols, address, &offset, &size);
    if (!name)
        return "-";
    snprintf(text, sizeof(text), "%s+%llu/%llu", name, (unsigned long long)offset,
             (unsigned long long)size);
    return text;
}

struct lookup {
    uint64_t address;
    const char *found;
};

static void expect_lookups(const char *row, const struct symbols *symbols,
                           const struct lookup *lookups)
{
    for (size_t i = 0; lookups[i].found; i++) {
        const char *found = find(symbols, lookups[i].address);
        cr_expect_str_eq(found, lookups[i].found, "%s: 0x%llx is %s", row,
                         (unsigned long long)lookups[i].address, found);
    }
}

/* The error without "symbols PATH: ". */
static const char *reason(const struct minivmm_error *err)
{
    const char *colon = strstr(err->text, ": ");
    cr_assert_eq(strncmp(err->text, "symbols /proc/self/fd/", 22), 0, "%s", err->text);
    cr_assert(support_one_line(err, ": "), "%s", err->text);
    return colon + 2;
}

/* ---- text ---------------------------------------------------------------------------------- */

Test(symbols, an_address_is_in_the_nearest_function_below_it)
{
    static const struct {
        const char *name, *text;
        struct lookup lookups[8];
    } rows[] = {
        {"System.map",
         "0000000000000000 D __per_cpu_start\n"
         "ffffffff81000000 T _text\n"
         "ffffffff81000010 t local\n"
         "ffffffff81000020 W weak\n"
         "ffffffff81000030 T _etext\n"
         "ffffffff81000031 R data\n"
         "ffffffff81000050 t init\n",
         {{BASE, "_text+0/16"},
          {BASE + 0xf, "_text+15/16"},
          {BASE + 0x10, "local+0/16"},
          {BASE + 0x2f, "weak+15/16"},
          {BASE + 0x31, "-"},
          {BASE + 0x55, "init+5/0"},
          {BASE - 1, "-"}}},
        {"in no order",
         "ffffffff81000010 t second\nffffffff81000000 t first\nffffffff81000020 d data\n",
         {{BASE + 0x11, "second+1/16"}, {BASE + 1, "first+1/16"}, {BASE + 0x20, "-"}}},
        {"kallsyms with a module, without a newline at its end",
         "ffffffff81000000 t kernel\nffffffffc0000000 t probe\t[virtio_blk]",
         {{0xffffffffc0000004, "probe\t[virtio_blk]+4/0"}, {BASE + 1, "kernel+1/1056964608"}}},
        {"several at one address: a global function before a local one before data",
         "ffffffff81000000 D data\nffffffff81000000 t local\nffffffff81000000 T global\n"
         "ffffffff81000000 T later\n",
         {{BASE, "global+0/0"}, {BASE + 9, "global+9/0"}}},
        {"capital digits, carriage returns, short addresses",
         "FFFFFFFF81000000 T _text\r\n1000 T low\r\n",
         {{BASE, "_text+0/0"}, {0x1000, "low+0/18446744071578841088"}}},
        {"behind the last one nothing says where it ends",
         "ffffffff81000000 T last\n",
         {{BASE + 0xfffff, "last+1048575/0"}, {BASE + 0x100000, "-"}, {UINT64_MAX, "-"}}},
        {"up to the last address",
         "ffffffffffffffff t end\n",
         {{UINT64_MAX, "end+0/0"}, {UINT64_MAX - 1, "-"}, {0, "-"}}},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct minivmm_error err = {.text = ""};
        int rc;
        struct symbols *symbols = open_symbols(rows[i].text, strlen(rows[i].text), &rc, &err);
        cr_assert_eq(rc, 0, "%s: %s", rows[i].name, err.text);
        expect_lookups(rows[i].name, symbols, rows[i].lookups);
        symbols_destroy(symbols);
    }
}

Test(symbols, a_function_is_found_by_its_name)
{
    static const char text[] = "0000000000001000 D entry_SYSCALL_64\n"
                               "ffffffff81000000 t _text\n"
                               "ffffffff81000000 T entry_SYSCALL_64\n";
    struct minivmm_error err;
    uint64_t address = 0;
    int rc;
    struct symbols *symbols = open_symbols(text, sizeof(text) - 1, &rc, &err);
    cr_assert_eq(rc, 0);
    cr_expect(symbols_address(symbols, "entry_SYSCALL_64", &address));
    cr_expect_eq(address, BASE);
    cr_expect_not(symbols_address(symbols, "entry_SYSCALL", &address));
    symbols_destroy(symbols);
}

#define WRONG_LINE(number)                                                                         \
    "line " number " is not an address, a letter and a name; it must be a System.map, a copy of "  \
    "/proc/kallsyms or an ELF vmlinux"

Test(symbols, every_fault_of_a_text_has_its_line)
{
    static const struct {
        const char *name, *text;
        size_t size; /* 0: of the text */
        const char *reason;
    } rows[] = {
        {"no address", "hello world\n", 0, WRONG_LINE("1")},
        {"nothing behind the address", "ffffffff81000000\n", 0, WRONG_LINE("1")},
        {"no name", "ffffffff81000000 T _text\nffffffff81000000 T \n", 0, WRONG_LINE("2")},
        {"a letter that is two", "ffffffff81000000 TT _text\n", 0, WRONG_LINE("1")},
        {"17 digits", "1ffffffff81000000 T _text\n", 0, WRONG_LINE("1")},
        {"an empty line", "ffffffff81000000 T _text\n\n", 0, WRONG_LINE("2")},
        {"a zero in a line", "ffffffff81000000 T _te\0xt\n", 26, WRONG_LINE("1")},
        {"a zero behind the last one", "ffffffff81000000 T _text\n\0", 26, WRONG_LINE("2")},
        {"cut off in the last line", "ffffffff81000000 T _text\nffff", 0, WRONG_LINE("2")},
        {"Debian's stub",
         "ffffffffffffffff B The real System.map is in the linux-image-<version>-dbg package\n", 0,
         "has no symbols, it only says where they are: in a -dbg package"},
        {"data alone", "ffffffff81000000 D data\n", 0, "has no symbols of functions"},
        {"kallsyms for anybody", "0000000000000000 T _text\n0000000000000000 t b\n", 0,
         "all addresses are 0: /proc/kallsyms shows them to root alone"},
        {"an empty file", "", 0, "is empty"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct minivmm_error err = {.text = ""};
        int rc;
        size_t size = rows[i].size ? rows[i].size : strlen(rows[i].text);
        cr_expect_null(open_symbols(rows[i].text, size, &rc, &err), "%s", rows[i].name);
        cr_expect_lt(rc, 0, "%s", rows[i].name);
        cr_expect_str_eq(reason(&err), rows[i].reason, "%s: %s", rows[i].name, err.text);
    }
}

Test(symbols, a_file_that_cannot_be_opened_is_named)
{
    struct symbols *symbols;
    struct minivmm_error err;
    cr_expect_eq(symbols_create("/nonexistent/System.map", &symbols, &err), -ENOENT);
    cr_expect_str_eq(err.text, "symbols /nonexistent/System.map: No such file or directory");
    cr_expect_eq(symbols_create("/", &symbols, &err), -EINVAL);
    cr_expect_str_eq(err.text, "symbols /: is a directory");
    symbols_destroy(NULL);
}

/* ---- ELF ----------------------------------------------------------------------------------- */

static const char names[] = "\0_text\0local\0data\0absolute\0section\0extern";
enum { NAME_TEXT = 1, NAME_LOCAL = 7, NAME_DATA = 13, NAME_ABSOLUTE = 18, NAME_SECTION = 27 };

enum { SECTION_NULL, SECTION_TEXT, SECTION_DATA, SECTION_SYMBOLS, SECTION_NAMES, SECTIONS };
#define SYMBOLS 7

/* A vmlinux without code. */
struct vmlinux {
    Elf64_Ehdr header;
    Elf64_Shdr sections[SECTIONS];
    Elf64_Sym symbols[SYMBOLS];
    char names[sizeof(names)];
};

#define SYMBOL(n, binding, type, section, value)                                                   \
    {                                                                                              \
        .st_name = (n), .st_info = ELF64_ST_INFO(binding, type), .st_shndx = (section),            \
        .st_value = (value)                                                                        \
    }

static const struct vmlinux good = {
    .header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
               .e_type = ET_EXEC,
               .e_machine = EM_X86_64,
               .e_version = EV_CURRENT,
               .e_shoff = offsetof(struct vmlinux, sections),
               .e_ehsize = sizeof(Elf64_Ehdr),
               .e_shentsize = sizeof(Elf64_Shdr),
               .e_shnum = SECTIONS},
    .sections =
        {
            [SECTION_TEXT] = {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_EXECINSTR},
            [SECTION_DATA] = {.sh_type = SHT_PROGBITS, .sh_flags = SHF_ALLOC | SHF_WRITE},
            [SECTION_SYMBOLS] = {.sh_type = SHT_SYMTAB,
                                 .sh_offset = offsetof(struct vmlinux, symbols),
                                 .sh_size = SYMBOLS * sizeof(Elf64_Sym),
                                 .sh_entsize = sizeof(Elf64_Sym),
                                 .sh_link = SECTION_NAMES},
            [SECTION_NAMES] = {.sh_type = SHT_STRTAB,
                               .sh_offset = offsetof(struct vmlinux, names),
                               .sh_size = sizeof(names)},
        },
    .symbols =
        {
            SYMBOL(0, STB_LOCAL, STT_NOTYPE, SHN_UNDEF, 0),
            SYMBOL(NAME_SECTION, STB_LOCAL, STT_SECTION, SECTION_TEXT, BASE + 8),
            SYMBOL(NAME_LOCAL, STB_LOCAL, STT_NOTYPE, SECTION_TEXT, BASE + 0x10),
            SYMBOL(NAME_TEXT, STB_GLOBAL, STT_FUNC, SECTION_TEXT, BASE),
            SYMBOL(NAME_DATA, STB_GLOBAL, STT_OBJECT, SECTION_DATA, BASE + 0x20),
            SYMBOL(NAME_ABSOLUTE, STB_GLOBAL, STT_NOTYPE, SHN_ABS, BASE + 0x30),
            SYMBOL(NAME_TEXT, STB_GLOBAL, STT_FUNC, SHN_UNDEF, BASE + 0x18),
        },
};

Test(symbols, a_vmlinux_names_what_lies_in_executable_sections)
{
    static const struct lookup lookups[] = {{BASE, "_text+0/16"},
                                            {BASE + 9, "_text+9/16"},
                                            {BASE + 0x10, "local+0/16"},
                                            {BASE + 0x1f, "local+15/16"},
                                            {BASE + 0x20, "-"},
                                            {BASE + 0x30, "-"},
                                            {0, NULL}};
    struct vmlinux file = good;
    struct minivmm_error err = {.text = ""};
    int rc;

    memcpy(file.names, names, sizeof(names));
    for (int extended = 0; extended < 2; extended++) {
        if (extended) { /* the number of sections in the first one's size */
            file.header.e_shnum = 0;
            file.sections[0].sh_size = SECTIONS;
        }
        struct symbols *symbols = open_symbols(&file, sizeof(file), &rc, &err);
        cr_assert_eq(rc, 0, "%s", err.text);
        expect_lookups("vmlinux", symbols, lookups);
        symbols_destroy(symbols);
    }
}

#define AT(member)          (offsetof(struct vmlinux, member))
#define SECTION(n, field)   (AT(sections[n]) + offsetof(Elf64_Shdr, field))
#define IN_SYMBOL(n, field) (AT(symbols[n]) + offsetof(Elf64_Sym, field))
#define STRIPPED            "has no symbol table: it is stripped"
#define TRUNCATED           "truncated: its headers promise more than it has"
#define DAMAGED             "damaged symbol table"
#define HEADERS             "damaged ELF header: section headers"
#define FOREIGN             "an ELF file for another processor than x86-64"
#define TOO_LARGE           "has more than 256 MiB of them"

Test(symbols, every_fault_of_a_vmlinux_has_its_line)
{
    static const struct {
        const char *name;
        struct {
            size_t at, width;
            uint64_t value;
        } patches[2];
        size_t size; /* of the file; 0: whole */
        const char *reason;
    } rows[] = {
        {"32 bits", {{EI_CLASS, 1, ELFCLASS32}}, 0, FOREIGN},
        {"big-endian", {{EI_DATA, 1, ELFDATA2MSB}}, 0, FOREIGN},
        {"arm64", {{AT(header.e_machine), 2, EM_AARCH64}}, 0, FOREIGN},
        {"cut off in its header", {{0}}, 63, "truncated within its ELF header"},
        {"the magic alone", {{0}}, 4, "truncated within its ELF header"},
        {"no sections", {{AT(header.e_shoff), 8, 0}}, 0, STRIPPED},
        {"no number of sections, and none in the first", {{AT(header.e_shnum), 2, 0}}, 0, STRIPPED},
        {"a number of sections in one beyond the end",
         {{AT(header.e_shnum), 2, 0}, {AT(header.e_shoff), 8, sizeof(struct vmlinux) - 63}},
         0,
         "truncated: it ends before its section headers"},
        {"and at the last address",
         {{AT(header.e_shnum), 2, 0}, {AT(header.e_shoff), 8, UINT64_MAX}},
         0,
         "truncated: it ends before its section headers"},
        {"a huge number of sections",
         {{AT(header.e_shnum), 2, 0}, {SECTION(0, sh_size), 8, 65537}},
         0,
         HEADERS},
        {"and one that wraps",
         {{AT(header.e_shnum), 2, 0}, {SECTION(0, sh_size), 8, 1ull << 58}},
         0,
         HEADERS},
        {"more sections than the file has", {{AT(header.e_shnum), 2, 65535}}, 0, TRUNCATED},
        {"sections of another size", {{AT(header.e_shentsize), 2, 63}}, 0, HEADERS},
        {"sections beyond the end",
         {{AT(header.e_shoff), 8, sizeof(struct vmlinux)}},
         0,
         TRUNCATED},
        {"sections that wrap", {{AT(header.e_shoff), 8, UINT64_MAX - 64}}, 0, TRUNCATED},
        {"cut off in its section headers", {{0}}, AT(sections[SECTION_NAMES]), TRUNCATED},
        {"no symbol table", {{SECTION(SECTION_SYMBOLS, sh_type), 4, SHT_NOBITS}}, 0, STRIPPED},
        {"symbols of another size", {{SECTION(SECTION_SYMBOLS, sh_entsize), 8, 0}}, 0, DAMAGED},
        {"part of a symbol", {{SECTION(SECTION_SYMBOLS, sh_size), 8, 25}}, 0, DAMAGED},
        {"no such string table", {{SECTION(SECTION_SYMBOLS, sh_link), 4, SECTIONS}}, 0, DAMAGED},
        {"a string table that is none",
         {{SECTION(SECTION_SYMBOLS, sh_link), 4, SECTION_TEXT}},
         0,
         DAMAGED},
        {"symbols beyond the end",
         {{SECTION(SECTION_SYMBOLS, sh_offset), 8, sizeof(struct vmlinux)}},
         0,
         TRUNCATED},
        {"symbols that wrap",
         {{SECTION(SECTION_SYMBOLS, sh_offset), 8, UINT64_MAX - 23}},
         0,
         TRUNCATED},
        {"too many symbols", {{SECTION(SECTION_SYMBOLS, sh_size), 8, 24ull << 30}}, 0, TOO_LARGE},
        {"strings beyond the end",
         {{SECTION(SECTION_NAMES, sh_offset), 8, sizeof(struct vmlinux) - 2}},
         0,
         TRUNCATED},
        {"too many strings", {{SECTION(SECTION_NAMES, sh_size), 8, UINT64_MAX}}, 0, TOO_LARGE},
        {"a name beyond the strings",
         {{IN_SYMBOL(3, st_name), 4, sizeof(names) + 1}},
         0,
         "damaged symbol table: a name beyond its string table"},
        {"a name far beyond the strings",
         {{IN_SYMBOL(3, st_name), 4, UINT32_MAX}},
         0,
         "damaged symbol table: a name beyond its string table"},
        {"no symbols",
         {{SECTION(SECTION_SYMBOLS, sh_size), 8, 0}},
         0,
         "has no symbols of functions"},
        {"no executable section",
         {{SECTION(SECTION_TEXT, sh_flags), 8, 0}},
         0,
         "has no symbols of functions"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct vmlinux file = good;
        struct minivmm_error err = {.text = ""};
        int rc;
        memcpy(file.names, names, sizeof(names));
        for (size_t n = 0; n < 2; n++)
            memcpy((char *)&file + rows[i].patches[n].at, &rows[i].patches[n].value,
                   rows[i].patches[n].width);
        size_t size = rows[i].size ? rows[i].size : sizeof(file);
        cr_expect_null(open_symbols(&file, size, &rc, &err), "%s", rows[i].name);
        cr_expect_lt(rc, 0, "%s", rows[i].name);
        cr_expect_str_eq(reason(&err), rows[i].reason, "%s: %s", rows[i].name, err.text);
    }
}

/* A name may be the last byte of the strings, and need not end. */
Test(symbols, a_name_ends_with_its_string_table)
{
    struct vmlinux file = good;
    struct minivmm_error err = {.text = ""};
    int rc;
    memcpy(file.names, names, sizeof(names));
    file.names[sizeof(names) - 1] = 'x';
    file.symbols[3].st_name = sizeof(names) - 1;
    file.symbols[2].st_name = sizeof(names); /* the zero behind it: no name */
    struct symbols *symbols = open_symbols(&file, sizeof(file), &rc, &err);
    cr_assert_eq(rc, 0, "%s", err.text);
    cr_expect_str_eq(find(symbols, BASE), "x+0/32");
    symbols_destroy(symbols);
}
