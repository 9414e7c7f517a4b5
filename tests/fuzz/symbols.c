/*
 * Fuzzes what --symbols reads: the input is the file. What it names is looked up all over, and what
 * is found must be below the address and within the file.
 */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"
#include "vmm/symbols.h"

static void look_up(const struct symbols *symbols, uint64_t address, size_t longest)
{
    uint64_t offset, length, start;
    const char *name = symbols_find(symbols, address, &offset, &length);

    if (!name)
        return;
    MUST(strlen(name) < longest && name[0]);
    MUST(offset <= address && (length == 0 || offset < length));
    MUST(symbols_address(symbols, name, &start));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int fd = -1;
    static char path[32];
    struct minivmm_error err = {.text = ""};
    struct symbols *symbols;

    if (fd < 0) {
        fd = memfd_create("symbols", 0);
        MUST(fd >= 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    }
    MUST(ftruncate(fd, 0) == 0);
    MUST(pwrite(fd, data, size, 0) == (ssize_t)size);
    if (symbols_create(path, &symbols, &err) < 0) {
        MUST(!symbols && err.text[0] && !strchr(err.text, '\n'));
        return 0;
    }
    for (size_t i = 0; i + 8 <= size; i += 8) {
        uint64_t address;
        memcpy(&address, data + i, 8);
        look_up(symbols, address, size + 1);
    }
    look_up(symbols, 0, size + 1);
    look_up(symbols, 0xffffffff81000000ull, size + 1);
    look_up(symbols, UINT64_MAX, size + 1);
    symbols_destroy(symbols);
    return 0;
}
