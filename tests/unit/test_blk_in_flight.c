/*
 * A disk that is slow or fails, and drivers that do not wait for it (A12, C9, C10, C12, C15, S7,
 * S26, S43).
 */
#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/disk_faults.h"
#include "tests/unit/support.h"
#include "tests/unit/virtio_rig.h"
#include "vmm/clock.h"

SUITE(blk_in_flight);

#define BUF     RIG_FREE
#define LENGTH  4096u
#define FILL    0xa5
#define SLOW_MS 150u
#define MS      (NS_PER_SECOND / 1000)

static struct virtio_rig rig;
static struct blk_driver *d;

/* Nothing is served at once, and every transfer by a worker takes a while. */
static void be_slow(unsigned ms)
{
    const struct fault faults[] = {
        {.call = CALL_PREADV2, .times = FAULT_ALWAYS, .error = EAGAIN},
        {.call = CALL_PWRITEV2, .times = FAULT_ALWAYS, .error = EAGAIN},
        {.call = CALL_PREADV, .times = FAULT_ALWAYS, .sleep_ms = ms},
        {.call = CALL_PWRITEV, .times = FAULT_ALWAYS, .sleep_ms = ms},
    };
    faults_set(faults, COUNT(faults));
}

static void begin(struct virtio_rig_config config)
{
    struct minivmm_error err;
    faults_set(NULL, 0);
    cr_assert(virtio_rig_init(&rig, &config, &err), "%s", err.text);
    d = &rig.blk_driver;
    cr_assert(virtio_rig_start(&rig, UINT64_MAX, 0));
}

static void end(void)
{
    faults_set(NULL, 0);
    cr_expect(virtio_rig_works(&rig), "the canary");
    virtio_rig_finish(&rig);
    faults_set(NULL, 0);
}

static void fill(uint8_t value, unsigned count)
{
    memset(virtio_rig_at(&rig, BUF, LENGTH * count), value, LENGTH * count);
}

static void send_reads(unsigned queue, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        const struct piece data = {BUF + LENGTH * i, LENGTH, true};
        const struct blk_request request = {VIRTIO_BLK_T_IN, 8 * i, &data, 1};
        blk_driver_send(d, queue, &request);
    }
    virtio_driver_kick(&d->v, queue);
}

static bool filled(uint8_t value, unsigned count)
{
    const uint8_t *at = virtio_rig_at(&rig, BUF, LENGTH * count);
    for (unsigned i = 0; i < LENGTH * count; i++)
        if (at[i] != value)
            return false;
    return true;
}

static void pause_ms(unsigned ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&ts, NULL);
}

/* ---- ends that do not wait ----------------------------------------------------------------- */

Test(blk_in_flight, A12_S7_after_a_reset_nothing_is_written)
{
    enum { READS = 12 };
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin((struct virtio_rig_config){.threaded = threaded});
        struct virtq_config ring = d->v.queues[0].config;
        be_slow(SLOW_MS);
        fill(FILL, READS);
        send_reads(0, READS);
        virtio_driver_settle(&d->v);
        uint64_t start = clock_now_ns();
        virtio_driver_write(&d->v, VIRTIO_MMIO_STATUS, 0);
        cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS), 0);
        uint64_t took = clock_now_ns() - start;
        cr_expect_gt(took, SLOW_MS / 2 * MS, "it cannot have been quiet");
        cr_expect_lt(took, 8 * SLOW_MS * MS, "P1: it answers");
        cr_expect(filled(0, READS), "all of it was done, of a disk of zeroes");
        cr_expect_eq(fake_driver_used_idx(&d->v.queues[0]), READS);
        cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);

        fill(FILL, READS);
        uint8_t *rings = virtio_rig_at(&rig, ring.desc, 0x3000);
        memset(rings, FILL, 0x3000);
        virtio_driver_notify(&d->v, 0);
        pause_ms(2 * SLOW_MS);
        virtio_driver_settle(&d->v);
        cr_expect(filled(FILL, READS), "written after the reset");
        for (unsigned i = 0; i < 0x3000; i++)
            cr_assert_eq(rings[i], FILL, "the rings were written after the reset");
        cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
        virtio_driver_reset(&d->v);
        blk_driver_forget(d);
        end();
    }
}

