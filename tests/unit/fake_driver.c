#include "tests/unit/fake_driver.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The test is wrong, or the device does what cannot be gone on from. */
__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

static uint64_t page_up(uint64_t gpa)
{
    return (gpa + PAGE - 1) / PAGE * PAGE;
}

struct virtq_config fake_driver_layout(uint64_t gpa, uint32_t size, bool indirect, bool event_idx)
{
    struct virtq_config config = {.size = size, .indirect = indirect, .event_idx = event_idx};
    config.desc = page_up(gpa);
    config.avail = page_up(config.desc + 16ull * size);
    config.used = page_up(config.avail + 6 + 2ull * size);
    return config;
}

/* Of bytes that must lie in RAM; the test is wrong if they do not. */
static void *host(const struct fake_driver *d, uint64_t gpa, uint64_t size)
{
    void *at = guest_mem_at(d->mem, gpa, size);
    if (!at)
        die("the driver has no RAM at 0x%llx", (unsigned long long)gpa);
    return at;
}

static void copy(const struct fake_driver *d, uint64_t gpa, void *out, const void *in, size_t size)
{
    for (size_t done = 0; done < size;) {
        uint64_t run = size - done;
        uint8_t *at = guest_mem_run(d->mem, gpa + done, &run);
        if (!at)
            die("the driver has no RAM at 0x%llx", (unsigned long long)(gpa + done));
        if (in)
            memcpy(at, (const uint8_t *)in + done, run);
        else
            memcpy((uint8_t *)out + done, at, run);
        done += run;
    }
}

void fake_driver_write(const struct fake_driver *d, uint64_t gpa, const void *data, size_t size)
{
    copy(d, gpa, NULL, data, size);
}

void fake_driver_read(const struct fake_driver *d, uint64_t gpa, void *data, size_t size)
{
    copy(d, gpa, data, NULL, size);
}

void fake_driver_init(struct fake_driver *d, const struct guest_mem *mem,
                      const struct virtq_config *config, uint16_t first)
{
    uint32_t size = config->size;

    *d = (struct fake_driver){.mem = mem, .config = *config, .free_count = size};
    d->table = calloc(size, sizeof(d->table[0]));
    d->next_free = calloc(size, sizeof(d->next_free[0]));
    d->chain_length = calloc(size, sizeof(d->chain_length[0]));
    for (uint32_t i = 0; i < size; i++)
        d->next_free[i] = (uint16_t)(i + 1);
    memset(host(d, config->desc, 16ull * size), 0, 16ull * size);
    memset(host(d, config->avail, 6 + 2ull * size), 0, 6 + 2ull * size);
    memset(host(d, config->used, 6 + 8ull * size), 0, 6 + 8ull * size);
    d->offered = d->decided = d->used_seen = first;
    fake_driver_set_avail_idx(d, first);
    fake_driver_set_used_idx(d, first);
}

void fake_driver_finish(struct fake_driver *d)
{
    free(d->table);
    free(d->next_free);
    free(d->chain_length);
    *d = (struct fake_driver){0};
}

void fake_driver_write_desc(struct fake_driver *d, uint16_t index)
{
    fake_driver_write(d, d->config.desc + 16ull * index, &d->table[index], sizeof(d->table[0]));
}

void fake_driver_set_desc(struct fake_driver *d, uint16_t index, struct vring_desc desc)
{
    d->table[index] = desc;
    fake_driver_write_desc(d, index);
}

static uint16_t alloc_desc(struct fake_driver *d)
{
    if (d->free_count == 0)
        die("the driver has no free descriptor");
    uint16_t index = d->free_head;
    d->free_head = d->next_free[index];
    d->free_count--;
    return index;
}

static struct vring_desc desc_of(const struct piece *piece, bool more, uint16_t next)
{
    return (struct vring_desc){
        .addr = piece->gpa,
        .len = piece->len,
        .flags =
            (uint16_t)((piece->write ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0)),
        .next = more ? next : 0,
    };
}

/* `last` is what follows the pieces, or NULL. */
static uint16_t add(struct fake_driver *d, const struct piece *pieces, unsigned count,
                    const struct vring_desc *last)
{
    unsigned total = count + (last != NULL);
    uint16_t head = alloc_desc(d), index = head;

    for (unsigned i = 0; i < total; i++) {
        bool more = i + 1 < total;
        uint16_t next = more ? alloc_desc(d) : 0;
        fake_driver_set_desc(d, index, i < count ? desc_of(&pieces[i], more, next) : *last);
        index = next;
    }
    d->chain_length[head] = (uint16_t)total;
    return head;
}

uint16_t fake_driver_add(struct fake_driver *d, const struct piece *pieces, unsigned count)
{
    return add(d, pieces, count, NULL);
}

