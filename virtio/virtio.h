/*
 * A virtio device without its transport: virtio 1.2, sections 2 and 3; linux/virtio_config.h.
 *
 * Everything between a device and its guest is memory, a `kick` eventfd a queue (driver to device)
 * and a `call` eventfd (device to driver). A transport turns register accesses into the calls of
 * the first half of this header; a datapath serves the rings between DRIVER_OK and reset; a device
 * type says what the rings mean.
 *
 * Threads: transports call on vCPU threads, one at a time for a device, with virtio_lock held, but
 * for virtio_kick and the interrupt status, which take no lock. Devices and the local datapath live
 * on the loop's thread and never take that lock, because a vCPU holds it while it waits for them.
 */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include <pthread.h>

#include "virtio/virtq.h"
#include "vmm/event_loop.h"

#define VIRTIO_QUEUES_MAX 64u

struct virtio_dev;

struct virtio_queue {
    struct virtio_dev *dev;
    unsigned index;
    unsigned size_max;          /* 4.2.2: QueueSizeMax */
    struct virtq_config config; /* as the driver sets it up; final once `ready` */
    bool ready;
    struct virtq ring; /* in service while `ready` and the datapath runs; the datapath's then */
    int kick;          /* eventfd: the driver has something */
    /* Eventfd: what an external datapath signals for used buffers. The device's `call`, unless the
     * transport gives the queue one of its own. */
    int call;

    /* The local datapath's. */
    bool served; /* between its start and its stop */
    struct event_source source;
    struct event_deferred signal;
    bool bulk;           /* atomic: local_bulk */
    uint64_t chains;     /* requests completed, for statistics */
    uint64_t interrupts; /* given for this queue */
    uint64_t wakeups;    /* of the loop, by the kick eventfd */
    uint64_t kicks;      /* atomic: notifications that came to virtio_kick */
};

/* Who serves the rings between DRIVER_OK and reset. Called with virtio_lock held. */
struct virtio_datapath {
    /* Serve every ready queue from ring.next_avail on, and look at each once unasked. */
    int (*start)(struct virtio_dev *dev);
    /*
     * When it returns nothing touches guest memory any more, every request that was taken has
     * completed, and ring.next_avail is final.
     */
    void (*stop)(struct virtio_dev *dev);
    /*
     * It interrupts by the queues' `call` alone, and cannot set the used-ring bit of the interrupt
     * status: that is read as always set, unless a transport hears the calls (virtio_called).
     */
    bool external;
};

/* A kind of device. */
struct virtio_type {
    const char *name;
    uint32_t id; /* VIRTIO_ID_* */

    /* On the loop's thread, for the local datapath (local.h). */
    int (*serve)(struct virtio_queue *queue);
    /*
     * On the loop's thread, NULL where there is nothing to do: the local datapath has started, and
     * is about to stop. Then chains that wait for something that may never come are given back with
     * virtq_undo; requests that end by themselves go on, and the stop waits for them.
     */
    void (*started)(struct virtio_dev *dev);
    void (*stopping)(struct virtio_dev *dev);

    /*
     * On a vCPU thread. The driver wrote to configuration space, within its size; NULL where all of
     * it is read-only. The device stores what it allows.
     */
    void (*config_write)(struct virtio_dev *dev, unsigned offset, unsigned size, uint32_t value);
    /* On a vCPU thread: FEATURES_OK is set, and virtio_has tells from now on. */
    void (*negotiated)(struct virtio_dev *dev);
    /* On a vCPU thread, with the datapath stopped: back to what the driver has not changed. */
    void (*reset)(struct virtio_dev *dev);
};

struct virtio_dev {
    const struct virtio_type *type;
    const struct virtio_datapath *datapath;
    void *datapath_arg; /* the datapath's own */
    struct event_loop *loop;
    const struct guest_mem *mem;

    pthread_mutex_t lock;
    uint64_t offered;          /* feature bits */
    uint64_t accepted;         /* what the driver wrote; what counts once FEATURES_OK is set */
    uint8_t status;            /* without NEEDS_RESET */
    bool running;              /* atomic: the datapath is started */
    bool broken;               /* atomic: NEEDS_RESET */
    bool live;                 /* atomic: between DRIVER_OK and reset, held or not */
    unsigned holds;            /* VIRTIO_HOLD_*: why the datapath stands still meanwhile */
    uint32_t interrupt_status; /* atomic: VIRTIO_MMIO_INT_* */
    bool acknowledged;         /* atomic: see virtio_acknowledged */

    pthread_mutex_t config_lock; /* guards what the next four say */
    uint8_t *config;             /* the device's configuration space, little-endian */
    unsigned config_size;
    uint32_t config_generation;
    bool generation_seen; /* by the driver, since it changed */

    struct virtio_queue *queues;
    unsigned queue_count;
    int call; /* eventfd: an interrupt for the driver */
    /*
     * The transport's own way to interrupt, for a queue's used buffers or, NULL, for the rest; in
     * place of `call`. From any thread.
     */
    void (*interrupt)(struct virtio_dev *dev, const struct virtio_queue *queue);
    void *transport;
    uint64_t breaks;             /* how often a driver broke a queue, for statistics */
    unsigned local_first;        /* the local datapath serves the queues from this one on */
    struct event_call *stopping; /* the local datapath's: who waits for its end */

