/*
 * minivmm - run one microVM from a program of your own.
 *
 * A VM goes through create -> start -> (stop) -> wait -> destroy. Create reads every file and takes
 * every host resource; start only lets the vCPUs go and returns at once. One thread, the owner,
 * makes these calls; minivmm_stop, minivmm_pause and others that say so may come from any thread,
 * until minivmm_destroy is called, but not from a signal handler. Several VMs may live in one
 * process.
 *
 * The library prints nothing, ends nothing, installs no signal handler and leaves the terminal
 * alone. Its own threads block every signal but those of a fault of their own; SIGRTMIN is the one
 * number they use, among themselves.
 *
 * Errors: 0 or a count on success, a negative errno otherwise, with a text that names the object
 * in a struct minivmm_error.
 */
#ifndef MINIVMM_H
#define MINIVMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define MINIVMM_VERSION "0.1"

/* One line of text without a newline, naming the object and, where there is one, the cure. */
struct minivmm_error {
    char text[400];
};

/* How the guest learns what hardware there is. Exactly one way is used in a boot. */
enum minivmm_platform {
    MINIVMM_PLATFORM_ACPI,    /* ACPI tables, hardware-reduced: every stock kernel */
    MINIVMM_PLATFORM_DTB,     /* a device tree in setup_data: kernels with CONFIG_OF */
    MINIVMM_PLATFORM_CMDLINE, /* an MP table and virtio_mmio.device=: X86_MPPARSE and
                                 VIRTIO_MMIO_CMDLINE_DEVICES */
};

/* How the guest reaches virtio devices. */
enum minivmm_transport {
    MINIVMM_TRANSPORT_MMIO, /* nothing to search for: the fastest start */
    MINIVMM_TRANSPORT_PCI,  /* a request takes one exit instead of three; needs ACPI */
};

#define MINIVMM_CPUS_MAX    254u /* xAPIC ids 0..253; 255 is the broadcast id */
#define MINIVMM_MEMORY_MIN  (1ull << 20)
#define MINIVMM_MEMORY_MAX  (1ull << 42)
#define MINIVMM_TIMEOUT_MAX (7u * 24 * 3600)

#define MINIVMM_DEVICES_MAX    16u /* virtio devices of a VM, all kinds together */
#define MINIVMM_DISK_QUEUES    16u /* queues of a disk, at most */
#define MINIVMM_DISK_SERIAL    20u /* bytes of a serial number, at most */
#define MINIVMM_QUEUE_SIZE_MIN 4u
#define MINIVMM_QUEUE_SIZE_MAX 32768u

/*
 * A disk: virtio-blk in front of a raw image or a block device. The guest sees them in the order
 * given: /dev/vda, /dev/vdb... What is in an image is never looked at. An image is locked while the
 * VM exists: against everybody, or against writers only if this VM does not write it either.
 */
struct minivmm_disk {
    const char *path;
    bool readonly;       /* never written; the guest is told */
    bool direct;         /* round the host's page cache (O_DIRECT) */
    bool ephemeral;      /* what the guest writes is gone with the VM; the image is not changed */
    bool writethrough;   /* each write is on stable storage before the guest hears it is done */
    const char *serial;  /* at most MINIVMM_DISK_SERIAL bytes; NULL: none */
    unsigned queues;     /* up to MINIVMM_DISK_QUEUES; 0: 1 */
    unsigned queue_size; /* requests a queue holds: a power of two; 0: 256 */
};

#define MINIVMM_NET_QUEUES   8u
#define MINIVMM_MTU_MIN      68u
#define MINIVMM_MTU_MAX      65535u
#define MINIVMM_FORWARDS_MAX 16u

/*
 * A network interface: virtio-net. Exactly one of `tap`, `tap_fd`, `user` and `socket` says where
 * its packets go; the guest sees the interfaces in the order given.
 */
struct minivmm_net {
    const char *tap; /* a tap interface of the host, created if there is none and we may */
    int tap_fd;      /* an open tap with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, duplicated; 0: none */
    bool user;       /* passt: the network of this user, without privileges or preparation */
    const char *socket; /* a listening socket that takes frames behind a 32-bit length */

    uint8_t mac[6];   /* all zero: made from the interface's name and this host's machine id */
    unsigned mtu;     /* 0: the interface's own */
    unsigned queues;  /* pairs, up to MINIVMM_NET_QUEUES; 0: 1. Taps only */
    bool vhost;       /* the host's kernel moves the packets. Taps only */
    bool no_offload;  /* whole frames with checksums only. Taps only */
    const char *pcap; /* a file that gets a copy of what passes; not with vhost */
    const char *forwards[MINIVMM_FORWARDS_MAX]; /* user: "tcp:HOSTPORT:GUESTPORT", or udp */
    unsigned forward_count;
    bool deny; /* user: nothing gets out but to the host's own forwards */
};

