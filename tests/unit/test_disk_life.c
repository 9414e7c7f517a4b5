/* What happens to an image and its process while it is in use, and what is left afterwards. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/disk_faults.h"
#include "tests/unit/disk_model.h"

SUITE(disk_life);

#define SIZE (256u * 1024)

static uint8_t *aligned(size_t size)
{
    void *data = NULL;
    cr_assert_eq(posix_memalign(&data, 4096, size), 0);
    memset(data, 0x33, size);
    return data;
}

static off_t size_of(const char *path)
{
    struct stat st;
    cr_assert_eq(stat(path, &st), 0);
    return st.st_size;
}

Test(disk_life, I6_an_image_that_shrinks_is_an_error_of_requests)
{
    static const struct disk_config configs[] = {
        {0}, {.direct = true}, {.readonly = true}, {.ephemeral = true}};
    uint8_t *data = aligned(SIZE);
    for (size_t i = 0; i < COUNT(configs); i++) {
        struct disk_rig rig;
        rig_init(&rig, "/tmp", SIZE);
        rig_open(&rig, configs[i]);
        cr_assert_eq(truncate(rig.image, 8192 + 700), 0);
        cr_assert_eq(rig_do(&rig, DISK_READ, 0, data, 8192), 0);
        cr_assert_eq(rig_do(&rig, DISK_READ, 16384, data, 4096), -EIO, "config %zu", i);
        cr_assert_eq(rig_do(&rig, DISK_READ, 4096, data, 8192), -EIO, "config %zu", i);
        cr_assert_eq(rig_do(&rig, DISK_READ, SIZE - 512, data, 512), -EIO);
        cr_assert_eq(rig_do(&rig, DISK_READ, 8192, data, 512), 0, "config %zu", i);
        cr_assert_eq(rig_do(&rig, DISK_READ, 8192, data + 1, 1024), -EIO, "config %zu", i);
        if (configs[i].ephemeral) /* the rest of the block is lost */
            cr_assert_eq(rig_do(&rig, DISK_WRITE, 16384, data, 512), -EIO);
        if (!configs[i].readonly && !configs[i].ephemeral) {
            cr_assert_eq(rig_do(&rig, DISK_DISCARD, 0, NULL, SIZE), 0);
            cr_assert_eq(size_of(rig.image), 8192 + 700);
            cr_assert_eq(rig_do(&rig, DISK_ZERO, 0, NULL, SIZE), 0);
            cr_assert_eq(size_of(rig.image), 8192 + 700);
            cr_assert_eq(rig_do(&rig, DISK_WRITE, SIZE - 4096, data, 4096), 0);
            cr_assert_eq(size_of(rig.image), SIZE, "never beyond its size");
        }
        cr_assert_eq(unlink(rig.image), 0); /* nor does that do any harm */
        cr_assert_eq(rig_do(&rig, DISK_READ, 0, data, 8192), 0);
        rig_finish(&rig);
    }
    free(data);
}

Test(disk_life, a_limit_on_file_sizes_is_an_error_of_requests)
{
    const struct rlimit limit = {.rlim_cur = 8192, .rlim_max = RLIM_INFINITY};
    uint8_t *data = aligned(SIZE);
    sigset_t xfsz;
    struct disk_rig rig;
    rig_init(&rig, "/tmp", SIZE);
    rig_open(&rig, (struct disk_config){0});
    sigemptyset(&xfsz); /* as on a loop's thread */
    sigaddset(&xfsz, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &xfsz, NULL);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    cr_assert_eq(rig_do(&rig, DISK_WRITE, 16384, data, 4096), -EFBIG);
    cr_assert_eq(rig_do(&rig, DISK_READ, 16384, data, 4096), 0);
    free(data);
    rig_finish(&rig);
}

/* AddressSanitizer keeps what was freed. */
#if defined(__SANITIZE_ADDRESS__)
#define SLACK_KIB (256u * 1024)
#else
#define SLACK_KIB 512u
#endif

