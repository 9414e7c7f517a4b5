/* What an autopsy says: vCPUs with names for addresses, and the queues of the devices. */
#include "vmm/autopsy.h"

#include <errno.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stdlib.h>
#include <string.h>

/* Linux is linked for an address and put a multiple of this behind it (CONFIG_PHYSICAL_ALIGN). */
#define KERNEL_ALIGN 0x200000u

int autopsy_init(struct autopsy *autopsy, unsigned cpus, const char *symbols,
                 struct minivmm_error *err)
{
    autopsy->cpus = cpus;
    autopsy->states = calloc(cpus, sizeof(autopsy->states[0]));
    if (!autopsy->states)
        return error_set(err, -ENOMEM, "vCPUs: out of memory");
    return symbols ? symbols_create(symbols, &autopsy->symbols, err) : 0;
}

void autopsy_finish(struct autopsy *autopsy)
{
    for (unsigned i = 0; autopsy->states && i < autopsy->cpus; i++)
        vcpu_state_finish(&autopsy->states[i]);
    free(autopsy->states);
    free(autopsy->devices);
    symbols_destroy(autopsy->symbols);
    autopsy->states = NULL;
    autopsy->devices = NULL;
    autopsy->symbols = NULL;
}

/* ---- addresses ----------------------------------------------------------------------------- */

/*
 * How far the kernel was moved (KASLR): what the processor knows the addresses of, beside what the
 * file says. The guest may have set it to anything; then names are wrong, and nothing else.
 */
static bool find_shift(const struct symbols *symbols, const struct vcpu_state *state,
                       uint64_t *shift, const char **name)
{
    const struct {
        uint64_t address;
        const char *name;
    } known[] = {{state->syscall_entry, "entry_SYSCALL_64"}, {state->nmi_entry, "asm_exc_nmi"}};

    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        uint64_t linked;
        if (!known[i].address || !symbols_address(symbols, known[i].name, &linked))
            continue;
        *shift = known[i].address - linked;
        *name = known[i].name;
        if (*shift % KERNEL_ALIGN == 0)
            return true;
    }
    return false;
}

/* The first vCPU that knows tells it for all. Returns 0 when none does. */
static uint64_t print_shift(const struct autopsy *autopsy, const struct vcpu_state *states,
                            FILE *out)
{
    for (unsigned i = 0; i < autopsy->cpus; i++) {
        uint64_t shift;
        const char *name;
        if (states[i].known && find_shift(autopsy->symbols, &states[i], &shift, &name)) {
            fprintf(out, "symbols shifted by 0x%llx: vCPU %u has %s there\n",
                    (unsigned long long)shift, i, name);
            return shift;
        }
    }
    fprintf(out, "symbols not shifted: no vCPU shows where the kernel was put\n");
    return 0;
}

static bool print_name(const struct symbols *symbols, uint64_t shift, uint64_t address, FILE *out)
{
    uint64_t offset, size;
    const char *name = symbols ? symbols_find(symbols, address - shift, &offset, &size) : NULL;

    if (name)
        fprintf(out, "%.200s+0x%llx/0x%llx", name, (unsigned long long)offset,
                (unsigned long long)size);
    return name;
}

/* ---- vCPUs --------------------------------------------------------------------------------- */

static void print_place(const struct symbols *symbols, uint64_t shift,
                        const struct vcpu_state *state, FILE *out)
{
    if (!state->known)
        return;
    fprintf(out, "at 0x%llx", (unsigned long long)state->rip);
    if (state->user) {
        fprintf(out, ", in user mode");
    } else if (symbols) {
        fprintf(out, ", ");
        if (!print_name(symbols, shift, state->rip, out))
            fprintf(out, "in no function of the symbols");
    }
}

/*
 * Kernels keep no frame pointers: what lies on the stack and points into a function is perhaps a
 * caller, perhaps long done with.
 */
static void print_stack(const struct symbols *symbols, uint64_t shift,
                        const struct vcpu_state *state, FILE *out)
{
    unsigned printed = 0;

    for (unsigned i = 0; i < state->stack_words && printed < AUTOPSY_CALLS; i++) {
        uint64_t offset, size;
        /* A return address is behind a call; the first byte of a function is a pointer to it. */
        if (!symbols_find(symbols, state->stack[i] - shift, &offset, &size) || offset == 0)
            continue;
        if (printed++ == 0)
            fprintf(out, "  on its stack, perhaps callers:\n");
        fprintf(out, "    ? ");
        print_name(symbols, shift, state->stack[i], out);
        fputc('\n', out);
    }
}