Test(blk_in_flight, A12_S26_QueueReady_0_waits_for_what_is_under_way)
{
    enum { READS = 10 };
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin((struct virtio_rig_config){.threaded = threaded,
                                         .blk = {.queues = 2, .queue_size = 64}});
        if (rig.config.pci) { /* 4.1.4.3.2: nothing but a reset takes a queue out of service */
            end();
            cr_skip("PCI");
        }
        be_slow(SLOW_MS);
        fill(FILL, READS);
        send_reads(1, READS);
        virtio_driver_settle(&d->v);
        virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_SEL, 1);
        virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_READY, 0);
        cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_QUEUE_READY), 0);
        cr_expect_eq(fake_driver_used_idx(&d->v.queues[1]), READS);
        cr_expect(filled(0, READS));
        fill(FILL, READS);
        send_reads(1, 1);
        virtio_driver_notify(&d->v, 1);
        pause_ms(2 * SLOW_MS);
        virtio_driver_settle(&d->v);
        cr_expect(filled(FILL, READS), "S26");
        cr_expect_eq(fake_driver_used_idx(&d->v.queues[1]), READS, "S26");
        faults_set(NULL, 0);
        cr_expect_eq(blk_driver_read(d, 0, BUF, 512), VIRTIO_BLK_S_OK, "the other queue");
        cr_expect_eq(virtio_driver_read(&d->v, VIRTIO_MMIO_STATUS), STATUS_DRIVER_OK);
        virtio_driver_reset(&d->v);
        blk_driver_forget(d);
        end();
    }
}

/* The other queue's requests go on where they were: none is lost, none done twice. */
Test(blk_in_flight, A12_QueueReady_0_loses_nothing_of_other_queues)
{
    begin((struct virtio_rig_config){.threaded = true, .blk = {.queues = 2, .queue_size = 64}});
    be_slow(20);
    send_reads(0, 12);
    send_reads(0, 4); /* perhaps not taken yet */
    virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_SEL, 1);
    virtio_driver_write(&d->v, VIRTIO_MMIO_QUEUE_READY, 0);
    for (unsigned i = 0; i < 16; i++) {
        uint16_t number;
        uint8_t status;
        cr_expect(blk_driver_wait(d, 0, &number, &status) && status == VIRTIO_BLK_S_OK, "%u", i);
    }
    virtio_driver_settle(&d->v);
    cr_expect_eq(fake_driver_used_idx(&d->v.queues[0]), 16);
    end();
}

Test(blk_in_flight, A12_FAILED_with_requests_under_way)
{
    begin((struct virtio_rig_config){.threaded = true});
    be_slow(SLOW_MS);
    send_reads(0, 4);
    virtio_driver_settle(&d->v);
    virtio_driver_write(&d->v, VIRTIO_MMIO_STATUS, STATUS_DRIVER_OK | VIRTIO_CONFIG_S_FAILED);
    fill(FILL, 4);
    pause_ms(2 * SLOW_MS);
    cr_expect(filled(FILL, 4));
    virtio_driver_reset(&d->v);
    blk_driver_forget(d);
    end();
}

Test(blk_in_flight, A12_destroyed_with_requests_under_way)
{
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin((struct virtio_rig_config){.threaded = threaded});
        be_slow(SLOW_MS);
        send_reads(0, 12);
        virtio_driver_settle(&d->v);
        virtio_rig_finish(&rig);
        faults_set(NULL, 0);
    }
}

Test(blk_in_flight, A12_a_thousand_starts)
{
    for (unsigned threaded = 0; threaded < 2; threaded++) {
        begin((struct virtio_rig_config){.threaded = threaded});
        for (unsigned i = 0; i < 1000; i++) {
            cr_assert(virtio_driver_start(&d->v, i % 3 ? UINT64_MAX : 1ull << VIRTIO_F_VERSION_1,
                                          1u << (i % 6 + 2)));
            blk_driver_forget(d);
            const struct blk_request flush = {.type = VIRTIO_BLK_T_FLUSH};
            if (i % 2)
                blk_driver_send(d, 0, &flush);
            if (i % 4 == 1)
                virtio_driver_notify(&d->v, 0);
            if (i % 5 == 0)
                cr_assert_eq(blk_driver_read(d, 0, BUF, 512) == VIRTIO_BLK_S_OK || i % 2, true);
        }
        virtio_driver_reset(&d->v);
        blk_driver_forget(d);
        end();
    }
}

/* ---- slow ---------------------------------------------------------------------------------- */