static unsigned long resident_kib(void)
{
    char line[128];
    unsigned long kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    while (file && fgets(line, sizeof(line), file))
        if (sscanf(line, "VmRSS: %lu", &kib) == 1)
            break;
    fclose(file);
    return kib;
}

static void use(struct disk_rig *rig, struct disk_config config)
{
    static const struct fault cold = {.call = CALL_PREADV2, .times = FAULT_ALWAYS, .error = EAGAIN};
    static struct rig_request requests[64];
    static struct iovec pieces[COUNT(requests)];
    uint8_t *data = aligned(SIZE + 512);
    faults_set(&cold, 1);
    rig_open(rig, config);
    for (unsigned i = 0; i < COUNT(requests); i++) {
        pieces[i] = (struct iovec){data + i * 4096 + i % 2, 4096};
        requests[i].request = (struct disk_request){.op = i % 3 ? DISK_READ : DISK_WRITE,
                                                    .offset = i * 4096,
                                                    .length = 4096,
                                                    .iov = &pieces[i],
                                                    .iov_count = 1};
        rig_submit(rig, &requests[i]);
    }
    rig_wait(rig, 0);
    for (unsigned i = 0; i < COUNT(requests); i++)
        cr_assert_eq(requests[i].result, 0);
    cr_assert_gt(rig_threads(), 2);
    cr_assert_leq(rig_threads(), 1 + 2 * WORKERS_MAX); /* also some that have just ended */
    rig_close(rig);
    faults_set(NULL, 0);
    free(data);
}

/* A thread that was joined is still listed for a moment. */
static bool has_threads(void *arg)
{
    return rig_threads() == *(const unsigned *)arg;
}

Test(disk_life, nothing_is_left)
{
    static const struct disk_config configs[] = {{0}, {.direct = true}, {.ephemeral = true}};
    unsigned threads = rig_threads();
    struct disk_rig rig;
    unsigned long kib = 0;
    rig_init(&rig, "/tmp", SIZE);
    for (unsigned round = 0; round < 30; round++) {
        use(&rig, configs[round % COUNT(configs)]);
        cr_assert(support_wait(has_threads, &threads));
        if (round == 9) /* by then the heap has what it keeps */
            kib = resident_kib();
    }
    cr_assert_leq(resident_kib(), kib + SLACK_KIB);
    disk_destroy(NULL);
    rig_finish(&rig);
}

/* ---- block devices ------------------------------------------------------------------------- */

/*
 * A loop device with blocks of so many bytes on the rig's image, that goes away when the descriptor
 * is closed, also by the end of the process. -1: this machine has none.
 */
static int attach(struct disk_rig *rig, unsigned block, char device[64])
{
    char command[192];
    int status;
    snprintf(command, sizeof(command), "losetup --show -b %u -f %s", block, rig->image);
    char *output = support_run(command, &status);
    output[strcspn(output, "\n")] = '\0';
    snprintf(device, 64, "%s", output);
    if (status != 0)
        cr_log_warn("block devices are NOT tested here: losetup: %s", output);
    free(output);
    if (status != 0)
        return -1;
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    snprintf(command, sizeof(command), "losetup -d %s", device); /* done when nobody has it open */
    free(support_run(command, &status));
    cr_assert_geq(fd, 0);
    return fd;
}

