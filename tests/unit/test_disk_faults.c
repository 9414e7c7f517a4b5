/* What the host's calls may answer, and what a request must come to. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/disk_faults.h"
#include "tests/unit/disk_rig.h"
#include "vmm/clock.h"

SUITE(disk_faults);

#define SIZE   (64u * 1024)
#define OFFSET 8192u
#define LENGTH 8192u

#define FAIL(id, after, count, code)                                                               \
    {                                                                                              \
        .call = CALL_##id, .skip = after, .times = count, .error = code                            \
    }
#define PART(id, after, count, most)                                                               \
    {                                                                                              \
        .call = CALL_##id, .skip = after, .times = count, .limit = most                            \
    }

enum mode { BUFFERED, MEMORY, DIRECT, EPHEMERAL };

#define DURABLE 1u
#define LATCHED 2u /* the disk only reads from then on */

/* clang-format off */
static const struct row {
    const char *name;
    enum mode mode;
    enum disk_op op;
    int result;
    unsigned flags;
    struct fault faults[3];
} rows[] = {
    {"read", BUFFERED, DISK_READ, -EIO, 0, {FAIL(PREADV2, 0, 1, EIO)}},
    {"read, cold", BUFFERED, DISK_READ, 0, 0, {FAIL(PREADV2, 0, 1, EAGAIN)}},
    {"read, interrupted", BUFFERED, DISK_READ, 0, 0, {FAIL(PREADV2, 0, 1, EINTR)}},
    {"read, no NOWAIT", BUFFERED, DISK_READ, 0, 0, {FAIL(PREADV2, 0, 9, EOPNOTSUPP)}},
    {"read, no preadv2", BUFFERED, DISK_READ, 0, 0, {FAIL(PREADV2, 0, 9, ENOSYS)}},
    {"read, part", BUFFERED, DISK_READ, 0, 0, {PART(PREADV2, 0, 1, 100)}},
    {"read, cold, fails", BUFFERED, DISK_READ, -EIO, 0,
     {FAIL(PREADV2, 0, 1, EAGAIN), FAIL(PREADV, 0, 1, EIO)}},
    {"read, part, rest fails", BUFFERED, DISK_READ, -EIO, 0,
     {PART(PREADV2, 0, 1, 4096), FAIL(PREADV, 0, 1, EIO)}},
    {"read, worker interrupted", BUFFERED, DISK_READ, 0, 0,
     {FAIL(PREADV2, 0, 1, EAGAIN), FAIL(PREADV, 0, 3, EINTR)}},
    {"read, worker not ready", BUFFERED, DISK_READ, 0, 0,
     {FAIL(PREADV2, 0, 1, EAGAIN), FAIL(PREADV, 0, 3, EAGAIN)}},
    {"read, worker in parts", BUFFERED, DISK_READ, 0, 0,
     {FAIL(PREADV2, 0, 1, EAGAIN), PART(PREADV, 0, 99, 333)}},
    {"write", BUFFERED, DISK_WRITE, -EIO, 0, {FAIL(PWRITEV2, 0, 1, EIO)}},
    {"write, full", BUFFERED, DISK_WRITE, -ENOSPC, 0, {FAIL(PWRITEV2, 0, 1, ENOSPC)}},
    {"write, worker", BUFFERED, DISK_WRITE, -EIO, 0,
     {FAIL(PWRITEV2, 0, 1, EAGAIN), FAIL(PWRITEV, 0, 1, EIO)}},
    {"write, worker, full", BUFFERED, DISK_WRITE, -ENOSPC, 0,
     {FAIL(PWRITEV2, 0, 1, EAGAIN), FAIL(PWRITEV, 0, 1, ENOSPC)}},
    {"write, part, then full", BUFFERED, DISK_WRITE, -ENOSPC, 0,
     {FAIL(PWRITEV2, 0, 1, EAGAIN), PART(PWRITEV, 0, 1, 700), FAIL(PWRITEV, 0, 1, ENOSPC)}},
    {"write, in parts", BUFFERED, DISK_WRITE, 0, 0,
     {PART(PWRITEV2, 0, 1, 700), PART(PWRITEV, 0, 99, 777)}},
    {"write, interrupted", BUFFERED, DISK_WRITE, 0, 0,
     {FAIL(PWRITEV2, 0, 1, EINTR), FAIL(PWRITEV, 0, 3, EINTR)}},
    {"write, no NOWAIT", BUFFERED, DISK_WRITE, 0, 0, {FAIL(PWRITEV2, 0, 9, EOPNOTSUPP)}},
    {"write in memory, full", MEMORY, DISK_WRITE, -ENOSPC, 0,
     {FAIL(PWRITEV2, 0, 9, EOPNOTSUPP), FAIL(PWRITEV, 0, 1, ENOSPC)}},
    {"write in memory", MEMORY, DISK_WRITE, 0, 0, {FAIL(PWRITEV2, 0, 9, EOPNOTSUPP)}},
    {"flush", BUFFERED, DISK_FLUSH, -EIO, LATCHED, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"flush, full", BUFFERED, DISK_FLUSH, -ENOSPC, LATCHED, {FAIL(FDATASYNC, 0, 1, ENOSPC)}},
    {"flush, interrupted", BUFFERED, DISK_FLUSH, 0, 0, {FAIL(FDATASYNC, 0, 3, EINTR)}},
    {"flush, direct", DIRECT, DISK_FLUSH, -EIO, LATCHED, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"flush, ephemeral", EPHEMERAL, DISK_FLUSH, 0, 0, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"durable write", BUFFERED, DISK_WRITE, -EIO, DURABLE | LATCHED, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"durable write, full", BUFFERED, DISK_WRITE, -ENOSPC, DURABLE, {FAIL(PWRITEV, 0, 1, ENOSPC)}},
    {"durable discard", BUFFERED, DISK_DISCARD, -EIO, DURABLE | LATCHED, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"durable zero", BUFFERED, DISK_ZERO, -EIO, DURABLE | LATCHED, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"durable zero, direct", DIRECT, DISK_ZERO, -EIO, DURABLE | LATCHED, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"durable write, ephemeral", EPHEMERAL, DISK_WRITE, 0, DURABLE, {FAIL(FDATASYNC, 0, 1, EIO)}},
    {"discard", BUFFERED, DISK_DISCARD, -EIO, 0, {FAIL(FALLOCATE, 0, 1, EIO)}},
    {"discard, none", BUFFERED, DISK_DISCARD, 0, 0, {FAIL(FALLOCATE, 0, 9, EOPNOTSUPP)}},
    {"discard, interrupted", BUFFERED, DISK_DISCARD, 0, 0, {FAIL(FALLOCATE, 0, 3, EINTR)}},
    {"zero", BUFFERED, DISK_ZERO, -EIO, 0, {FAIL(FALLOCATE, 0, 1, EIO)}},
    {"zero, full", BUFFERED, DISK_ZERO, -ENOSPC, 0, {FAIL(FALLOCATE, 0, 1, ENOSPC)}},
    {"zero, none", BUFFERED, DISK_ZERO, 0, 0, {FAIL(FALLOCATE, 0, 9, EOPNOTSUPP)}},
    {"zero, odd range", BUFFERED, DISK_ZERO, 0, 0, {FAIL(FALLOCATE, 0, 9, EINVAL)}},
    {"zero, none, full", BUFFERED, DISK_ZERO, -ENOSPC, 0,
     {FAIL(FALLOCATE, 0, 9, EOPNOTSUPP), FAIL(PWRITEV, 0, 1, ENOSPC)}},
    {"zero, none, in parts", BUFFERED, DISK_ZERO, 0, 0,
     {FAIL(FALLOCATE, 0, 9, EOPNOTSUPP), PART(PWRITEV, 0, 99, 1000)}},
    {"unmap, no holes", BUFFERED, DISK_ZERO_UNMAP, 0, 0, {FAIL(FALLOCATE, 0, 1, EOPNOTSUPP)}},
    {"unmap, none", BUFFERED, DISK_ZERO_UNMAP, 0, 0, {FAIL(FALLOCATE, 0, 9, EOPNOTSUPP)}},
    {"unmap, none, direct", DIRECT, DISK_ZERO_UNMAP, 0, 0, {FAIL(FALLOCATE, 0, 9, EOPNOTSUPP)}},
    {"aio, no room", DIRECT, DISK_WRITE, 0, 0, {FAIL(IO_SUBMIT, 0, 1, EAGAIN)}},
    {"aio, interrupted", DIRECT, DISK_WRITE, 0, 0, {FAIL(IO_SUBMIT, 0, 3, EINTR)}},
    {"aio, refused", DIRECT, DISK_READ, 0, 0, {FAIL(IO_SUBMIT, 0, 9, EIO)}},
    {"aio, fails", DIRECT, DISK_READ, -EIO, 0, {FAIL(IO_SUBMIT, 0, 9, EIO), FAIL(PREADV, 0, 1, EIO)}},
    {"aio, full", DIRECT, DISK_WRITE, -ENOSPC, 0,
     {FAIL(IO_SUBMIT, 0, 9, ENOSPC), FAIL(PWRITEV, 0, 1, ENOSPC)}},
    {"aio, none", DIRECT, DISK_WRITE, 0, 0, {FAIL(IO_SETUP, 0, 1, EAGAIN)}},
    {"aio, none, durable", DIRECT, DISK_WRITE, -EIO, DURABLE | LATCHED,
     {FAIL(IO_SETUP, 0, 1, EAGAIN), FAIL(FDATASYNC, 0, 1, EIO)}},
    {"ephemeral write", EPHEMERAL, DISK_WRITE, -EIO, 0, {FAIL(PWRITEV, 0, 1, EIO)}},
    {"ephemeral write, full", EPHEMERAL, DISK_WRITE, -ENOSPC, 0, {FAIL(PWRITEV, 0, 1, ENOSPC)}},
    {"ephemeral zero, full", EPHEMERAL, DISK_ZERO, -ENOSPC, 0, {FAIL(FALLOCATE, 0, 1, ENOSPC)}},
    {"ephemeral zero, none", EPHEMERAL, DISK_ZERO, 0, 0, {FAIL(FALLOCATE, 0, 9, EOPNOTSUPP)}},
    {"ephemeral read, cold, fails", EPHEMERAL, DISK_READ, -EIO, 0,
     {FAIL(PREADV2, 0, 1, EAGAIN), FAIL(PREADV, 0, 1, EIO)}},
};
/* clang-format on */

