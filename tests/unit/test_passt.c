/* --net user: passt's options and process, what it denies, and an offer of its DHCP. */
#include <errno.h>
#include <linux/close_range.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/passt.h"
#include "tests/unit/net_rig.h"
#include "tests/unit/support.h"

SUITE(passt);

Test(passt, forwards_that_mean_nothing_are_named)
{
    static const char *const bads[] = {"",          "tcp",
                                       "tcp:",      "tcp:80",
                                       "tcp:80:",   "tcp::80",
                                       "80:80",     "tcp:80:80:",
                                       "tcp:80:8x", "tcp:0:80",
                                       "tcp:80:0",  "tcp:65536:1",
                                       "udp:1:-1",  "icmp:1:2",
                                       "TCP:1:2",   "tcp: 1:2",
                                       "tcp:1: 2",  "udp:1:65536",
                                       "tcp:1:2,3", "tcp:+1:2",
                                       "udp:0x1:2", "tcp:99999999999999999999:1"};
    for (size_t i = 0; i < COUNT(bads); i++) {
        const char *forwards[] = {"tcp:1:2", bads[i]};
        const struct passt_config config = {.index = 4, .forwards = forwards, .forward_count = 2};
        struct net_backend *be;
        struct minivmm_error err;
        char text[200];
        snprintf(text, sizeof(text),
                 "net 4: forward=%s: must be tcp:HOSTPORT:GUESTPORT or udp:HOSTPORT:GUESTPORT",
                 bads[i]);
        cr_expect_eq(passt_create(&config, &be, &err), -EINVAL, "%s", bads[i]);
        cr_expect_str_eq(err.text, text, "%s", err.text);
    }
}

Test(passt, a_missing_program_is_named_with_the_cure)
{
    const struct passt_config config = {.index = 1};
    struct net_backend *be;
    struct minivmm_error err;
    setenv("PATH", "/nonexistent", 1);
    cr_expect_eq(passt_create(&config, &be, &err), -ENOENT);
    cr_expect_str_eq(err.text,
                     "net 1: passt: No such file or directory; install it (Debian: passt)");
    cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1, "no child is left");
}

/* A program in passt's place, that writes down how it was called. */
static void put_in_place(const char *dir, const char *script)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/passt", dir);
    FILE *file = fopen(path, "w");
    cr_assert_not_null(file);
    fprintf(file, "#!/bin/sh\n%s\n", script);
    fclose(file);
    cr_assert_eq(chmod(path, 0755), 0);
    snprintf(path, sizeof(path), "%s:/usr/bin:/bin", dir);
    setenv("PATH", path, 1);
    setenv("OUT", dir, 1);
}

Test(passt, the_program_gets_its_options_one_socket_and_nothing_else)
{
    for (unsigned closed = 0; closed < 2; closed++) {
        static const char *const forwards[] = {"tcp:8080:80", "udp:5353:53"};
        static const char *const wants[] = {
            "--foreground --quiet --fd 3 --no-map-gw -t 127.0.0.1/8080:80\n0123socket:",
            "--foreground --quiet --fd 3 -t 127.0.0.1/8080:80 -u 127.0.0.1/5353:53\n0123socket:"};
        /* The second round forwards a udp port too, which needs the gateway's help. */
        const struct passt_config config = {.forwards = forwards, .forward_count = 1 + closed};
        struct net_backend *be;
        struct minivmm_error err;
        char dir[64], command[200];
        int status;
        support_temp_dir(dir);
        put_in_place(dir, "echo \"$@\" >$OUT/args; for n in 0 1 2 3 4 5 6 7 8 9; do [ -e "
                          "/proc/$$/fd/$n ] && printf $n; done >$OUT/fds; "
                          "readlink /proc/$$/fd/3 >>$OUT/fds; "
                          "ps -o pgid= $$ >$OUT/group; echo $$ >$OUT/pid; cat <&3 >/dev/null; "
                          "echo >$OUT/end");
        pid_t child = fork(); /* without standard descriptors in the second round */
        if (child == 0) {
            close_range(3, ~0u, CLOSE_RANGE_CLOEXEC); /* what is not passt_create's */
            for (int fd = 0; closed && fd < 3; fd++)
                close(fd);
            if (passt_create(&config, &be, &err) < 0)
                _exit(1);
            snprintf(command, sizeof(command), "%s/pid", dir);
            for (unsigned i = 0; i < 2000 && access(command, R_OK) < 0; i++)
                usleep(1000);
            be->ops->destroy(be);
            _exit(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD ? 0 : 2);
        }
        waitpid(child, &status, 0);
        cr_expect_eq(status, 0, "%d", status);
        snprintf(command, sizeof(command), "cat %s/args %s/fds", dir, dir);
        char *output = support_run(command, &status);
        cr_expect(strncmp(output, wants[closed], strlen(wants[closed])) == 0, "%s", output);
        free(output);
        support_remove_dir(dir);
    }
}

