#include "tests/unit/disk_rig.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint8_t rig_pattern(uint64_t offset)
{
    return (uint8_t)(1 + (offset ^ offset >> 8 ^ offset >> 16) % 255);
}

void rig_init(struct disk_rig *rig, const char *parent, uint64_t size)
{
    struct minivmm_error err;
    *rig = (struct disk_rig){0};
    snprintf(rig->dir, sizeof(rig->dir), "%s/minivmm-test-XXXXXX", parent);
    cr_assert_not_null(mkdtemp(rig->dir));
    snprintf(rig->image, sizeof(rig->image), "%s/image", rig->dir);
    uint8_t *data = malloc(size);
    for (uint64_t i = 0; i < size; i++)
        data[i] = rig_pattern(i);
    int fd = open(rig->image, O_CREAT | O_EXCL | O_WRONLY, 0600);
    cr_assert_geq(fd, 0);
    cr_assert_eq(pwrite(fd, data, size, 0), (ssize_t)size);
    close(fd);
    free(data);
    cr_assert_eq(event_loop_init(&rig->loop, &err), 0, "%s", err.text);
}

void rig_finish(struct disk_rig *rig)
{
    rig_close(rig);
    event_loop_finish(&rig->loop);
    support_remove_dir(rig->dir);
}

void rig_open(struct disk_rig *rig, struct disk_config config)
{
    struct minivmm_error err;
    if (!config.path)
        config.path = rig->image;
    if (!config.overlay_dir)
        config.overlay_dir = rig->dir;
    cr_assert_eq(disk_create(&config, &rig->loop, &rig->disk, &err), 0, "%s", err.text);
}

void rig_close(struct disk_rig *rig)
{
    disk_destroy(rig->disk);
    rig->disk = NULL;
}

static void done(struct disk_request *request, int result)
{
    struct rig_request *mine = (struct rig_request *)request; /* its first member */
    mine->result = result;
    mine->ended++;
    if (--mine->rig->under_way <= mine->rig->enough)
        event_loop_stop(&mine->rig->loop);
}

void rig_submit(struct disk_rig *rig, struct rig_request *request)
{
    request->rig = rig;
    request->ended = 0;
    request->result = 1;
    request->request.done = done;
    rig->enough = UINT32_MAX;
    rig->under_way++;
    disk_submit(rig->disk, &request->request);
}

void rig_wait(struct disk_rig *rig, unsigned under_way)
{
    rig->enough = under_way;
    disk_kick(rig->disk);
    while (rig->under_way > under_way) {
        rig->loop.stopping = false;
        event_loop_run(&rig->loop);
    }
}

int rig_do(struct disk_rig *rig, enum disk_op op, uint64_t offset, void *data, uint64_t length)
{
    struct iovec piece = {data, length};
    struct rig_request request = {
        .request = {.op = op, .offset = offset, .length = length, .iov = &piece, .iov_count = 1}};
    rig_submit(rig, &request);
    rig_wait(rig, 0);
    cr_assert_eq(request.ended, 1);
    return request.result;
}

unsigned rig_threads(void)
{
    unsigned n = 0;
    DIR *dir = opendir("/proc/self/task");
    while (dir && readdir(dir))
        n++;
    closedir(dir);
    return n - 2; /* . and .. */
}
