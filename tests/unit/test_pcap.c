/* --tap ...,pcap=FILE: what is in the file, and disks that are full. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/pcap.h"
#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"

SUITE(pcap);

#define MAGIC 0xa1b23c4du

struct record {
    uint32_t seconds, nanoseconds, captured, original;
};

static char dir[64], path[128];

static struct pcap *begin(void)
{
    struct minivmm_error err;
    struct pcap *pcap;
    support_temp_dir(dir);
    snprintf(path, sizeof(path), "%s/x.pcap", dir);
    cr_assert_eq(pcap_create(path, 0, &pcap, &err), 0, "%s", err.text);
    return pcap;
}

static size_t read_file(uint8_t *data, size_t room)
{
    FILE *file = fopen(path, "r");
    cr_assert_not_null(file);
    size_t size = fread(data, 1, room, file);
    fclose(file);
    return size;
}

Test(pcap, the_file_has_every_byte_of_every_frame)
{
    static uint8_t frame[NET_PACKET_MAX], data[1 << 20];
    static const size_t lengths[] = {0, 14, 60, 1514, 65535};
    const uint32_t head[] = {MAGIC, 4 << 16 | 2, 0, 0, 262144, 1};
    struct pcap *pcap = begin();
    struct iovec iov[300];

    for (uint32_t i = 0; i < COUNT(lengths); i++) {
        size_t size = NET_HEADER_SIZE + lengths[i];
        memset(frame, 0xee, NET_HEADER_SIZE);
        net_rig_frame(frame + NET_HEADER_SIZE, lengths[i] < 14 ? 14 : lengths[i], net_rig_broadcast,
                      i);
        /* In pieces, header and all; the last one goes on behind the packet. */
        unsigned count = 0;
        for (size_t at = 0; at < size; count++) {
            size_t part = count < 30 ? 1 + count % 3 : 300;
            iov[count] = (struct iovec){frame + at, part};
            at += part;
        }
        pcap_add(pcap, iov, count, NET_HEADER_SIZE, size);
    }
    pcap_add(pcap, iov, 1, NET_HEADER_SIZE, 5);  /* no frame in it */
    size_t size = read_file(data, sizeof(data)); /* without the end: each is there at once */
    cr_expect_eq(memcmp(data, head, sizeof(head)), 0);
    size_t at = sizeof(head);
    for (uint32_t i = 0; i < COUNT(lengths); i++) {
        struct record record;
        memcpy(&record, data + at, sizeof(record));
        cr_expect_eq(record.captured, lengths[i]);
        cr_expect_eq(record.original, lengths[i]);
        cr_expect_lt(record.nanoseconds, 1000000000);
        cr_expect(record.seconds > 1700000000u);
        at += sizeof(record);
        if (lengths[i] > 0)
            cr_expect(net_rig_is_frame(data + at, (int)lengths[i], lengths[i], i), "%u", i);
        at += lengths[i];
    }
    cr_expect_eq(at, size);
    pcap_destroy(pcap);
    struct stat st;
    cr_expect(stat(path, &st) == 0 && (st.st_mode & 0777) == 0600, "private");
    support_remove_dir(dir);
}

Test(pcap, both_directions_are_in_the_file_and_tcpdump_reads_it)
{
    static struct net_rig rig;
    static uint8_t frame[NET_PACKET_MAX];
    struct net_driver *d = &rig.driver;
    struct pcap *pcap = begin();

    net_rig_init(&rig, &(struct net_rig_config){.kind = NET_RIG_STREAM, .pcap = pcap});
    cr_assert(net_driver_start(d, UINT64_MAX, 0));
    net_driver_add(d, 0, 60, 100); /* the second overruns what is ready */
    for (uint32_t i = 0; i < 2; i++) {
        net_rig_frame(frame, 60 + 3000 * i, net_rig_broadcast, i);
        cr_assert(net_driver_send(d, 0, frame, 60 + 3000 * i));
        cr_assert(net_rig_far_send(&rig, frame, 60 + 3000 * i));
        cr_assert_eq(net_driver_receive(d, 0, frame), (int)(60 + 3000 * i));
    }
    net_rig_finish(&rig);
    pcap_destroy(pcap);
    static uint8_t data[20000];
    cr_expect_eq(read_file(data, sizeof(data)), 24 + 2 * (16 + 60) + 2 * (16 + 3060));
    cr_expect(net_rig_is_frame(data + 24 + 16, 60, 60, 0));
    cr_expect(net_rig_is_frame(data + 24 + 16 + 60 + 16, 60, 60, 0));
    size_t at = 24 + 2 * 76 + 16;
    cr_expect(net_rig_is_frame(data + at, 3060, 3060, 1));
    cr_expect(net_rig_is_frame(data + at + 3060 + 16, 3060, 3060, 1));
    if (!support_has_program("tcpdump")) {
        support_remove_dir(dir);
        cr_skip_test("tcpdump is not installed");
    }
    char command[300];
    int status;
    snprintf(command, sizeof(command), "tcpdump -r %s -nn -e", path);
    char *output = support_run(command, &status);
    unsigned lines = 0;
    for (const char *p = output; (p = strstr(p, "0x88b5")); p++)
        lines++;
    cr_expect_eq(status, 0, "%s", output);
    cr_expect_eq(lines, 4, "%s", output);
    cr_expect_not_null(strstr(output, "length 3060"), "%s", output);
    free(output);
    support_remove_dir(dir);
}

Test(pcap, files_that_cannot_be_are_named)
{
    static const struct {
        const char *path, *text;
        int code;
    } rows[] = {
        {"/dev/full", "net 2: pcap /dev/full: No space left on device", -ENOSPC},
        {"/nonexistent/x", "net 2: pcap /nonexistent/x: No such file or directory", -ENOENT},
        {"/tmp", "net 2: pcap /tmp: Is a directory", -EISDIR},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct minivmm_error err;
        struct pcap *pcap;
        cr_expect_eq(pcap_create(rows[i].path, 2, &pcap, &err), rows[i].code);
        cr_expect_str_eq(err.text, rows[i].text, "%s", err.text);
    }
    /* A pipe that nobody reads does not block. */
    struct minivmm_error err;
    struct pcap *pcap;
    support_temp_dir(dir);
    snprintf(path, sizeof(path), "%s/pipe", dir);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(pcap_create(path, 0, &pcap, &err), -ENXIO, "%s", err.text);
    support_remove_dir(dir);
}

/* A disk that fills up: the packets go on, the file ends. */
Test(pcap, a_full_disk_stops_the_file_and_nothing_else)
{
    static uint8_t frame[1500];
    struct iovec iov = {frame, sizeof(frame)};
    struct pcap *pcap = begin();

    pcap_add(pcap, &iov, 1, 12, sizeof(frame));
    /* The same descriptor on a device that is full. */
    char name[64], target[128];
    for (int fd = 3; fd < 64; fd++) {
        snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        ssize_t n = readlink(name, target, sizeof(target) - 1);
        if (n < 0 || (target[n] = '\0', strcmp(target, path) != 0))
            continue;
        int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
        cr_assert_eq(dup2(full, fd), fd);
        close(full);
    }
    for (unsigned i = 0; i < 10; i++)
        pcap_add(pcap, &iov, 1, 12, sizeof(frame));
    pcap_destroy(pcap);
    pcap_destroy(NULL);
    static uint8_t data[8000];
    cr_expect_eq(read_file(data, sizeof(data)), 24 + 16 + 1488);
    support_remove_dir(dir);
}
