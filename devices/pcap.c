#include "devices/pcap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAGIC_NANOSECONDS 0xa1b23c4du
#define VERSION_MAJOR     2
#define VERSION_MINOR     4
#define SNAP_LENGTH       262144u /* what readers allow at most */
#define LINK_ETHERNET     1u

struct pcap {
    FILE *file;
    bool failed;
};

struct file_header {
    uint32_t magic;
    uint16_t major, minor;
    uint32_t reserved[2];
    uint32_t snap_length;
    uint32_t link_type;
};

struct packet_header {
    uint32_t seconds, nanoseconds;
    uint32_t captured, original; /* bytes */
};

int pcap_create(const char *path, unsigned index, struct pcap **out, struct minivmm_error *err)
{
    const struct file_header header = {.magic = MAGIC_NANOSECONDS,
                                       .major = VERSION_MAJOR,
                                       .minor = VERSION_MINOR,
                                       .snap_length = SNAP_LENGTH,
                                       .link_type = LINK_ETHERNET};
    struct pcap *pcap = calloc(1, sizeof(*pcap));
    int fd = -1;

    int rc = pcap ? 0 : -ENOMEM;
    if (rc == 0) {
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NONBLOCK, 0600);
        rc = fd < 0 ? -errno : 0;
    }
    if (rc == 0) {
        pcap->file = fdopen(fd, "w");
        rc = pcap->file ? 0 : -errno;
    }
    if (rc == 0 && (fwrite(&header, sizeof(header), 1, pcap->file) != 1 || fflush(pcap->file) != 0))
        rc = -errno;
    if (rc < 0) {
        if (pcap && pcap->file)
            fclose(pcap->file);
        else if (fd >= 0)
            close(fd);
        free(pcap);
        return error_set(err, rc, "net %u: pcap %s: %s", index, path, strerror(-rc));
    }
    *out = pcap;
    return 0;
}

void pcap_add(struct pcap *pcap, const struct iovec *iov, unsigned count, size_t skip,
              size_t length)
{
    struct timespec now;

    if (pcap->failed || length < skip)
        return;
    clock_gettime(CLOCK_REALTIME, &now);
    const struct packet_header header = {.seconds = (uint32_t)now.tv_sec,
                                         .nanoseconds = (uint32_t)now.tv_nsec,
                                         .captured = (uint32_t)(length - skip),
                                         .original = (uint32_t)(length - skip)};
    fwrite(&header, sizeof(header), 1, pcap->file);
    for (unsigned i = 0; i < count && length > 0; i++) {
        size_t part = iov[i].iov_len < length ? iov[i].iov_len : length;
        size_t jump = part < skip ? part : skip;
        fwrite((const char *)iov[i].iov_base + jump, 1, part - jump, pcap->file);
        skip -= jump;
        length -= part;
    }
    pcap->failed = fflush(pcap->file) != 0 || ferror(pcap->file);
}

void pcap_destroy(struct pcap *pcap)
{
    if (!pcap)
        return;
    fclose(pcap->file);
    free(pcap);
}