static void expect_device(unsigned block)
{
    struct disk_rig rig;
    struct minivmm_error err;
    struct disk *second;
    char device[64];
    rig_init(&rig, "/tmp", 2 * MIB);
    int fd = attach(&rig, block, device);
    if (fd >= 0) {
        const struct model_config buffered = {
            .name = "device", .disk.path = device, .seed = 20, .rounds = 400, .unit = block};
        const struct model_config direct = {.name = "device, direct",
                                            .disk = {.path = device, .direct = true},
                                            .seed = 21,
                                            .rounds = 400};
        /* Aligned and not, in the same pages, though not in the same sectors. */
        const struct model_config crowded = {.name = "device, direct, crowded",
                                             .disk = {.path = device, .direct = true},
                                             .seed = 22,
                                             .rounds = 2000,
                                             .often = block,
                                             .size = 64 * 1024};
        struct disk_config config = {.path = device};
        rig_open(&rig, config);
        cr_assert_eq(disk_size(rig.disk), 2 * MIB);
        cr_assert_eq(disk_block_size(rig.disk), block);
        cr_assert_lt(disk_create(&config, &rig.loop, &second, &err), 0);
        cr_assert(support_one_line(&err, "disk 0: /dev/loop"), "%s", err.text);
        cr_assert(support_one_line(&err, "use readonly"), "%s", err.text);
        rig_close(&rig);
        model_run(&rig, &buffered);
        model_run(&rig, &direct);
        model_run(&rig, &crowded);
        close(fd);
    }
    rig_finish(&rig);
}

Test(disk_life, I6_a_block_device_of_512_byte_blocks)
{
    expect_device(512);
}

Test(disk_life, I6_a_block_device_of_1024_byte_blocks)
{
    expect_device(1024);
}

/* Here requests of single sectors are not aligned, and must not harm their neighbours. */
Test(disk_life, I6_a_block_device_of_4096_byte_blocks)
{
    expect_device(4096);
}

/* Make a file system on a device and mount it in the rig's directory; false: not allowed here. */
static bool mount_in(const struct disk_rig *rig, const char *device, char dir[96])
{
    char command[400];
    int status;
    snprintf(dir, 96, "%s/mnt", rig->dir);
    snprintf(command, sizeof(command), "mkfs.ext4 -q -b 4096 %s && mkdir %s && mount %s %s", device,
             dir, device, dir);
    char *output = support_run(command, &status);
    if (status != 0)
        cr_log_warn("mounted devices are NOT tested here: %s", output);
    free(output);
    return status == 0;
}

static void unmount(const char *dir)
{
    char command[128];
    int status;
    snprintf(command, sizeof(command), "umount %s", dir);
    free(support_run(command, &status));
    cr_expect_eq(status, 0);
}

Test(disk_life, I6_a_mounted_block_device_is_refused)
{
    struct disk_rig rig;
    struct minivmm_error err;
    char device[64], dir[96];
    rig_init(&rig, "/tmp", 8 * MIB);
    int fd = attach(&rig, 512, device);
    if (fd >= 0 && mount_in(&rig, device, dir)) {
        const struct disk_config config = {.path = device};
        cr_expect_eq(disk_create(&config, &rig.loop, &rig.disk, &err), -EBUSY);
        cr_expect(support_one_line(&err, "mounted or in use"), "%s", err.text);
        unmount(dir);
    }
    if (fd >= 0)
        close(fd);
    rig_finish(&rig);
}

/* Its last block cannot be written whole without making it grow. */
Test(disk_life, I6_a_direct_file_that_ends_within_a_block)
{
    const off_t size = 128 * 1024 + 3 * DISK_SECTOR + 100;
    struct disk_rig rig;
    char device[64], dir[96], path[128];
    rig_init(&rig, "/tmp", 8 * MIB);
    int fd = attach(&rig, 4096, device);
    if (fd >= 0 && mount_in(&rig, device, dir)) {
        snprintf(path, sizeof(path), "%s/file", dir);
        const struct model_config config = {.name = "cut block",
                                            .disk = {.path = path, .direct = true},
                                            .seed = 30,
                                            .rounds = 2000,
                                            .often = 4096};
        int file = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        cr_assert_eq(ftruncate(file, size), 0);
        close(file);
        model_run(&rig, &config);
        cr_expect_eq(size_of(path), size);
        unmount(dir);
    }
    if (fd >= 0)
        close(fd);
    rig_finish(&rig);
}