static uint8_t *buffer(uint8_t fill)
{
    void *data = NULL;
    cr_assert_eq(posix_memalign(&data, 4096, LENGTH), 0);
    memset(data, fill, LENGTH);
    return data;
}

/* What the range must hold once `op` has gone well, or has not been done at all. */
static void expect_contents(struct disk_rig *rig, const struct row *row, bool was_done)
{
    uint8_t *data = buffer(0x11);
    cr_assert_eq(rig_do(rig, DISK_READ, OFFSET, data, LENGTH), 0, "%s", row->name);
    for (unsigned i = 0; i < LENGTH; i++) {
        uint8_t expected = rig_pattern(OFFSET + i);
        if (was_done && row->op == DISK_WRITE)
            expected = 0xee;
        if (was_done && (row->op == DISK_ZERO || row->op == DISK_ZERO_UNMAP))
            expected = 0;
        cr_assert_eq(data[i], expected, "%s: byte %u: %u", row->name, i, data[i]);
    }
    free(data);
}

static void expect_latched(struct disk_rig *rig, const struct row *row)
{
    uint8_t *data = buffer(0x77);
    const struct {
        enum disk_op op;
        int result;
    } after[] = {{DISK_WRITE, -EIO}, {DISK_FLUSH, -EIO},      {DISK_DISCARD, -EIO},
                 {DISK_ZERO, -EIO},  {DISK_ZERO_UNMAP, -EIO}, {DISK_READ, 0}};
    cr_assert_eq(disk_failure(rig->disk), row->result, "%s", row->name);
    faults_set(NULL, 0);
    for (size_t i = 0; i < COUNT(after); i++)
        cr_assert_eq(rig_do(rig, after[i].op, 0, data, LENGTH), after[i].result, "%s: op %d",
                     row->name, after[i].op);
    cr_assert_eq(faults_calls(CALL_PWRITEV) + faults_calls(CALL_PWRITEV2) +
                     faults_calls(CALL_FDATASYNC) + faults_calls(CALL_FALLOCATE),
                 0, "%s", row->name);
    free(data);
}