/* It ends with the device, whatever it thinks of a closed socket. */
Test(passt, the_process_ends_with_the_device)
{
    char dir[64];
    support_temp_dir(dir);
    put_in_place(dir, "exec sleep 1000");
    for (unsigned i = 0; i < 5; i++) {
        const struct passt_config config = {0};
        struct net_backend *be;
        struct minivmm_error err;
        cr_assert_eq(passt_create(&config, &be, &err), 0, "%s", err.text);
        be->ops->destroy(be);
        cr_expect(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a zombie");
    }
    support_remove_dir(dir);
}

/* ---- with the real one --------------------------------------------------------------------- */

static struct guest {
    struct guest_mem mem;
    struct event_loop loop;
    struct bus bus;
    struct virtio_mmio slot;
    struct net *net;
    struct net_driver driver;
    char denied[100], ended[100];
} guest;

static void denied(void *arg, unsigned index, const char *what)
{
    (void)arg;
    snprintf(guest.denied, sizeof(guest.denied), "%u %s", index, what);
}

static void ended(void *arg, unsigned index, const char *why)
{
    (void)arg;
    cr_expect_str_eq(guest.ended, "", "told twice");
    snprintf(guest.ended, sizeof(guest.ended), "%u: %s", index, why);
}

static void begin(bool deny)
{
    const struct passt_config config = {.index = 5, .deny = deny, .denied = denied, .ended = ended};
    const struct net_config net = {.mac = {0x52, 0x54, 0, 0x12, 0x34, 0x56}, .mtu = 65520};
    struct net_backend *be;
    struct minivmm_error err;

    guest = (struct guest){0};
    cr_assert_eq(guest_mem_init(&guest.mem, 64 << 20, &err), 0);
    cr_assert_eq(event_loop_init(&guest.loop, &err), 0);
    cr_assert_eq(passt_create(&config, &be, &err), 0, "%s", err.text);
    cr_assert_eq(net_create(&net, be, &guest.mem, &guest.loop, &guest.net, &err), 0);
    guest.slot.dev = net_device(guest.net);
    bus_add(&guest.bus, 0xd0000000, VIRTIO_MMIO_SIZE, &virtio_mmio_ops, &guest.slot);
    guest.driver = (struct net_driver){.v = {.bus = &guest.bus,
                                             .mem = &guest.mem,
                                             .loop = &guest.loop,
                                             .call = guest.slot.dev->call,
                                             .rings = 0x100000,
                                             .base = 0xd0000000},
                                       .memory = 0x800000};
    cr_assert(net_driver_start(&guest.driver, UINT64_MAX, 0));
    net_driver_add(&guest.driver, 0, 20, 2000);
}

static void end(void)
{
    virtio_shutdown(guest.slot.dev);
    virtio_driver_finish(&guest.driver.v);
    net_destroy(guest.net);
    event_loop_finish(&guest.loop);
    guest_mem_finish(&guest.mem);
    cr_expect(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD, "a zombie");
}

/* An IPv4 datagram with checksums: 28 bytes in front of its data. */
static uint32_t put_udp(uint8_t *frame, const uint8_t *to, unsigned from_port, unsigned to_port,
                        uint32_t size)
{
    const uint8_t head[] = {0xff,
                            0xff,
                            0xff,
                            0xff,
                            0xff,
                            0xff,
                            0x52,
                            0x54,
                            0,
                            0x12,
                            0x34,
                            0x56,
                            8,
                            0,
                            0x45,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            64,
                            17,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            0,
                            (uint8_t)(from_port >> 8),
                            (uint8_t)from_port,
                            (uint8_t)(to_port >> 8),
                            (uint8_t)to_port,
                            0,
                            0,
                            0,
                            0};
    memcpy(frame, head, sizeof(head));
    memcpy(frame + 30, to, 4);
    frame[16] = (uint8_t)((28 + size) >> 8), frame[17] = (uint8_t)(28 + size);
    frame[38] = (uint8_t)((8 + size) >> 8), frame[39] = (uint8_t)(8 + size);
    uint32_t sum = 0;
    for (unsigned i = 14; i < 34; i += 2)
        sum += (uint32_t)frame[i] << 8 | frame[i + 1];
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~((sum & 0xffff) + (sum >> 16));
    frame[24] = (uint8_t)(sum >> 8), frame[25] = (uint8_t)sum;
    return 42 + size;
}

static bool gets_an_offer(void)
{
    static uint8_t frame[NET_PACKET_MAX];
    uint8_t *dhcp = frame + 42;
    static const uint8_t all[4] = {255, 255, 255, 255};

    memset(frame, 0, sizeof(frame));
    memcpy(dhcp, "\1\1\6\0\x12\x34\x56\x78", 8);
    memcpy(dhcp + 28, "\x52\x54\0\x12\x34\x56", 6);
    memcpy(dhcp + 236, "\x63\x82\x53\x63\x35\1\1\xff", 8); /* discover */
    uint32_t length = put_udp(frame, all, 68, 67, 300);
    if (!net_driver_send(&guest.driver, 0, frame, length))
        return false;
    for (unsigned i = 0; i < 20; i++) {
        int got = net_driver_receive(&guest.driver, 0, frame);
        if (got < 0)
            return false;
        if (got > 282 && frame[23] == 17 && frame[37] == 68 &&
            memmem(dhcp + 240, (size_t)got - 282, "\x35\1\2", 3))
            return true;
    }
    return false;
}

Test(passt, DHCP_gets_an_offer_through_the_rings)
{
    if (!support_has_program("passt"))
        cr_skip_test("passt is not installed");
    for (unsigned deny = 0; deny < 2; deny++) {
        begin(deny);
        cr_expect(gets_an_offer(), "deny %u", deny);
        end();
    }
}

Test(passt, what_is_denied_is_told_and_does_not_leave)
{
    static uint8_t frame[400];
    if (!support_has_program("passt"))
        cr_skip_test("passt is not installed");
    begin(true);
    uint32_t length = put_udp(frame, (const uint8_t *)"\xc0\0\2\1", 4000, 53, 30);
    cr_expect(net_driver_send(&guest.driver, 0, frame, length));
    cr_expect_str_eq(guest.denied, "5 udp 192.0.2.1:53");
    cr_expect_eq(net_drops(guest.net).sent, 1);
    end();
}

/* It dies: the link is down, nothing waits for it, and its last words are told. */
Test(passt, the_end_of_the_process_is_a_link_that_is_down)
{
    static const struct {
        const char *script, *told;
    } rows[] = {{"exit 1", "5: "},
                {"echo one >&2; echo the last line >&2; exit 1", "5: the last line"},
                {"printf 'no end of line' >&2; exit 1", "5: no end of line"},
                {"head -c 300000 /dev/zero >&2; exit 1", "5: "}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        char dir[64];
        support_temp_dir(dir);
        put_in_place(dir, rows[i].script);
        begin(false);
        size_t at = offsetof(struct virtio_net_config, status);
        while (virtio_driver_config(&guest.driver.v, (uint32_t)at, 2) & 1)
            cr_assert(virtio_driver_wait_interrupt(&guest.driver.v));
        cr_expect_str_eq(guest.ended, rows[i].told, "%s", guest.ended);
        end();
        support_remove_dir(dir);
    }
}

/* A port that is taken, or that this user may not have, is told before anything runs. */
Test(passt, a_forwarded_port_that_cannot_be_had_is_named)
{
    for (unsigned udp = 0; udp < 2; udp++) {
        struct sockaddr_in address = {.sin_family = AF_INET,
                                      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t length = sizeof(address);
        int fd = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
        cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
        if (!udp)
            cr_assert_eq(listen(fd, 1), 0);
        getsockname(fd, (struct sockaddr *)&address, &length);
        char forward[40], text[200];
        unsigned port = ntohs(address.sin_port);
        const char *forwards[] = {forward};
        const struct passt_config config = {.index = 3, .forwards = forwards, .forward_count = 1};
        struct net_backend *be;
        struct minivmm_error err;
        snprintf(forward, sizeof(forward), "%s:%u:80", udp ? "udp" : "tcp", port);
        snprintf(text, sizeof(text), "net 3: forward=%s: port %u of 127.0.0.1: %s", forward, port,
                 strerror(EADDRINUSE));
        cr_expect_eq(passt_create(&config, &be, &err), -EADDRINUSE);
        cr_expect_str_eq(err.text, text, "%s", err.text);
        cr_expect_eq(waitpid(-1, NULL, WNOHANG), -1, "no child is left");
        close(fd);
    }
}
