/* The PCI bus's configuration mechanism, with a function that says what it is asked. */
#include <linux/pci_regs.h>

#include "devices/pci_host.h"
#include "tests/unit/pci_driver.h"
#include "tests/unit/support.h"

SUITE(pci_host);

#define DEVICE 3u

static struct pci_host host;
static struct bus pio;
static unsigned asked, written, resets;

static uint32_t read_function(void *arg, unsigned offset, unsigned size)
{
    (void)arg;
    asked++;
    return offset << 8 | size;
}

static void write_function(void *arg, unsigned offset, unsigned size, uint32_t value)
{
    (void)arg, (void)offset, (void)size;
    written = value;
}

static uint64_t reset_read(void *arg, uint64_t offset, unsigned size)
{
    (void)arg, (void)offset, (void)size;
    return 0x42;
}

static void reset_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    (void)arg, (void)offset, (void)size;
    resets += (unsigned)value;
}

static void begin(void)
{
    static const struct bus_ops reset = {.read = reset_read, .write = reset_write};
    const struct pci_function function = {.read = read_function, .write = write_function};

    pio = (struct bus){0};
    asked = written = resets = 0;
    pci_host_init(&host, &reset, NULL);
    pci_host_add(&host, DEVICE, &function);
    bus_add(&pio, PCI_ADDRESS_PORT, PCI_HOST_PORTS, &pci_host_ops, &host);
}

Test(pci_host, Linux_takes_it_for_configuration_mechanism_1)
{
    begin();
    bus_write(&pio, 0xcfb, 1, 1);
    bus_write(&pio, PCI_ADDRESS_PORT, 4, 0x80000000);
    cr_expect_eq(bus_read(&pio, PCI_ADDRESS_PORT, 4), 0x80000000);
    cr_expect_eq(pci_config_read(&pio, 0, PCI_CLASS_DEVICE, 2), 0x0600, "a host bridge");
    cr_expect_eq(pci_config_read(&pio, 0, PCI_HEADER_TYPE, 1), PCI_HEADER_TYPE_NORMAL);
    cr_expect_neq(pci_config_read(&pio, 0, PCI_VENDOR_ID, 2), UINT16_MAX);
    pci_config_write(&pio, 0, PCI_COMMAND, 4, UINT32_MAX);
    for (unsigned at = 0; at < 256; at += 4)
        pci_config_read(&pio, 0, at, 4);
    cr_expect_eq(pci_config_read(&pio, 0, PCI_COMMAND, 2), 0);
    pci_host_finish(&host);
}

Test(pci_host, accesses_arrive_where_they_are_aimed)
{
    begin();
    for (unsigned size = 1; size <= 4; size *= 2) {
        for (unsigned at = 0; at < 256; at += size) {
            uint32_t all = size == 4 ? UINT32_MAX : (1u << 8 * size) - 1;
            cr_expect_eq(pci_config_read(&pio, DEVICE, at, size), (at << 8 | size) & all);
            pci_config_write(&pio, DEVICE, at, size, 0x12345678);
            cr_expect_eq(written, 0x12345678 & all);
        }
    }
    pci_host_finish(&host);
}

Test(pci_host, nobody_else_answers)
{
    static const struct {
        const char *name;
        uint32_t address, port, size;
    } rows[] = {
        {"another device", 0x80002000, 0xcfc, 4},   {"another function", 0x80001900, 0xcfc, 4},
        {"another bus", 0x80011800, 0xcfc, 4},      {"not enabled", 0x00001800, 0xcfc, 4},
        {"across registers", 0x80001800, 0xcfd, 2}, {"across registers", 0x80001800, 0xcfe, 4},
        {"eight bytes", 0x80001800, 0xcf8, 8},      {"half an address", 0x80001800, 0xcfa, 2},
        {"a byte of it", 0x80001800, 0xcf8, 1},     {"the last bus", 0x80ff1800, 0xcfc, 1},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        begin();
        uint64_t ones = rows[i].size == 8 ? UINT64_MAX : (1ull << 8 * rows[i].size) - 1;
        bus_write(&pio, PCI_ADDRESS_PORT, 4, rows[i].address);
        cr_expect_eq(bus_read(&pio, rows[i].port, rows[i].size), ones, "%s", rows[i].name);
        bus_write(&pio, rows[i].port, rows[i].size, 0x11);
        cr_expect_eq(asked + written, 0, "%s", rows[i].name);
        cr_expect_eq(bus_read(&pio, PCI_ADDRESS_PORT, 4), rows[i].address, "%s", rows[i].name);
        pci_host_finish(&host);
    }
}

Test(pci_host, reset_control_lies_in_between)
{
    begin();
    bus_write(&pio, PCI_ADDRESS_PORT, 4, 0x80001800);
    bus_write(&pio, 0xcf9, 1, 6);
    cr_expect_eq(resets, 6);
    cr_expect_eq(bus_read(&pio, 0xcf9, 1), 0x42);
    cr_expect_eq(bus_read(&pio, PCI_ADDRESS_PORT, 4), 0x80001800);
    bus_write(&pio, PCI_ADDRESS_PORT, 4, 0x800006ff); /* by 4 bytes it is the address */
    cr_expect_eq(resets, 6);
    cr_expect_eq(bus_read(&pio, PCI_ADDRESS_PORT, 4), 0x800006fc);
    pci_host_finish(&host);
}