static void expect_row(struct disk_rig *rig, const struct row *row)
{
    uint8_t *data = buffer(row->op == DISK_WRITE ? 0xee : 0x11);
    const struct disk_config config = {.direct = row->mode == DIRECT,
                                       .ephemeral = row->mode == EPHEMERAL};
    rig_open(rig, config);
    struct iovec piece = {data, LENGTH};
    struct rig_request request = {.request = {.op = row->op,
                                              .durable = row->flags & DURABLE,
                                              .offset = OFFSET,
                                              .length = LENGTH,
                                              .iov = &piece,
                                              .iov_count = 1}};
    faults_set(row->faults, COUNT(row->faults));
    rig_submit(rig, &request);
    rig_wait(rig, 0);
    cr_assert_eq(request.ended, 1, "%s", row->name);
    cr_assert_eq(request.result, row->result, "%s: %d, not %d", row->name, request.result,
                 row->result);
    if (row->flags & LATCHED) {
        expect_latched(rig, row);
    } else {
        faults_set(NULL, 0);
        cr_assert_eq(disk_failure(rig->disk), 0, "%s", row->name);
        /* What failed on its way may have been done in part, but not in an overlay. */
        if (row->result == 0 ? row->op != DISK_DISCARD
                             : row->op == DISK_READ || row->mode == EPHEMERAL)
            expect_contents(rig, row, row->result == 0);
        cr_assert_eq(rig_do(rig, DISK_WRITE, OFFSET, data, LENGTH), 0, "%s", row->name);
        cr_assert_eq(rig_do(rig, DISK_FLUSH, 0, NULL, 0), 0, "%s", row->name);
    }
    rig_close(rig);
    free(data);
}

