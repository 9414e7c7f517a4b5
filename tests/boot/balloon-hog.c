/* A guest's program that takes memory: usage: hog MIB. It touches every page, and says so. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

int main(int argc, char **argv)
{
    size_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 0) << 20;
    volatile char *at = mmap(NULL, size, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (argc != 2 || at == MAP_FAILED)
        return 2;
    for (size_t i = 0; i < size; i += 4096)
        at[i] = 1;
    for (size_t i = 0; i < size; i += 4096) {
        if (at[i] != 1) {
            puts("@hog a page has lost what was in it");
            return 1;
        }
    }
    puts("@hog survived");
    return 0;
}
