/*
 * A packet capture file: the pcap format with nanoseconds, link type Ethernet
 * (draft-ietf-opsawg-pcap), as tcpdump and Wireshark read it. On the loop's thread.
 */
#ifndef DEVICES_PCAP_H
#define DEVICES_PCAP_H

#include <sys/uio.h>

#include "vmm/error.h"

struct pcap;

/* Create the file at `path`, or empty it. `index` is for error texts: "net N". */
int pcap_create(const char *path, unsigned index, struct pcap **pcap, struct minivmm_error *err);

/*
 * Add a packet: `length` bytes of `iov`, the first `skip` of which are none of the frame. It is in
 * the file when this returns; after a failed write, of a full disk say, nothing is added any more.
 */
void pcap_add(struct pcap *pcap, const struct iovec *iov, unsigned count, size_t skip,
              size_t length);

void pcap_destroy(struct pcap *pcap); /* NULL is allowed */

#endif
