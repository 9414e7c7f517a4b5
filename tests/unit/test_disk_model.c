/* Every operation, in every way that a disk can be opened, beside a model in memory. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/disk_faults.h"
#include "tests/unit/disk_model.h"

SUITE(disk_model);

/* Neither a whole block nor a whole sector at the end. */
#define SIZE (MIB + 3 * DISK_SECTOR + 100)

static void expect_model(const char *parent, const struct model_config *config,
                         const struct fault *faults, size_t fault_count)
{
    struct disk_rig rig;
    struct stat st;
    rig_init(&rig, parent, SIZE);
    faults_set(faults, fault_count);
    model_run(&rig, config);
    faults_set(NULL, 0);
    cr_assert_eq(stat(rig.image, &st), 0);
    cr_assert_eq(st.st_size, SIZE, "the file has another size now");
    int fd = open(rig.image, O_RDONLY);
    for (unsigned i = 1; i <= 100; i++) {
        uint8_t byte;
        cr_assert_eq(pread(fd, &byte, 1, SIZE - i), 1);
        cr_assert_eq(byte, rig_pattern(SIZE - i), "the tail is nobody's");
    }
    close(fd);
    rig_finish(&rig);
}

Test(disk_model, buffered)
{
    const struct model_config config = {.name = "buffered", .seed = 1, .rounds = 1500};
    expect_model("/tmp", &config, NULL, 0);
}

Test(disk_model, buffered_in_memory)
{
    const struct model_config config = {.name = "tmpfs", .seed = 2, .rounds = 1500};
    expect_model("/dev/shm", &config, NULL, 0);
}

Test(disk_model, direct)
{
    const struct model_config config = {
        .name = "direct", .disk.direct = true, .seed = 3, .rounds = 1000};
    expect_model("/tmp", &config, NULL, 0);
}

Test(disk_model, ephemeral)
{
    static const char *const parents[] = {"/tmp", "/dev/shm"};
    for (size_t i = 0; i < COUNT(parents); i++) {
        const struct model_config config = {
            .name = parents[i], .disk.ephemeral = true, .seed = 4, .rounds = 1000};
        expect_model(parents[i], &config, NULL, 0);
    }
}

Test(disk_model, durable)
{
    const struct model_config buffered = {
        .name = "durable", .durable = true, .seed = 5, .rounds = 300};
    const struct model_config direct = {
        .name = "durable, direct", .disk.direct = true, .durable = true, .seed = 6, .rounds = 300};
    expect_model("/tmp", &buffered, NULL, 0);
    expect_model("/tmp", &direct, NULL, 0);
}

/* What the host may do at any time without being in error. */
Test(disk_model, short_transfers_and_interruptions)
{
    static const struct fault shorts[] = {{CALL_PREADV2, 0, FAULT_ALWAYS, .limit = 1000},
                                          {CALL_PWRITEV2, 0, FAULT_ALWAYS, .error = EAGAIN},
                                          {CALL_PREADV, 0, FAULT_ALWAYS, .limit = 1537},
                                          {CALL_PWRITEV, 0, FAULT_ALWAYS, .limit = 1537}};
    static const struct fault direct[] = {{CALL_IO_SUBMIT, 0, FAULT_ALWAYS, .limit = 3},
                                          {CALL_PREADV, 0, FAULT_ALWAYS, .limit = 1536},
                                          {CALL_PWRITEV, 0, FAULT_ALWAYS, .limit = 1536}};
    for (unsigned mode = 0; mode < 3; mode++) {
        const struct model_config config = {.name = "short",
                                            .disk = {.direct = mode == 1, .ephemeral = mode == 2},
                                            .seed = 7 + mode,
                                            .rounds = 400};
        expect_model("/tmp", &config, mode == 1 ? direct : shorts,
                     mode == 1 ? COUNT(direct) : COUNT(shorts));
    }
}

Test(disk_model, a_host_without_ranges_and_without_nowait)
{
    static const struct fault none[] = {{CALL_FALLOCATE, 0, FAULT_ALWAYS, .error = EOPNOTSUPP},
                                        {CALL_PREADV2, 0, FAULT_ALWAYS, .error = EOPNOTSUPP},
                                        {CALL_PWRITEV2, 0, FAULT_ALWAYS, .error = EOPNOTSUPP},
                                        {CALL_IO_SETUP, 0, FAULT_ALWAYS, .error = EAGAIN}};
    for (unsigned mode = 0; mode < 3; mode++) {
        const struct model_config config = {.name = "bare",
                                            .disk = {.direct = mode == 1, .ephemeral = mode == 2},
                                            .seed = 10 + mode,
                                            .rounds = 400};
        expect_model("/tmp", &config, none, COUNT(none));
    }
}