Test(disk_faults, each_has_its_outcome)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct disk_rig rig;
        rig_init(&rig, rows[i].mode == MEMORY ? "/dev/shm" : "/tmp", SIZE);
        expect_row(&rig, &rows[i]);
        rig_finish(&rig);
    }
}

/* As many as no kernel ring here takes at once, and each submission takes few or none. */
Test(disk_faults, C12_every_request_that_io_submit_leaves_ends_once)
{
    static struct rig_request requests[500];
    static struct iovec pieces[COUNT(requests)];
    static const struct fault faults[] = {PART(IO_SUBMIT, 0, FAULT_ALWAYS, 5)};
    static const struct fault stingy[] = {FAIL(IO_SUBMIT, 3, 1, EAGAIN),
                                          FAIL(IO_SUBMIT, 5, 2, EAGAIN),
                                          PART(IO_SUBMIT, 0, FAULT_ALWAYS, 5)};
    struct disk_rig rig;
    uint8_t *data = aligned_alloc(4096, COUNT(requests) * 512 / 4096 * 4096 + 4096);
    rig_init(&rig, "/tmp", COUNT(requests) * 512);
    for (unsigned round = 0; round < 2; round++) {
        rig_open(&rig, (struct disk_config){.direct = true});
        memset(data, 0, COUNT(requests) * 512);
        faults_set(round ? stingy : faults, round ? COUNT(stingy) : COUNT(faults));
        for (unsigned i = 0; i < COUNT(requests); i++) {
            pieces[i] = (struct iovec){data + i * 512, 512};
            requests[i].request = (struct disk_request){
                .offset = i * 512, .length = 512, .iov = &pieces[i], .iov_count = 1};
            rig_submit(&rig, &requests[i]);
        }
        rig_wait(&rig, 0);
        for (unsigned i = 0; i < COUNT(requests); i++) {
            cr_assert_eq(requests[i].ended, 1);
            cr_assert_eq(requests[i].result, 0);
        }
        for (unsigned i = 0; i < COUNT(requests) * 512; i++)
            cr_assert_eq(data[i], rig_pattern(i));
        faults_set(NULL, 0);
        rig_close(&rig);
    }
    free(data);
    rig_finish(&rig);
}

/* The page cache hides what is lost from every test but one that pulls the plug. */
Test(disk_faults, P5_a_durable_write_is_handed_on_as_one)
{
    struct disk_rig rig;
    uint8_t *data = buffer(0xee);
    struct iovec piece = {data, LENGTH};
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){.direct = true});
    for (unsigned is_durable = 0; is_durable < 2; is_durable++) {
        struct rig_request request = {.request = {.op = DISK_WRITE,
                                                  .durable = is_durable,
                                                  .offset = OFFSET,
                                                  .length = LENGTH,
                                                  .iov = &piece,
                                                  .iov_count = 1}};
        faults_set(NULL, 0);
        rig_submit(&rig, &request);
        rig_wait(&rig, 0);
        cr_expect_eq(request.result, 0);
        cr_expect_eq(faults_calls(CALL_IO_SUBMIT), 1);
        cr_expect_eq(faults_durable() + faults_calls(CALL_FDATASYNC), is_durable);
    }
    rig_close(&rig);
    rig_finish(&rig);
    free(data);
}