/* What is behind a guest's character device on the host. */
enum minivmm_char_kind {
    MINIVMM_CHAR_NULL, /* nothing: output is thrown away, input never comes */
    MINIVMM_CHAR_FDS,  /* descriptors of the caller's, duplicated */
    MINIVMM_CHAR_FILE, /* a file, created or emptied, that gets the output */
    MINIVMM_CHAR_UNIX, /* a listening socket, created with mode 0600 and removed at the end */
    MINIVMM_CHAR_PTY,  /* a new pseudo terminal; minivmm_pty says which */
};

/*
 * A slow reader slows the guest: output is buffered up to 64 KiB, and then the guest waits. Where
 * nobody has opened the pseudo terminal or connected to the socket, the last 64 KiB of output are
 * kept for the next one who does. A socket serves one client at a time.
 */
struct minivmm_char {
    enum minivmm_char_kind kind;
    int in, out;      /* FDS: -1 for none */
    bool escape;      /* FDS: Ctrl-A x in the input stops the VM, Ctrl-A Ctrl-A is one Ctrl-A */
    const char *path; /* FILE, UNIX */
};

#define MINIVMM_PORTS_MAX   16u
#define MINIVMM_PORT_NAME   63u /* bytes of a port's name, at most */
#define MINIVMM_STATUS_PORT "org.minivmm.status"

/*
 * A port of virtio-console: /dev/virtio-ports/NAME in the guest, where udev runs. Names are of
 * letters, digits and "._-", and MINIVMM_STATUS_PORT is taken. A guest's program may open it before
 * anybody is there on the host.
 */
struct minivmm_port {
    const char *name;
    struct minivmm_char host;
};

/* Text that the guest has to print: a POSIX extended regular expression. */
struct minivmm_expect {
    const char *pattern;
    unsigned within; /* seconds from the start; 0: any time before the end */
};

/* Something that happened in a VM's life. */
enum minivmm_event_kind {
    MINIVMM_EVENT_STARTED,   /* minivmm_start was called */
    MINIVMM_EVENT_OUTPUT,    /* the guest printed its first byte */
    MINIVMM_EVENT_DRIVER_OK, /* a driver took over device `name` in slot `number` */
    MINIVMM_EVENT_EXPECTED,  /* expectation `number`, from 1, was met; `name` is its expression */
    MINIVMM_EVENT_PANIC,     /* the guest's kernel reported a panic */
    MINIVMM_EVENT_PAUSED,
    MINIVMM_EVENT_RESUMED,
    MINIVMM_EVENT_BALLOON, /* the balloon holds `value` bytes now, `number` MiB are wanted in it;
                              `name` says on whose wish */
    MINIVMM_EVENT_ENDED,   /* the reason for the verdict arose; `name` is its text */
};

struct minivmm_event {
    enum minivmm_event_kind kind;
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    const char *name; /* valid during the call; NULL where the kind has none */
    unsigned number;
    uint64_t value;
};

/*
 * What to run. Plain data: strings and descriptors stay the caller's and need to live only until
 * minivmm_create returns, the serial descriptors until minivmm_destroy.
 */
