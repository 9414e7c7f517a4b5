#include "boot/aml.h"

#include <assert.h>
#include <string.h>

/* ACPI 6.5, 20.2 and 6.4 */
enum {
    AML_NAME = 0x08,
    AML_BYTE = 0x0a,
    AML_WORD = 0x0b,
    AML_DWORD = 0x0c,
    AML_STRING = 0x0d,
    AML_SCOPE = 0x10,
    AML_BUFFER = 0x11,
    AML_PACKAGE = 0x12,
    AML_METHOD = 0x14,
    AML_EXT = 0x5b,
    AML_NOTIFY = 0x86,
    AML_EXT_DEVICE = 0x82,

    RESOURCE_IO = 0x47,
    RESOURCE_END = 0x79,
    RESOURCE_MEMORY32_FIXED = 0x86,
    RESOURCE_ADDRESS_DWORD = 0x87,
    RESOURCE_ADDRESS_WORD = 0x88,
    RESOURCE_INTERRUPT = 0x89,
};

#define LENGTH_SIZE      2u /* PkgLength in its two-byte form: up to 4095 */
#define BUFFER_SIZE_SIZE 3u /* a word with its prefix */

#define METHOD_SERIALIZED  (1u << 3) /* 20.2.5.2; the arguments' number below */
#define IO_DECODE16        0x01
#define MEMORY_WRITABLE    0x01
#define INTERRUPT_CONSUMER 0x01
#define INTERRUPT_EDGE     0x02

void aml_bytes(struct aml *aml, const void *data, size_t size)
{
    if (size > aml->capacity - aml->size) {
        aml->full = true;
        return;
    }
    memcpy(aml->bytes + aml->size, data, size);
    aml->size += size;
}

void aml_number(struct aml *aml, uint64_t value, unsigned size)
{
    aml_bytes(aml, &value, size);
}

static void put_name(struct aml *aml, const char *name)
{
    if (*name == '\\')
        aml_bytes(aml, name++, 1);
    assert(strlen(name) == 4);
    aml_bytes(aml, name, 4);
}

static size_t open_length(struct aml *aml)
{
    size_t mark = aml->size;
    aml_number(aml, 0, LENGTH_SIZE);
    return mark;
}

void aml_close(struct aml *aml, size_t mark)
{
    if (aml->full)
        return;
    size_t length = aml->size - mark; /* counts the length field itself */
    assert(length < 1u << 12);
    aml->bytes[mark] = (uint8_t)(1u << 6 | (length & 0x0f)); /* one more byte follows */
    aml->bytes[mark + 1] = (uint8_t)(length >> 4);
}

size_t aml_scope(struct aml *aml, const char *name)
{
    aml_number(aml, AML_SCOPE, 1);
    size_t mark = open_length(aml);
    put_name(aml, name);
    return mark;
}

size_t aml_device(struct aml *aml, const char *name)
{
    aml_number(aml, AML_EXT, 1);
    aml_number(aml, AML_EXT_DEVICE, 1);
    size_t mark = open_length(aml);
    put_name(aml, name);
    return mark;
}

static void put_name_op(struct aml *aml, const char *name)
{
    aml_number(aml, AML_NAME, 1);
    put_name(aml, name);
}

static void put_integer(struct aml *aml, uint32_t value)
{
    if (value <= 1) { /* ZeroOp and OneOp are their own values */
        aml_number(aml, value, 1);
    } else if (value <= UINT8_MAX) {
        aml_number(aml, AML_BYTE, 1);
        aml_number(aml, value, 1);
    } else if (value <= UINT16_MAX) {
        aml_number(aml, AML_WORD, 1);
        aml_number(aml, value, 2);
    } else {
        aml_number(aml, AML_DWORD, 1);
        aml_number(aml, value, 4);
    }
}

void aml_name_string(struct aml *aml, const char *name, const char *value)
{
    put_name_op(aml, name);
    aml_number(aml, AML_STRING, 1);
    aml_bytes(aml, value, strlen(value) + 1);
}

void aml_name_integer(struct aml *aml, const char *name, uint32_t value)
{
    put_name_op(aml, name);
    put_integer(aml, value);
}