    /* With the lock held: the driver has set DRIVER_OK. NULL: nobody wants to know. */
    void (*driver_ok)(void *arg, const struct virtio_dev *dev);
    void *driver_ok_arg;
};

/* ---- what a device is made of -------------------------------------------------------------- */

/*
 * Set up a device of `queue_count` queues of at most `queue_size` entries each. `features` are the
 * type's own bits; those of the rings are added. `config` is the device's and stays. The local
 * datapath is chosen; another may be put in place before the guest runs. Negative errno.
 */
int virtio_init(struct virtio_dev *dev, const struct virtio_type *type, const struct guest_mem *mem,
                struct event_loop *loop, uint64_t features, unsigned queue_count,
                unsigned queue_size, void *config, unsigned config_size);

/* The datapath is stopped. Harmless on {0}. */
void virtio_finish(struct virtio_dev *dev);

/* From the owner's thread, the vCPUs gone, the loop still running: stop the datapath for good. */
void virtio_shutdown(struct virtio_dev *dev);

/* Who wants a device to stand still. */
#define VIRTIO_HOLD_PAUSE 1u /* the VM is paused */
#define VIRTIO_HOLD_BUS   2u /* it may not master its bus */

/*
 * From any thread that may wait for the loop, without virtio_lock: stop the datapath if it runs,
 * keep it from starting, and let it go on where it was when nobody holds it any more. Its driver
 * notices nothing. Repeated by the same holder it changes nothing.
 */
void virtio_hold(struct virtio_dev *dev, unsigned hold);
void virtio_release(struct virtio_dev *dev, unsigned hold);

/* Has the driver accepted feature `bit`? Constant while the datapath runs. */
static inline bool virtio_has(const struct virtio_dev *dev, unsigned bit)
{
    return dev->accepted >> bit & 1;
}

/*
 * From any thread: configuration space is about to change, or has changed and is told; a reset is
 * before that or behind it. Between the two the caller waits for nothing.
 */
void virtio_config_begin(struct virtio_dev *dev);
void virtio_config_end(struct virtio_dev *dev);

/* From the datapath: interrupt the driver for used buffers. */
void virtio_interrupt(struct virtio_queue *queue);

/* From the datapath: the driver broke a ring. DEVICE_NEEDS_RESET, and tell the driver (2.1.2). */
void virtio_break(struct virtio_dev *dev);

/* ---- for transports ------------------------------------------------------------------------ */

static inline void virtio_lock(struct virtio_dev *dev)
{
    pthread_mutex_lock(&dev->lock);
}

static inline void virtio_unlock(struct virtio_dev *dev)
{
    pthread_mutex_unlock(&dev->lock);
}

uint8_t virtio_status(const struct virtio_dev *dev);

/*
 * A write to the status register (2.1): 0 resets and returns when the device is quiet; an illegal
 * step changes nothing.
 */
void virtio_set_status(struct virtio_dev *dev, uint32_t value);

/* Features in words of 32 bits; word 2 and above are 0 and take nothing (2.2). */
uint32_t virtio_offered(const struct virtio_dev *dev, uint32_t word);
void virtio_accept(struct virtio_dev *dev, uint32_t word, uint32_t value);

/* The queue, or NULL when the device has no such. */
struct virtio_queue *virtio_queue(const struct virtio_dev *dev, uint32_t index);

/* May the driver change this queue's setup now (3.1.1 step 7)? */
bool virtio_queue_open(const struct virtio_queue *queue);

/*
 * Readiness (4.2.2.1). Taking a queue into service checks all that was set up; it stays not ready
 * when that cannot be. Taking it out while the device runs returns when its requests are done.
 */
void virtio_queue_set_ready(struct virtio_queue *queue, bool ready);

/*
 * From any thread: the driver notifies a queue; ignored where that means nothing. True when it
 * would have paid to hand the notification on without coming here.
 */
bool virtio_kick(struct virtio_dev *dev, uint32_t index);

uint32_t virtio_interrupt_status(const struct virtio_dev *dev);
void virtio_acknowledge(struct virtio_dev *dev, uint32_t bits);

/*
 * From now on the driver's acknowledgements of used buffers do not arrive here. Their bit is
 * reported as set for good: a driver that is interrupted looks at its rings, as it must be ready to
 * in any case.
 */
void virtio_acknowledged(struct virtio_dev *dev);

/* From any thread: an external datapath has signalled this queue's call. */
void virtio_called(struct virtio_queue *queue);

/* Configuration space: `size` 1, 2 or 4; past its end it reads 0 and takes nothing. */
uint32_t virtio_config_read(struct virtio_dev *dev, uint64_t offset, unsigned size);
void virtio_config_write(struct virtio_dev *dev, uint64_t offset, unsigned size, uint32_t value);
uint32_t virtio_config_generation(struct virtio_dev *dev);

#endif
