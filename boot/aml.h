/*
 * Bytes of ACPI tables and of their machine language, AML (ACPI 6.5, chapter 20), written into a
 * buffer of fixed size. What no longer fits is dropped and remembered.
 */
#ifndef BOOT_AML_H
#define BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
    uint8_t *bytes;
    size_t size, capacity;
    bool full;
};

/* Plain little-endian data. */
void aml_bytes(struct aml *aml, const void *data, size_t size);
void aml_number(struct aml *aml, uint64_t value, unsigned size);

/*
 * Open a construct whose length is not known yet; returns what aml_close needs. `name` is a path
 * like "\\_SB" or a segment of 4 characters; contents follow until aml_close.
 */
size_t aml_scope(struct aml *aml, const char *name);
size_t aml_device(struct aml *aml, const char *name);
void aml_close(struct aml *aml, size_t mark);

/* Name (name, "string"), Name (name, integer), Name (name, Package () {...}). */
void aml_name_string(struct aml *aml, const char *name, const char *value);
void aml_name_integer(struct aml *aml, const char *name, uint32_t value);
void aml_name_package(struct aml *aml, const char *name, const uint8_t *values, uint8_t count);

/* Method (name, arguments) { Notify (device, value) }; one after the other when called at once. */
void aml_method_notify(struct aml *aml, const char *name, unsigned arguments, const char *device,
                       uint8_t value);

/* Name (_CRS, ResourceTemplate () {...}): resources follow until aml_close_resources. */
struct aml_resources {
    size_t buffer, start;
};
struct aml_resources aml_resources(struct aml *aml);
void aml_close_resources(struct aml *aml, struct aml_resources resources);
void aml_memory(struct aml *aml, uint32_t base, uint32_t length); /* Memory32Fixed, read-write */
void aml_io(struct aml *aml, uint16_t base, uint8_t length);      /* IO, 16-bit decode */
/* Windows of a bridge: WordBusNumber, WordIO, DWordMemory; fixed, positively decoded. */
void aml_bus_window(struct aml *aml, uint16_t first, uint16_t count);
void aml_io_window(struct aml *aml, uint16_t base, uint16_t length);
void aml_memory_window(struct aml *aml, uint32_t base, uint32_t length);
void aml_interrupt(struct aml *aml, uint32_t line); /* consumer, edge, active high, exclusive */

#endif