/* The disk's reads stay where they are until the others have been served. */
Test(blk_in_flight, C15_a_slow_disk_delays_nobody_else)
{
    const struct fault stuck[] = {
        {.call = CALL_PREADV2, .times = FAULT_ALWAYS, .error = EAGAIN},
        {.call = CALL_PREADV, .times = FAULT_ALWAYS, .held = true},
    };
    begin((struct virtio_rig_config){.threaded = true});
    faults_set(stuck, COUNT(stuck));
    send_reads(0, 16);
    cr_expect(faults_await(CALL_PREADV, 1));
    for (unsigned i = 0; i < 100; i++) {
        struct piece piece = {BUF + 0x20000, 64, true};
        struct vring_used_elem element;
        cr_assert(virtio_driver_transact(&rig.rng_driver, 0, &piece, 1, &element), "P3");
    }
    cr_expect_eq(fake_driver_used_idx(&d->v.queues[0]), 0, "it is slow");
    faults_set(NULL, 0);
    virtio_driver_reset(&d->v);
    blk_driver_forget(d);
    end();
}

Test(blk_in_flight, C9_many_flushes_at_once_and_after_a_reset)
{
    const struct blk_request flush = {.type = VIRTIO_BLK_T_FLUSH};
    begin((struct virtio_rig_config){.threaded = true});
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned i = 0; i < 100; i++)
            blk_driver_send(d, 0, &flush);
        virtio_driver_kick(&d->v, 0);
        for (unsigned i = 0; i < 100; i++) {
            uint16_t number;
            uint8_t status;
            cr_expect(blk_driver_wait(d, 0, &number, &status) && status == VIRTIO_BLK_S_OK);
        }
        cr_assert(virtio_driver_start(&d->v, UINT64_MAX, 0));
        blk_driver_forget(d);
    }
    end();
}

/* ---- stable storage ------------------------------------------------------------------------ */

Test(blk_in_flight, S43_writes_are_stable_when_they_must_be)
{
    const uint64_t no_flush = ~(FEATURE(VIRTIO_BLK_F_FLUSH) | FEATURE(VIRTIO_BLK_F_CONFIG_WCE));
    static const struct {
        const char *name;
        bool writethrough, no_flush, direct;
        int wce; /* written by the driver, if not negative */
        bool stable;
    } rows[] = {
        {"write-back", false, false, false, -1, false},
        {"write-through", true, false, false, -1, true},
        {"write-through, FLUSH not negotiated", true, true, false, -1, true},
        {"FLUSH not negotiated", false, true, false, -1, true},
        {"the driver sets write-through", false, false, false, 0, true},
        {"the driver sets write-back", true, false, false, 1, false},
        {"direct, write-back", false, false, true, -1, false},
        {"direct, FLUSH not negotiated", false, true, true, -1, true},
        {"direct, write-through", true, false, true, -1, true},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const struct virtio_blk_discard_write_zeroes range = {8, 8, 0};
        begin((struct virtio_rig_config){.disk = {.direct = rows[i].direct},
                                         .blk = {.writethrough = rows[i].writethrough}});
        cr_assert(virtio_driver_start(&d->v, rows[i].no_flush ? no_flush : UINT64_MAX, 0));
        if (rows[i].wce >= 0)
            virtio_driver_set_config(&d->v, offsetof(struct virtio_blk_config, wce), 1,
                                     (uint64_t)rows[i].wce);
        faults_set(NULL, 0);
        cr_expect_eq(blk_driver_write(d, 0, BUF, 4096), VIRTIO_BLK_S_OK);
        if (!rows[i].direct) /* there a flag of the write itself asks for it */
            cr_expect_eq(faults_calls(CALL_FDATASYNC) > 0, rows[i].stable, "%s: write",
                         rows[i].name);
        faults_set(NULL, 0);
        cr_expect_eq(blk_driver_clear(d, VIRTIO_BLK_T_WRITE_ZEROES, &range, 1, BUF),
                     VIRTIO_BLK_S_OK);
        cr_expect_eq(faults_calls(CALL_FDATASYNC) > 0, rows[i].stable, "%s: zero", rows[i].name);
        faults_set(NULL, 0);
        cr_expect_eq(blk_driver_read(d, 0, BUF, 4096), VIRTIO_BLK_S_OK);
        cr_expect_eq(faults_calls(CALL_FDATASYNC), 0, "%s: read", rows[i].name);
        cr_expect_eq(blk_driver_flush(d), VIRTIO_BLK_S_OK);
        cr_expect_geq(faults_calls(CALL_FDATASYNC), 1, "%s: flush", rows[i].name);
        end();
    }
}