Test(disk_faults, C15_a_slow_flush_delays_no_read)
{
    static const struct fault slow = {CALL_FDATASYNC, .times = 1, .held = true};
    static const struct fault slow_and_cold[] = {{CALL_FDATASYNC, .times = 1, .held = true},
                                                 FAIL(PREADV2, 0, 1, EAGAIN)};
    struct disk_rig rig;
    uint8_t *data = buffer(0);
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    for (unsigned cold = 0; cold < 2; cold++) {
        struct iovec piece = {data, LENGTH};
        struct rig_request flush = {.request = {.op = DISK_FLUSH}};
        struct rig_request read = {.request = {.length = LENGTH, .iov = &piece, .iov_count = 1}};
        faults_set(cold ? slow_and_cold : &slow, cold ? 2 : 1);
        rig_submit(&rig, &flush);
        rig_submit(&rig, &read);
        rig_wait(&rig, 1);
        cr_assert_eq(read.ended, 1, "the flush came first");
        cr_assert_eq(flush.ended, 0);
        faults_set(NULL, 0);
        rig_wait(&rig, 0);
        cr_assert_eq(flush.result, 0);
    }
    free(data);
    rig_finish(&rig);
}

/* The kernel tells one of them, so the others have to be told here. */
Test(disk_faults, a_flush_that_fails_fails_all_that_wait_with_it)
{
    static const struct fault fault = {CALL_FDATASYNC, .times = 1, .error = EIO, .held = true};
    struct rig_request flushes[5];
    struct disk_rig rig;
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    faults_set(&fault, 1);
    for (unsigned i = 0; i < COUNT(flushes); i++) {
        flushes[i].request = (struct disk_request){.op = DISK_FLUSH};
        rig_submit(&rig, &flushes[i]);
    }
    cr_assert(faults_await(CALL_FDATASYNC, 1));
    faults_set(NULL, 0);
    rig_wait(&rig, 0);
    for (unsigned i = 0; i < COUNT(flushes); i++)
        cr_assert_eq(flushes[i].result, -EIO);
    cr_assert_eq(faults_calls(CALL_FDATASYNC), 0, "not once more");
    rig_finish(&rig);
}

Test(disk_faults, a_flush_that_fails_stops_the_writes_that_wait_behind_it)
{
    static const struct fault faults[] = {
        {.call = CALL_FDATASYNC, .times = 1, .error = EIO, .sleep_ms = 50},
        FAIL(PTHREAD_CREATE, 0, FAULT_ALWAYS, EAGAIN)};
    struct disk_rig rig;
    uint8_t *data = buffer(0xee);
    struct iovec piece = {data, LENGTH};
    struct rig_request flush = {.request = {.op = DISK_FLUSH}};
    struct rig_request write = {.request = {.op = DISK_WRITE,
                                            .durable = true, /* so not done at once */
                                            .length = LENGTH,
                                            .iov = &piece,
                                            .iov_count = 1}};
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    faults_set(faults, COUNT(faults));
    rig_submit(&rig, &flush);
    rig_submit(&rig, &write);
    rig_wait(&rig, 0);
    cr_assert_eq(flush.result, -EIO);
    cr_assert_eq(write.result, -EIO);
    cr_assert_eq(faults_calls(CALL_PWRITEV), 0);
    faults_set(NULL, 0);
    free(data);
    rig_finish(&rig);
}

/* Whether all threads of this program but this one wait for locks, or conditions. */
static bool others_wait(void *unused)
{
    unsigned busy = 0;
    DIR *dir = opendir("/proc/self/task");
    (void)unused;
    for (const struct dirent *entry; dir && (entry = readdir(dir));) {
        char path[300];
        long call = -1;
        snprintf(path, sizeof(path), "/proc/self/task/%s/syscall", entry->d_name);
        FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (!file)
            continue;
        if (fscanf(file, "%ld", &call) != 1) /* the word "running" */
            call = -1;
        busy += call != SYS_futex && call != SYS_epoll_wait; /* the latter is Criterion's */
        fclose(file);
    }
    closedir(dir);
    return busy == 1;
}

/* One that began before a write was done covers it by luck only: the flush after it is a new one.
 */
