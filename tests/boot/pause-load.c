/*
 * What works in the guest of the pause test: usage: load DISK. Blocks go to the disk and come back,
 * two threads at once, and a third looks at the clock all the while. A line of input, or its end,
 * ends it.
 *
 * Prints what is wrong as lines that begin with @bad; at the end @blocks NUMBER, and @largest
 * MICROSECONDS, the largest step of the clock that was seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK   16384
#define WORDS   (BLOCK / sizeof(uint64_t))
#define BLOCKS  1024u /* of each writer's own on the disk */
#define WRITERS 2u

static const char *disk;
static bool stop;
static uint64_t done;

static bool stopped(void)
{
    return __atomic_load_n(&stop, __ATOMIC_ACQUIRE);
}

/* Every word says where it belongs, and which of the writes there it is of. */
static uint64_t word(unsigned writer, unsigned place, uint32_t version, size_t i)
{
    return (uint64_t)version << 32 | (uint64_t)(writer * BLOCKS + place) << 16 | i;
}

static off_t offset(unsigned writer, unsigned place)
{
    return (off_t)(writer * BLOCKS + place) * BLOCK;
}

static void read_back(int fd, unsigned writer, unsigned place, uint32_t version, uint64_t *block)
{
    memset(block, 0xee, BLOCK);
    ssize_t n = pread(fd, block, BLOCK, offset(writer, place));
    if (n != BLOCK)
        printf("@bad read of block %u: %zd, %s\n", place, n, n < 0 ? strerror(errno) : "short");
    for (size_t i = 0; i < WORDS; i++) {
        if (block[i] == word(writer, place, version, i))
            continue;
        printf("@bad block %u of writer %u: word %zu is %llx, version %u\n", place, writer, i,
               (unsigned long long)block[i], version);
        return;
    }
}

static void *write_main(void *arg)
{
    const unsigned writer = (unsigned)(uintptr_t)arg;
    static uint32_t versions[WRITERS][BLOCKS];
    unsigned seed = writer;
    uint64_t *block;

    /* One of them through the guest's page cache. */
    int fd = open(disk, O_RDWR | (writer == 0 ? O_DIRECT : 0));
    if (fd < 0 || posix_memalign((void **)&block, 4096, BLOCK) != 0) {
        printf("@bad %s: %s\n", disk, strerror(errno));
        return NULL;
    }
    while (!stopped()) {
        unsigned place = (unsigned)rand_r(&seed) % BLOCKS;
        uint32_t version = ++versions[writer][place];
        for (size_t i = 0; i < WORDS; i++)
            block[i] = word(writer, place, version, i);
        ssize_t n = pwrite(fd, block, BLOCK, offset(writer, place));
        if (n != BLOCK || (version % 4 == 0 && fdatasync(fd) < 0))
            printf("@bad write of block %u: %zd, %s\n", place, n, strerror(errno));
        if (writer != 0) { /* what is not read from the disk proves nothing */
            if (fdatasync(fd) < 0)
                printf("@bad flush: %s\n", strerror(errno));
            posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
        }
        read_back(fd, writer, place, version, block);
        place = (unsigned)rand_r(&seed) % BLOCKS;
        if (versions[writer][place] > 0)
            read_back(fd, writer, place, versions[writer][place], block);
        __atomic_add_fetch(&done, 1, __ATOMIC_RELAXED);
    }
    close(fd);
    return NULL;
}

static int64_t now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void *clock_main(void *arg)
{
    int64_t last = now_us(), largest = 0;

    (void)arg;
    while (!stopped()) {
        int64_t now = now_us();
        if (now < last)
            printf("@bad clock: it went back by %lld us\n", (long long)(last - now));
        if (now - last > largest)
            largest = now - last;
        last = now;
        usleep(1000); /* the others need the processors, too */
    }
    printf("@largest %lld\n", (long long)largest);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[WRITERS + 1];
    char byte;

    if (argc != 2)
        return 2;
    disk = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (uintptr_t i = 0; i < WRITERS; i++)
        pthread_create(&threads[i], NULL, write_main, (void *)i);
    pthread_create(&threads[WRITERS], NULL, clock_main, NULL);
    while (read(0, &byte, 1) == 1 && byte != '\n')
        continue;
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    for (unsigned i = 0; i <= WRITERS; i++)
        pthread_join(threads[i], NULL);
    printf("@blocks %llu\n", (unsigned long long)done);
    return 0;
}