struct minivmm_config {
    const char *kernel;      /* path of a bzImage or of an ELF vmlinux */
    const char *initrd;      /* path, or NULL for none */
    const char *cmdline;     /* appended to the defaults; NULL for nothing */
    bool no_default_cmdline; /* the guest gets `cmdline` and the platform's own words only */
    unsigned cpus;           /* 1..MINIVMM_CPUS_MAX */
    uint64_t memory;         /* bytes, a multiple of 4096 */
    enum minivmm_platform platform;
    enum minivmm_transport transport;
    bool debug_exit;    /* a 32-bit register at port 0xf4 that ends the VM */
    unsigned timeout;   /* seconds from start until the VM is ended; 0: none */
    int serial_in;      /* what the guest's COM1 receives; -1: nothing */
    int serial_out;     /* where its output goes; -1: nowhere */
    bool serial_escape; /* Ctrl-A x in the input stops the VM, Ctrl-A Ctrl-A is one Ctrl-A */
    const struct minivmm_disk *disks;
    unsigned disk_count;
    const struct minivmm_net *nets;
    unsigned net_count;
    bool rng;                           /* virtio-rng: the host's random numbers */
    const struct minivmm_char *serial;  /* COM1; NULL: what serial_in, _out and _escape say */
    const struct minivmm_char *console; /* hvc0 of the guest, its console then; NULL: none */
    unsigned columns, rows;             /* of the console's terminal; 0: not known */
    const struct minivmm_port *ports;
    unsigned port_count;
    /*
     * A port MINIVMM_STATUS_PORT: a guest that writes a line with a number from 1 to 119 there has
     * failed with that status, however well it then ends; 0 takes it back; anything else counts as
     * 119.
     */
    bool status_port;
    /*
     * virtio-balloon: takes memory the guest does without for as long as the host wants it. A guest
     * with a driver for it also gives back what it frees, by itself.
     */
    bool balloon;
    uint64_t balloon_initial; /* bytes asked for at the start, as minivmm_balloon_set would */
    uint64_t balloon_min;     /* bytes the guest keeps at least; 0: an eighth of its memory */
    bool balloon_auto;        /* the VM sets its target by itself: vmm/balloon_policy.h says how */
    uint64_t balloon_reserve; /* auto: bytes the host should have left; 0: an eighth of it all */
    /*
     * What the guest prints is watched, line by line, without terminal control sequences. A VM that
     * ends in order without all that was expected, in order, has failed; so has one that prints
     * what it must not: kernel panics, BUGs and oopses, unless no_default_fail_on, and fail_on.
     */
    const struct minivmm_expect *expects;
    unsigned expect_count;
    const char *const *fail_on;
    unsigned fail_on_count;
    bool no_default_fail_on;
    const char *until; /* an orderly end once this is printed, after all expectations; or NULL */
    unsigned silence;  /* seconds without output that end the VM; 0: it may be silent */
    /* System.map, a copy of /proc/kallsyms or an ELF vmlinux: names for minivmm_print_autopsy */
    const char *symbols;
    /*
     * Something worth a line happened, "net 0: denied tcp 192.0.2.1:443" say; at most a few a
     * second. Called on a thread of the library's, until minivmm_wait has returned. NULL: not told.
     */
    void (*log)(void *arg, const char *line);
    void *log_arg;
    /*
     * Something happened. Called on any thread, one call at a time, with a lock held: it must not
     * block, nor call the library. No call comes after minivmm_wait has returned. NULL: not told.
     */
    void (*event)(void *arg, const struct minivmm_event *event);
    void *event_arg;
};

/* 1 vCPU, 256 MiB, ACPI, no serial descriptors. */
void minivmm_config_init(struct minivmm_config *config);

/* Why a VM ended. */
enum minivmm_end {
    MINIVMM_END_POWEROFF,     /* the guest powered off in order */
    MINIVMM_END_REBOOT,       /* the guest asked for a reset in order */
    MINIVMM_END_STATUS,       /* the guest reported a status of its own */
    MINIVMM_END_PANIC,        /* the guest's kernel panicked */
    MINIVMM_END_TRIPLE_FAULT, /* a vCPU shut down */
    MINIVMM_END_KVM,          /* KVM refused to run a vCPU */
    MINIVMM_END_TIMEOUT,      /* the deadline of the configuration passed */
    MINIVMM_END_UNTIL,        /* the text that was waited for was printed */
    MINIVMM_END_SILENCE,      /* nothing was printed for too long */
    MINIVMM_END_EXPECTATION,  /* text that was expected did not come, or text that must not did */
    MINIVMM_END_STOPPED,      /* minivmm_stop, or the escape in the serial input */
    MINIVMM_END_ERROR,        /* something on the host failed */
};

/* Exit codes for the command line and for whoever wants the same meaning. */
enum {
    MINIVMM_EXIT_OK = 0,
    MINIVMM_EXIT_STATUS_MAX = 119,
    MINIVMM_EXIT_PANIC = 120,
    MINIVMM_EXIT_FAULT = 121,
    MINIVMM_EXIT_SILENCE = 122,
    MINIVMM_EXIT_EXPECTATION = 123,
    MINIVMM_EXIT_TIMEOUT = 124,
    MINIVMM_EXIT_ERROR = 125,
    MINIVMM_EXIT_SIGNAL = 128, /* + the number of the signal that stopped the VM */
};

struct minivmm_verdict {
    enum minivmm_end end;
    int exit_code;
    uint32_t status; /* MINIVMM_END_STATUS: the 32 bits the guest wrote */
    char text[400];  /* the verdict in words: one line without a newline */
};

/* A write of the guest to port 0x80. */
struct minivmm_post_code {
    uint64_t time_ns; /* CLOCK_MONOTONIC */
    uint8_t code;
};