Test(disk_faults, a_flush_covers_what_was_done_before_it)
{
    static const struct fault fault = {CALL_FDATASYNC, .times = 1, .held = true};
    struct rig_request flushes[4];
    struct disk_rig rig;
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    faults_set(&fault, 1);
    for (unsigned i = 0; i < COUNT(flushes); i++) {
        flushes[i].request = (struct disk_request){.op = DISK_FLUSH};
        rig_submit(&rig, &flushes[i]);
        cr_assert(faults_await(CALL_FDATASYNC, 1), "the first one is at it");
    }
    cr_assert(support_wait(others_wait, NULL), "the others wait for it");
    faults_set(NULL, 0);
    rig_wait(&rig, 0);
    cr_assert_eq(faults_calls(CALL_FDATASYNC), 1, "one for the three: %u calls",
                 faults_calls(CALL_FDATASYNC));
    rig_finish(&rig);
}

Test(disk_faults, one_thread_is_enough)
{
    static const struct fault faults[] = {FAIL(PTHREAD_CREATE, 0, FAULT_ALWAYS, EAGAIN),
                                          FAIL(PREADV2, 0, FAULT_ALWAYS, EAGAIN)};
    static struct rig_request requests[40];
    static struct iovec pieces[COUNT(requests)];
    struct disk_rig rig;
    uint8_t *data = buffer(0);
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    faults_set(faults, COUNT(faults));
    for (unsigned i = 0; i < COUNT(requests); i++) {
        pieces[i] = (struct iovec){data, 512};
        requests[i].request =
            (struct disk_request){.length = 512, .iov = &pieces[i], .iov_count = 1};
        rig_submit(&rig, &requests[i]);
    }
    rig_wait(&rig, 0);
    for (unsigned i = 0; i < COUNT(requests); i++)
        cr_assert_eq(requests[i].result, 0);
    cr_assert_eq(faults_calls(CALL_PTHREAD_CREATE), 1, "refused once is refused");
    faults_set(NULL, 0);
    free(data);
    rig_finish(&rig);
}

Test(disk_faults, no_first_thread_no_disk)
{
    static const struct fault fault = FAIL(PTHREAD_CREATE, 0, 1, EAGAIN);
    struct disk_rig rig;
    struct minivmm_error err;
    rig_init(&rig, "/tmp", SIZE);
    const struct disk_config config = {.path = rig.image, .direct = true};
    faults_set(&fault, 1);
    cr_assert_eq(disk_create(&config, &rig.loop, &rig.disk, &err), -EAGAIN);
    faults_set(NULL, 0);
    cr_assert(support_one_line(&err, "disk 0: ") && strstr(err.text, "ulimit"), "%s", err.text);
    rig_finish(&rig);
}

Test(disk_faults, refuses_what_it_is_not_for)
{
    static const struct {
        enum disk_op op;
        bool readonly;
        uint64_t offset, length;
        int result;
    } cases[] = {
        {DISK_READ, false, SIZE, 512, -EINVAL},
        {DISK_READ, false, SIZE - 512, 1024, -EINVAL},
        {DISK_READ, false, 0 - 512ull, 512, -EINVAL},
        {DISK_WRITE, false, 0 - 512ull, 1024, -EINVAL},
        {DISK_WRITE, false, 1ull << 63, 512, -EINVAL},
        {DISK_WRITE, false, 100, 512, -EINVAL},
        {DISK_WRITE, false, 512, 100, -EINVAL},
        {DISK_ZERO, false, SIZE - 512, 1024, -EINVAL},
        {DISK_DISCARD, false, 0, 0 - 512ull, -EINVAL},
        {DISK_READ, false, SIZE, 0, 0},
        {DISK_WRITE, false, 0, 0, 0},
        {DISK_DISCARD, false, 0, 0, 0},
        {DISK_WRITE, true, 0, 512, -EROFS},
        {DISK_ZERO, true, 0, 512, -EROFS},
        {DISK_ZERO_UNMAP, true, 0, 512, -EROFS},
        {DISK_DISCARD, true, 0, 512, -EROFS},
        {DISK_FLUSH, true, 0, 0, 0},
        {DISK_READ, true, 0, 512, 0},
    };
    uint8_t *data = buffer(0);
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct disk_rig rig;
        rig_init(&rig, "/tmp", SIZE);
        rig_open(&rig, (struct disk_config){.readonly = cases[i].readonly});
        int result = rig_do(&rig, cases[i].op, cases[i].offset, data, cases[i].length);
        cr_assert_eq(result, cases[i].result, "case %zu: %d", i, result);
        rig_finish(&rig);
    }
    free(data);
}
