/*
 * A filter for frames that a guest sends: nothing that it begins by itself may leave. ARP,
 * neighbour discovery and DHCP pass, answers over TCP pass, and answers from named UDP ports.
 */
#ifndef DEVICES_NET_DENY_H
#define DEVICES_NET_DENY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NET_DENY_TEXT 80u /* bytes of a description, with its end */

/*
 * May it pass? If not, `what` gets a description, "tcp 192.0.2.1:443" say. `udp_ports` are those
 * whose answers pass. Frames with IP options, fragments and extension headers do not.
 */
bool net_deny_passes(const uint8_t *frame, size_t length, const uint16_t *udp_ports,
                     unsigned udp_count, char *what);

#endif