/* Moments of a VM's life, CLOCK_MONOTONIC in nanoseconds; 0 where it has not come yet. */
struct minivmm_times {
    uint64_t create; /* minivmm_create was entered */
    uint64_t start;  /* minivmm_start was entered: the next thing is the first KVM_RUN */
    uint64_t run; /* a vCPU is about to execute the guest's first instruction, the kernel's own */
    uint64_t end; /* the reason for the verdict arose */
};

struct minivmm;

/*
 * Build a VM: check the configuration, load the kernel, open /dev/kvm, create vCPUs and threads.
 * No guest instruction runs yet. On success *vm is the caller's to destroy; on failure it is NULL.
 */
int minivmm_create(const struct minivmm_config *config, struct minivmm **vm,
                   struct minivmm_error *err);

/* Let the vCPUs run; returns at once. -EALREADY when the VM was started before. */
int minivmm_start(struct minivmm *vm);

/*
 * End the VM from outside with exit code MINIVMM_EXIT_SIGNAL + signal; a VM that has ended keeps
 * its first verdict, but does not wait for the readers of its output any more: if that loses some,
 * what would have been a pass is a stop. `signal` is a signal number that tells who asked, SIGINT
 * for a person.
 */
void minivmm_stop(struct minivmm *vm, int signal);

/*
 * From any thread, once minivmm_start has returned: halt the VM and let it go on. When pause
 * returns, no vCPU runs, every request that a device had taken has completed and nothing touches
 * guest memory; it waits for I/O that is under way. The guest's clocks stand still (but the time of
 * day is the guest's to set right), and so do the timeout, the silence and the deadlines of
 * expectations. A paused VM can be stopped. To pause twice is harmless, and so is to resume what
 * runs. -EINVAL before start, -ESHUTDOWN when the VM has ended, by then or meanwhile.
 */
int minivmm_pause(struct minivmm *vm);
int minivmm_resume(struct minivmm *vm);

/* From any thread. */
enum minivmm_state {
    MINIVMM_STATE_NOT_STARTED,
    MINIVMM_STATE_RUNNING,
    MINIVMM_STATE_PAUSED,
    MINIVMM_STATE_ENDED,
};
enum minivmm_state minivmm_state(struct minivmm *vm);

/*
 * From any thread: press the guest's power button, which it obeys if it has somebody who listens;
 * a paused one finds it pressed. -ENODEV without ACPI, -EINVAL before start, -ESHUTDOWN after the
 * end.
 */
int minivmm_power_button(struct minivmm *vm);

/* What a VM has counted so far. Names are constant strings. */
#define MINIVMM_EXIT_REASONS  16u
#define MINIVMM_DEVICE_QUEUES 17u

struct minivmm_metrics {
    uint64_t uptime_ns; /* from start to now, or to the end */
    unsigned exit_count;
    struct minivmm_exit_metrics {
        const char *name; /* why vCPUs left the guest */
        uint64_t count;
    } exits[MINIVMM_EXIT_REASONS];
    uint64_t serial_lost; /* bytes written while the transmitter was busy */
    unsigned device_count;
    struct minivmm_device_metrics {
        const char *name;    /* the kind: "blk", "net"... */
        uint64_t breaks;     /* how often its driver broke a queue */
        bool has_drops;      /* of a network interface: packets lost */
        uint64_t drops_sent; /* nobody would have them */
        uint64_t drops_received;
        uint64_t drops_filtered; /* not addressed to the guest */
        bool external;           /* the host's kernel serves its packets, and does not count here */
        unsigned queue_count;
        struct minivmm_queue_metrics {
            uint64_t requests, interrupts;
        } queues[MINIVMM_DEVICE_QUEUES];
    } devices[MINIVMM_DEVICES_MAX]; /* in the order of their slots */
    uint64_t denied;                /* frames that were kept in */
};

/* From any thread, at any time. */
void minivmm_metrics(struct minivmm *vm, struct minivmm_metrics *metrics);

/* A descriptor that polls readable once the VM has ended. Owned by the VM. */
int minivmm_end_fd(const struct minivmm *vm);

/*
 * Wait until the VM has ended and nothing of it runs any more; everything its serial port wrote has
 * then gone out, or a verdict that would have been a pass says what did not. A reader that takes
 * nothing for 5 seconds is given up; after a stop or a deadline, one that needs 5 seconds in all.
 * May be called again. -EINVAL before start.
 */
int minivmm_wait(struct minivmm *vm, struct minivmm_verdict *verdict);

/*
 * The terminal of the console has another size now. Only for a VM that was created with a size.
 */