/* ---- a host that fails --------------------------------------------------------------------- */

static struct {
    enum disk_op op;
    int error;
} told[8];
static unsigned told_count;

static void note_failure(void *arg, enum disk_op op, int error)
{
    cr_expect_eq(arg, &rig);
    cr_assert(told_count < COUNT(told));
    told[told_count].op = op;
    told[told_count++].error = error;
}

Test(blk_in_flight, C10_errors_of_the_host_reach_the_driver)
{
    begin((struct virtio_rig_config){
        .blk = {.queues = 1, .queue_size = 256, .failed = note_failure, .arg = &rig}});
    const struct fault read_fails[] = {{.call = CALL_PREADV2, .times = 1, .error = EIO},
                                       {.call = CALL_PREADV, .times = 1, .error = EIO}};
    faults_set(read_fails, 2);
    fill(FILL, 1);
    cr_expect_eq(blk_driver_read(d, 0, BUF, LENGTH), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(d->used_length, 0);
    cr_expect(filled(FILL, 1), "no stale bytes");
    const struct fault write_fails[] = {{.call = CALL_PWRITEV2, .times = 1, .error = ENOSPC},
                                        {.call = CALL_PWRITEV, .times = 1, .error = ENOSPC}};
    faults_set(write_fails, 2);
    cr_expect_eq(blk_driver_write(d, 0, BUF, LENGTH), VIRTIO_BLK_S_IOERR);
    const struct fault cut_short[] = {{.call = CALL_PREADV2, .times = FAULT_ALWAYS, .limit = 512},
                                      {.call = CALL_PREADV, .times = FAULT_ALWAYS, .limit = 1024},
                                      {.call = CALL_PWRITEV2, .times = FAULT_ALWAYS, .limit = 512},
                                      {.call = CALL_PWRITEV, .times = FAULT_ALWAYS, .limit = 1024}};
    faults_set(cut_short, 4);
    fill(FILL, 2);
    cr_expect_eq(blk_driver_write(d, 0, BUF, 2 * LENGTH), VIRTIO_BLK_S_OK, "in pieces");
    fill(0, 2);
    cr_expect_eq(blk_driver_read(d, 0, BUF, 2 * LENGTH), VIRTIO_BLK_S_OK, "in pieces");
    cr_expect(filled(FILL, 2));
    faults_set(NULL, 0);

    /* The image shrinks: what is past its end cannot be read. */
    cr_assert_eq(ftruncate(rig.image, LENGTH), 0);
    cr_expect_eq(blk_driver_read(d, 64, BUF, LENGTH), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(d->used_length, 0);

    /* Mistakes of the driver's are none of the host's. */
    cr_expect_eq(blk_driver_read(d, UINT64_MAX, BUF, LENGTH), VIRTIO_BLK_S_IOERR);
    cr_expect_eq(told_count, 3);
    cr_expect(told[0].op == DISK_READ && told[0].error == EIO);
    cr_expect(told[1].op == DISK_WRITE && told[1].error == ENOSPC);
    cr_expect(told[2].op == DISK_READ && told[2].error == EIO);
    end();
}

Test(blk_in_flight, C10_after_a_failed_flush_only_reads_go_well)
{
    begin((struct virtio_rig_config){0});
    const struct fault fails[] = {{.call = CALL_FDATASYNC, .times = 1, .error = EIO}};
    const struct virtio_blk_discard_write_zeroes range = {8, 8, 0};
    faults_set(fails, 1);
    cr_expect_eq(blk_driver_write(d, 0, BUF, LENGTH), VIRTIO_BLK_S_OK);
    for (unsigned i = 0; i < 3; i++) {
        cr_expect_eq(blk_driver_flush(d), VIRTIO_BLK_S_IOERR);
        cr_expect_eq(blk_driver_write(d, 0, BUF, LENGTH), VIRTIO_BLK_S_IOERR);
        cr_expect_eq(blk_driver_clear(d, VIRTIO_BLK_T_WRITE_ZEROES, &range, 1, BUF),
                     VIRTIO_BLK_S_IOERR);
        cr_expect_eq(blk_driver_read(d, 0, BUF, LENGTH), VIRTIO_BLK_S_OK);
        cr_assert(virtio_driver_start(&d->v, UINT64_MAX, 0)); /* a reset does not mend it */
    }
    end();
}

Test(blk_in_flight, C12_submissions_that_are_taken_in_part)
{
    static const struct {
        const char *name;
        struct fault fault;
    } rows[] = {
        {"one at a time", {.call = CALL_IO_SUBMIT, .times = FAULT_ALWAYS, .limit = 1}},
        {"some", {.call = CALL_IO_SUBMIT, .times = FAULT_ALWAYS, .limit = 7}},
        {"EAGAIN", {.call = CALL_IO_SUBMIT, .skip = 1, .times = 2, .error = EAGAIN}},
        {"EAGAIN at once", {.call = CALL_IO_SUBMIT, .times = 3, .error = EAGAIN}},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin((struct virtio_rig_config){.disk = {.direct = true}});
        faults_set(&rows[i].fault, 1);
        for (unsigned round = 0; round < 5; round++) {
            send_reads(0, 60);
            for (unsigned n = 0; n < 60; n++) {
                uint16_t number;
                uint8_t status;
                cr_assert(blk_driver_wait(d, 0, &number, &status), "%s: lost", rows[i].name);
                cr_expect_eq(status, VIRTIO_BLK_S_OK, "%s", rows[i].name);
            }
            cr_expect_eq(fake_driver_used_idx(&d->v.queues[0]), 60 * (round + 1), "%s",
                         rows[i].name);
        }
        cr_expect_gt(faults_calls(CALL_IO_SUBMIT), 0, "%s: libaio was used", rows[i].name);
        end();
    }
}

/* Requests wait in the ring where there are more than the device serves at once. */
Test(blk_in_flight, C12_a_queue_larger_than_what_is_served_at_once)
{
    enum { FLUSHES = 2000 };
    struct piece pieces[2];
    const struct virtio_blk_outhdr header = {.type = VIRTIO_BLK_T_FLUSH};
    struct vring_used_elem element;
    begin((struct virtio_rig_config){.threaded = true, .blk = {.queues = 1, .queue_size = 4096}});
    struct fake_driver *queue = &d->v.queues[0];
    const struct fault slow[] = {{.call = CALL_FDATASYNC, .times = 1, .sleep_ms = SLOW_MS}};
    faults_set(slow, 1);
    fake_driver_write(queue, BUF, &header, sizeof(header));
    memset(virtio_rig_at(&rig, BUF + 64, FLUSHES), FILL, FLUSHES);
    for (unsigned i = 0; i < FLUSHES; i++) {
        pieces[0] = (struct piece){BUF, sizeof(header), false};
        pieces[1] = (struct piece){BUF + 64 + i, 1, true};
        fake_driver_offer(queue, fake_driver_add(queue, pieces, 2));
    }
    fake_driver_publish(queue);
    virtio_driver_kick(&d->v, 0);
    for (unsigned i = 0; i < FLUSHES; i++)
        cr_assert(virtio_driver_wait(&d->v, 0, &element), "lost after %u", i);
    const uint8_t *status = virtio_rig_at(&rig, BUF + 64, FLUSHES);
    for (unsigned i = 0; i < FLUSHES; i++)
        cr_expect_eq(status[i], VIRTIO_BLK_S_OK);
    end();
}

/* C16: the format of an image is never guessed, so what the guest writes there means nothing. */
Test(blk_in_flight, C16_a_magic_number_in_the_first_sector_means_nothing)
{
    static const char magics[][8] = {"QFI\xfb\0\0\0\3", "KDMV\1\0\0\0", "conectix", "vhdxfile"};
    for (size_t i = 0; i < COUNT(magics); i++) {
        struct minivmm_error err;
        struct disk *again;
        char path[32], first[8];
        begin((struct virtio_rig_config){0});
        memset(virtio_rig_at(&rig, BUF, 512), 0, 512);
        fake_driver_write(&d->v.queues[0], BUF, magics[i], 8);
        cr_expect_eq(blk_driver_write(d, 0, BUF, 512), VIRTIO_BLK_S_OK);
        virtio_shutdown(blk_device(rig.blk));
        blk_destroy(rig.blk);
        disk_destroy(rig.disk);
        rig.blk = NULL;
        rig.disk = NULL;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", rig.image);
        const struct disk_config config = {.path = path};
        cr_assert_eq(disk_create(&config, &rig.loop, &again, &err), 0, "%s", err.text);
        cr_expect_eq(disk_size(again), 1 << 20);
        cr_expect(pread(rig.image, first, 8, 0) == 8 && memcmp(first, magics[i], 8) == 0);
        disk_destroy(again);
        virtio_rig_finish(&rig);
    }
}
