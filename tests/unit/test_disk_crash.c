/* What a flush has confirmed survives the process that asked for it. */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/disk_rig.h"

SUITE(disk_crash);

#define SECTORS 512u
#define BATCH   8u /* writes between two flushes */
#define ROUNDS  32u

/* A sector that says which write it is of, and whether all of it is of the same. */
struct sector {
    uint64_t number;
    uint64_t words[62];
    uint64_t sum;
};
_Static_assert(sizeof(struct sector) == DISK_SECTOR, "one sector");

static uint64_t sum_of(const struct sector *sector)
{
    uint64_t sum = 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < COUNT(sector->words); i++)
        sum = (sum ^ sector->words[i]) * 0x100000001b3 + sector->number;
    return sum;
}

static void fill(struct sector *sector, uint64_t number)
{
    sector->number = number;
    for (size_t i = 0; i < COUNT(sector->words); i++)
        sector->words[i] = number * 77 + i;
    sector->sum = sum_of(sector);
}

/* Where a write goes: all over the disk, and each place again and again. */
static uint64_t place_of(uint64_t number)
{
    return number * 37 % SECTORS;
}

/* Write for ever, BATCH at a time and then a flush, and report each flush that is done. */
static void write_until_killed(struct disk_rig *rig, uint64_t first, bool direct, int report)
{
    struct sector *sectors;
    struct rig_request requests[BATCH];
    struct iovec pieces[BATCH];
    if (posix_memalign((void **)&sectors, 4096, sizeof(*sectors) * BATCH) != 0)
        _exit(1);
    rig_open(rig, (struct disk_config){.direct = direct});
    for (uint64_t number = first;; number += BATCH) {
        for (unsigned i = 0; i < BATCH; i++) {
            fill(&sectors[i], number + i);
            pieces[i] = (struct iovec){&sectors[i], DISK_SECTOR};
            requests[i].request = (struct disk_request){.op = DISK_WRITE,
                                                        .offset = place_of(number + i) * 512,
                                                        .length = DISK_SECTOR,
                                                        .iov = &pieces[i],
                                                        .iov_count = 1};
            rig_submit(rig, &requests[i]);
        }
        rig_wait(rig, 0);
        for (unsigned i = 0; i < BATCH; i++)
            if (requests[i].result != 0)
                _exit(1);
        uint64_t last = number + BATCH - 1;
        if (rig_do(rig, DISK_FLUSH, 0, NULL, 0) != 0 ||
            write(report, &last, sizeof(last)) != sizeof(last))
            _exit(1);
    }
}

/* Run a writer and kill it after some time; returns the last number that it has reported. */
static uint64_t one_life(struct disk_rig *rig, uint64_t first, bool direct, unsigned ms)
{
    uint64_t last = first - 1, number;
    int ends[2], status;
    cr_assert_eq(pipe(ends), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        close(ends[0]);
        write_until_killed(rig, first, direct, ends[1]);
    }
    close(ends[1]);
    cr_assert(support_wait_readable(ends[0])); /* it has begun */
    usleep(ms * 1000);
    kill(pid, SIGKILL);
    while (read(ends[0], &number, sizeof(number)) == sizeof(number))
        last = number;
    close(ends[0]);
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status), "the writer ended by itself: %d", status);
    return last;
}

/* The last write at each place up to `flushed` is there, or a later one, and none is torn. */
static void expect_image(struct disk_rig *rig, uint64_t flushed)
{
    static uint64_t newest[SECTORS];
    struct sector *sectors = calloc(SECTORS, sizeof(*sectors));
    memset(newest, 0, sizeof(newest));
    for (uint64_t number = 1; number <= flushed; number++)
        newest[place_of(number)] = number;
    rig_open(rig, (struct disk_config){.readonly = true});
    cr_assert_eq(rig_do(rig, DISK_READ, 0, sectors, SECTORS * DISK_SECTOR), 0);
    rig_close(rig);
    for (uint64_t place = 0; place < SECTORS; place++) {
        const struct sector *sector = &sectors[place];
        if (newest[place] == 0)
            continue;
        cr_assert_eq(sector->sum, sum_of(sector), "sector %llu", (unsigned long long)place);
        cr_assert_eq(place_of(sector->number), place);
        cr_assert_geq(sector->number, newest[place], "write %llu of sector %llu is lost",
                      (unsigned long long)newest[place], (unsigned long long)place);
    }
    free(sectors);
}

static void expect_survival(bool direct)
{
    struct disk_rig rig;
    unsigned seed = 1;
    uint64_t next = 1, flushed = 0;
    rig_init(&rig, "/tmp", SECTORS * DISK_SECTOR);
    for (unsigned round = 0; round < ROUNDS / 2; round++) {
        flushed = one_life(&rig, next, direct, (unsigned)rand_r(&seed) % 60);
        cr_assert_geq(flushed, next, "no flush was done");
        expect_image(&rig, flushed);
        next = flushed + 1; /* what was under way is written once more, the same */
    }
    rig_finish(&rig);
}

Test(disk_crash, P5_a_flushed_write_survives_a_kill)
{
    expect_survival(false);
}

Test(disk_crash, P5_a_flushed_write_survives_a_kill_with_direct_io)
{
    expect_survival(true);
}