void minivmm_resize(struct minivmm *vm, unsigned columns, unsigned rows);

/* The path of a port's pseudo terminal; "serial" and "console" are ports too. NULL: it has none. */
const char *minivmm_pty(const struct minivmm *vm, const char *port);

/*
 * After minivmm_wait: registers and last exits of the vCPUs, for a person; of the ninth and later
 * ones only where they were. With `symbols`, function names and what may be callers.
 */
void minivmm_print_vcpus(const struct minivmm *vm, FILE *out);

/*
 * After minivmm_wait, for MINIVMM_END_TIMEOUT, SILENCE, TRIPLE_FAULT and KVM: the same, and the
 * state of every virtio device and queue. For the first two all of it is as it was at that moment;
 * the guest has had an NMI then, and up to 10 seconds to print what Linux prints about itself.
 */
void minivmm_print_autopsy(const struct minivmm *vm, FILE *out);

/* After minivmm_wait: how often the vCPUs left the guest, by reason. */
void minivmm_print_exits(const struct minivmm *vm, FILE *out);

/* After minivmm_wait: the first writes to port 0x80, at most `max`; returns how many were stored.
 */
size_t minivmm_post_codes(const struct minivmm *vm, struct minivmm_post_code *codes, size_t max);

/* At any time. */
void minivmm_times(struct minivmm *vm, struct minivmm_times *times);

/*
 * At any time: the last bytes that the guest printed, `size` at most and never more than 16 KiB;
 * returns how many. *total is how many it has printed in all. They are the guest's: any byte.
 */
size_t minivmm_console_tail(struct minivmm *vm, uint8_t *to, size_t size, uint64_t *total);

/* The command line that the guest's kernel finds; valid until minivmm_destroy. */
const char *minivmm_cmdline(const struct minivmm *vm);

/* The kind of the virtio device in a slot, "blk" say; NULL: there is none. Slots have no gaps. */
const char *minivmm_device(const struct minivmm *vm, unsigned slot);

/*
 * The guest's balloon. All figures about the guest are what its driver said last: a guest may say
 * anything, or nothing.
 */
struct minivmm_balloon {
    uint64_t target;       /* bytes the guest is asked to do without, in whole pages */
    uint64_t actual;       /* bytes its driver says it does without */
    bool automatic;        /* the policy sets the target */
    bool has_stats;        /* `stats` holds something: the driver has sent statistics */
    uint64_t stats_age_ns; /* how long ago they came */
    struct minivmm_balloon_stats {
        uint64_t swap_in, swap_out;          /* bytes, since the guest started */
        uint64_t major_faults, minor_faults; /* counts, since the guest started */
        uint64_t free_memory, total_memory;  /* bytes, as in MemFree and MemTotal */
        uint64_t available_memory;           /* bytes to be had without swapping: MemAvailable */
        uint64_t disk_caches;                /* bytes of files in memory */
        uint64_t hugetlb_allocations, hugetlb_failures; /* counts */
        uint64_t oom_kills, alloc_stalls;               /* counts */
        uint64_t async_scans, direct_scans;             /* bytes looked at to be freed */
        uint64_t async_reclaims, direct_reclaims;       /* bytes freed: by kswapd, by who needs */
        uint32_t present; /* 1 << VIRTIO_BALLOON_S_*: which of the above were sent */
    } stats;
};

/*
 * Ask the guest to do without `bytes` of its memory, rounded down to whole pages; 0 gives all back.
 * Returns at once: the guest follows when it can, and minivmm_balloon_get says how far it is. Where
 * the policy is at work it decides anew from here on. Any thread. -ENODEV: the VM has no balloon;
 * -EINVAL: the guest would keep less than the floor, balloon_min or its default.
 */
int minivmm_balloon_set(struct minivmm *vm, uint64_t bytes, struct minivmm_error *err);

/* Any thread. -ENODEV: the VM has no balloon. */
int minivmm_balloon_get(struct minivmm *vm, struct minivmm_balloon *balloon);

/*
 * How often the guest is asked for statistics; 0: never. From the start: every second with
 * balloon_auto, which needs them, never otherwise. Any thread. -ENODEV: the VM has no balloon.
 */
int minivmm_balloon_interval(struct minivmm *vm, unsigned seconds);

/* Stop the VM if it runs, and release everything. NULL is allowed. */
void minivmm_destroy(struct minivmm *vm);

/*
 * Load everything as create would, without KVM and without running anything, and print the memory
 * map, e820, tables, interrupt lines and command line that the guest would see.
 */
int minivmm_explain(const struct minivmm_config *config, FILE *out, struct minivmm_error *err);

#endif