void autopsy_print_vcpus(const struct autopsy *autopsy, const struct vcpu_state *states, FILE *out)
{
    const struct symbols *symbols = autopsy->symbols;
    uint64_t shift = symbols ? print_shift(autopsy, states, out) : 0;

    for (unsigned i = 0; i < autopsy->cpus; i++) {
        const struct vcpu_state *state = &states[i];
        fprintf(out, i < AUTOPSY_FULL ? "vCPU %u:\n  %s " : "vCPU %u: %s ", i, state->activity);
        print_place(symbols, shift, state, out);
        fputc('\n', out);
        if (symbols && state->stack)
            print_stack(symbols, shift, state, out);
        if (state->registers)
            fputs(state->registers, out);
        if (state->log)
            fputs(state->log, out);
    }
}

/* ---- devices ------------------------------------------------------------------------------- */

static void print_status(const struct virtio_dev *dev, FILE *out)
{
    static const struct {
        uint8_t bit;
        const char *name;
    } bits[] = {
        {VIRTIO_CONFIG_S_ACKNOWLEDGE, "ACKNOWLEDGE"}, {VIRTIO_CONFIG_S_DRIVER, "DRIVER"},
        {VIRTIO_CONFIG_S_FEATURES_OK, "FEATURES_OK"}, {VIRTIO_CONFIG_S_DRIVER_OK, "DRIVER_OK"},
        {VIRTIO_CONFIG_S_NEEDS_RESET, "NEEDS_RESET"}, {VIRTIO_CONFIG_S_FAILED, "FAILED"},
    };
    uint8_t status = virtio_status(dev);

    fprintf(out, "status 0x%02x", status);
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        if (status & bits[i].bit)
            fprintf(out, " %s", bits[i].name);
    }
}

/* An index that the guest sees, read once; -1 when it is not in memory. */
static int index_at(const struct guest_mem *mem, uint64_t ring, size_t offset)
{
    const uint16_t *index = ring % 2 == 0 ? guest_mem_at(mem, ring + offset, sizeof(*index)) : NULL;
    return index ? __atomic_load_n(index, __ATOMIC_RELAXED) : -1;
}

static void print_queue(const struct virtio_queue *queue, FILE *out)
{
    const struct virtio_dev *dev = queue->dev;

    fprintf(out, "  queue %u: ", queue->index);
    if (!queue->ready) {
        fprintf(out, "not ready\n");
        return;
    }
    fprintf(out, "%u entries, avail idx %d, used idx %d, ", queue->config.size,
            index_at(dev->mem, queue->config.avail, offsetof(struct vring_avail, idx)),
            index_at(dev->mem, queue->config.used, offsetof(struct vring_used, idx)));
    if (queue->index < dev->local_first) {
        fprintf(out, "served by the host's kernel\n");
        return;
    }
    fprintf(out, "next_avail %u, next_used %u, %u in work%s; %llu kicks, %llu wakeups, ",
            queue->ring.next_avail, queue->ring.next_used, queue->ring.taken_count,
            queue->ring.broken ? ", broken" : "",
            (unsigned long long)__atomic_load_n(&queue->kicks, __ATOMIC_RELAXED),
            (unsigned long long)queue->wakeups);
    fprintf(out, "%llu requests, %llu interrupts\n", (unsigned long long)queue->chains,
            (unsigned long long)queue->interrupts);
}

static void print_device(unsigned slot, struct virtio_dev *dev, FILE *out)
{
    fprintf(out, "slot %u, %s: ", slot, dev->type->name);
    /* A vCPU that waits for this very thread may have the lock. */
    if (pthread_mutex_trylock(&dev->lock) != 0) {
        fprintf(out, "its driver is at its registers\n");
        return;
    }
    print_status(dev, out);
    fputc('\n', out);
    for (unsigned i = 0; i < dev->queue_count; i++)
        print_queue(&dev->queues[i], out);
    pthread_mutex_unlock(&dev->lock);
}

void autopsy_take_devices(struct autopsy *autopsy, const struct slots *slots)
{
    size_t length;

    if (autopsy->devices)
        return;
    FILE *out = open_memstream(&autopsy->devices, &length);
    if (!out)
        return;
    for (unsigned i = 0; i < slots->count; i++)
        print_device(i, slots->devs[i], out);
    if (fclose(out) != 0) {
        free(autopsy->devices);
        autopsy->devices = NULL;
    }
}