void aml_name_package(struct aml *aml, const char *name, const uint8_t *values, uint8_t count)
{
    put_name_op(aml, name);
    aml_number(aml, AML_PACKAGE, 1);
    size_t mark = open_length(aml);
    aml_number(aml, count, 1);
    for (uint8_t i = 0; i < count; i++)
        put_integer(aml, values[i]);
    aml_close(aml, mark);
}

void aml_method_notify(struct aml *aml, const char *name, unsigned arguments, const char *device,
                       uint8_t value)
{
    aml_number(aml, AML_METHOD, 1);
    size_t mark = open_length(aml);
    put_name(aml, name);
    aml_number(aml, arguments | METHOD_SERIALIZED, 1);
    aml_number(aml, AML_NOTIFY, 1);
    put_name(aml, device);
    put_integer(aml, value);
    aml_close(aml, mark);
}

struct aml_resources aml_resources(struct aml *aml)
{
    struct aml_resources resources;
    put_name_op(aml, "_CRS");
    aml_number(aml, AML_BUFFER, 1);
    resources.buffer = open_length(aml);
    aml_number(aml, AML_WORD, BUFFER_SIZE_SIZE); /* the size is patched in at the end */
    resources.start = aml->size;
    return resources;
}

void aml_close_resources(struct aml *aml, struct aml_resources resources)
{
    aml_number(aml, RESOURCE_END, 2); /* a checksum of 0 counts as right */
    if (aml->full)
        return;
    uint16_t size = (uint16_t)(aml->size - resources.start);
    memcpy(aml->bytes + resources.start - sizeof(size), &size, sizeof(size));
    aml_close(aml, resources.buffer);
}

void aml_memory(struct aml *aml, uint32_t base, uint32_t length)
{
    aml_number(aml, RESOURCE_MEMORY32_FIXED, 1);
    aml_number(aml, 9, 2);
    aml_number(aml, MEMORY_WRITABLE, 1);
    aml_number(aml, base, 4);
    aml_number(aml, length, 4);
}

void aml_io(struct aml *aml, uint16_t base, uint8_t length)
{
    aml_number(aml, RESOURCE_IO, 1);
    aml_number(aml, IO_DECODE16, 1);
    aml_number(aml, base, 2); /* lowest base */
    aml_number(aml, base, 2); /* highest base */
    aml_number(aml, 1, 1);    /* alignment */
    aml_number(aml, length, 1);
}

/* 6.4.3.5: a range that a bridge hands on; its numbers have `size` bytes. */
static void put_window(struct aml *aml, unsigned type, unsigned flags, uint32_t base,
                       uint32_t length, unsigned size)
{
    const unsigned fixed = 0x0c; /* neither end moves */
    aml_number(aml, size == 2 ? RESOURCE_ADDRESS_WORD : RESOURCE_ADDRESS_DWORD, 1);
    aml_number(aml, 3 + 5 * size, 2);
    aml_number(aml, type, 1);
    aml_number(aml, fixed, 1);
    aml_number(aml, flags, 1);
    aml_number(aml, 0, size); /* granularity */
    aml_number(aml, base, size);
    aml_number(aml, base + length - 1, size);
    aml_number(aml, 0, size); /* no translation */
    aml_number(aml, length, size);
}

void aml_memory_window(struct aml *aml, uint32_t base, uint32_t length)
{
    put_window(aml, 0, MEMORY_WRITABLE, base, length, 4);
}

void aml_io_window(struct aml *aml, uint16_t base, uint16_t length)
{
    const unsigned entire_range = 3;
    put_window(aml, 1, entire_range, base, length, 2);
}

void aml_bus_window(struct aml *aml, uint16_t first, uint16_t count)
{
    put_window(aml, 2, 0, first, count, 2);
}

void aml_interrupt(struct aml *aml, uint32_t line)
{
    aml_number(aml, RESOURCE_INTERRUPT, 1);
    aml_number(aml, 6, 2);
    aml_number(aml, INTERRUPT_CONSUMER | INTERRUPT_EDGE, 1);
    aml_number(aml, 1, 1); /* one interrupt */
    aml_number(aml, line, 4);
}