uint16_t fake_driver_add_indirect(struct fake_driver *d, const struct piece *pieces, unsigned count,
                                  unsigned direct, uint64_t table_gpa)
{
    for (unsigned i = direct; i < count; i++) {
        struct vring_desc desc = desc_of(&pieces[i], i + 1 < count, (uint16_t)(i - direct + 1));
        fake_driver_write(d, table_gpa + 16ull * (i - direct), &desc, sizeof(desc));
    }
    struct vring_desc last = {
        .addr = table_gpa, .len = 16 * (count - direct), .flags = VRING_DESC_F_INDIRECT};
    return add(d, pieces, direct, &last);
}

/* The words both sides look at while the other may be writing. */
static uint16_t load(const struct fake_driver *d, uint64_t gpa)
{
    return __atomic_load_n((uint16_t *)host(d, gpa, 2), __ATOMIC_ACQUIRE);
}

static void store(const struct fake_driver *d, uint64_t gpa, uint16_t value)
{
    __atomic_store_n((uint16_t *)host(d, gpa, 2), value, __ATOMIC_RELEASE);
}

void fake_driver_offer(struct fake_driver *d, uint16_t head)
{
    store(d, d->config.avail + 4 + 2ull * (d->offered % d->config.size), head);
    d->offered++;
}

void fake_driver_publish(struct fake_driver *d)
{
    fake_driver_set_avail_idx(d, d->offered);
}

uint16_t fake_driver_send(struct fake_driver *d, const struct piece *pieces, unsigned count)
{
    uint16_t head = fake_driver_add(d, pieces, count);
    fake_driver_offer(d, head);
    fake_driver_publish(d);
    return head;
}

bool fake_driver_kick_due(struct fake_driver *d)
{
    uint16_t before = d->decided, now = d->published;

    d->decided = now;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (before == now)
        return false;
    if (!d->config.event_idx)
        return !(fake_driver_used_flags(d) & VRING_USED_F_NO_NOTIFY);
    /* Was the entry with the index in question among the new ones? */
    return (uint16_t)(fake_driver_avail_event(d) - before) < (uint16_t)(now - before);
}

bool fake_driver_take(struct fake_driver *d, struct vring_used_elem *element)
{
    if (fake_driver_used_idx(d) == d->used_seen)
        return false;
    *element = fake_driver_used_element(d, d->used_seen % d->config.size);
    d->used_seen++;
    if (element->id >= d->config.size || d->chain_length[element->id] == 0)
        die("the device gave back %u, which it was not given", element->id);

    unsigned length = d->chain_length[element->id];
    uint16_t index = (uint16_t)element->id;
    d->chain_length[element->id] = 0;
    for (unsigned i = 0; i < length; i++) {
        uint16_t next = d->table[index].next;
        d->next_free[index] = d->free_head;
        d->free_head = index;
        d->free_count++;
        index = next;
    }
    return true;
}

bool fake_driver_sleep(struct fake_driver *d)
{
    if (d->config.event_idx)
        fake_driver_set_used_event(d, d->used_seen);
    else
        fake_driver_set_avail_flags(d, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return fake_driver_used_idx(d) != d->used_seen;
}

void fake_driver_set_avail_idx(struct fake_driver *d, uint16_t idx)
{
    store(d, d->config.avail + offsetof(struct vring_avail, idx), idx);
    d->published = idx;
}

void fake_driver_set_avail_flags(struct fake_driver *d, uint16_t flags)
{
    store(d, d->config.avail + offsetof(struct vring_avail, flags), flags);
}

void fake_driver_set_used_event(struct fake_driver *d, uint16_t event)
{
    store(d, d->config.avail + 4 + 2ull * d->config.size, event);
}

void fake_driver_set_used_idx(struct fake_driver *d, uint16_t idx)
{
    store(d, d->config.used + offsetof(struct vring_used, idx), idx);
}

void fake_driver_set_used_flags(struct fake_driver *d, uint16_t flags)
{
    store(d, d->config.used + offsetof(struct vring_used, flags), flags);
}

uint16_t fake_driver_used_idx(const struct fake_driver *d)
{
    return load(d, d->config.used + offsetof(struct vring_used, idx));
}

uint16_t fake_driver_used_flags(const struct fake_driver *d)
{
    return load(d, d->config.used + offsetof(struct vring_used, flags));
}

uint16_t fake_driver_avail_event(const struct fake_driver *d)
{
    return load(d, d->config.used + 4 + 8ull * d->config.size);
}

struct vring_used_elem fake_driver_used_element(const struct fake_driver *d, unsigned slot)
{
    struct vring_used_elem element;
    fake_driver_read(d, d->config.used + 4 + 8ull * slot, &element, sizeof(element));
    return element;
}
