#include "devices/pci_host.h"

#include <assert.h>
#include <linux/pci_regs.h>
#include <string.h>

#define PORT_RESET 1u /* 0xcf9 */
#define PORT_DATA  4u /* 0xcfc */

#define ADDRESS_ENABLE   0x80000000u
#define ADDRESS_BITS     0x80fffffcu
#define ADDRESS_BUS      0x00ff0000u
#define ADDRESS_FUNCTION 0x00000700u

/* A generic host bridge, which no driver binds to and no quirk of Linux knows. */
#define BRIDGE_VENDOR 0x1b36u
#define BRIDGE_DEVICE 0x0008u
#define BRIDGE_CLASS  0x0600u /* PCI Code and ID Assignment 1.11, 1.7 */

static uint32_t read_bridge(void *arg, unsigned offset, unsigned size)
{
    uint8_t config[PCI_STD_HEADER_SIZEOF] = {0};
    const uint16_t words[] = {BRIDGE_VENDOR, BRIDGE_DEVICE}, class_code = BRIDGE_CLASS;
    uint32_t value = 0;

    (void)arg;
    memcpy(config + PCI_VENDOR_ID, words, sizeof(words));
    memcpy(config + PCI_CLASS_DEVICE, &class_code, sizeof(class_code));
    if (offset < sizeof(config))
        memcpy(&value, config + offset, size);
    return value;
}

static void write_bridge(void *arg, unsigned offset, unsigned size, uint32_t value)
{
    (void)arg, (void)offset, (void)size, (void)value;
}

void pci_host_init(struct pci_host *host, const struct bus_ops *reset, void *reset_dev)
{
    *host = (struct pci_host){
        .lock = PTHREAD_MUTEX_INITIALIZER, .reset = reset, .reset_dev = reset_dev};
    host->functions[0] = (struct pci_function){.read = read_bridge, .write = write_bridge};
}

void pci_host_finish(struct pci_host *host)
{
    if (host->reset)
        pthread_mutex_destroy(&host->lock);
    host->reset = NULL;
}

void pci_host_add(struct pci_host *host, unsigned device, const struct pci_function *function)
{
    assert(device > 0 && device < PCI_HOST_DEVICES && !host->functions[device].read);
    host->functions[device] = *function;
}

/*
 * The function that the address selects, and where in it; NULL: nobody answers. The lock is not
 * held while a function answers, which may take it long: others are to be reached meanwhile.
 */
static const struct pci_function *select_function(struct pci_host *host, unsigned *offset)
{
    pthread_mutex_lock(&host->lock);
    uint32_t address = host->address;
    pthread_mutex_unlock(&host->lock);
    const struct pci_function *function = &host->functions[address >> 11 & 31];

    *offset = address & 0xfc;
    if (!(address & ADDRESS_ENABLE) || (address & (ADDRESS_BUS | ADDRESS_FUNCTION)))
        return NULL;
    return function->read ? function : NULL;
}

/* A window access may be anything that is aligned and stays within its four ports. */
static bool is_data(uint64_t offset, unsigned size)
{
    return offset >= PORT_DATA && size <= 4 && offset % size == 0;
}

static uint64_t host_read(void *arg, uint64_t offset, unsigned size)
{
    struct pci_host *host = arg;
    uint64_t value = UINT64_MAX;
    unsigned at;

    if (offset == PORT_RESET && size == 1)
        return host->reset->read(host->reset_dev, 0, 1);
    if (offset == 0 && size == 4) {
        pthread_mutex_lock(&host->lock);
        value = host->address;
        pthread_mutex_unlock(&host->lock);
    } else if (is_data(offset, size)) {
        const struct pci_function *function = select_function(host, &at);
        if (function)
            value = function->read(function->arg, at | (offset & 3), size);
    }
    return value;
}

static void host_write(void *arg, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_host *host = arg;
    unsigned at;

    if (offset == PORT_RESET && size == 1) {
        host->reset->write(host->reset_dev, 0, 1, value);
    } else if (offset == 0 && size == 4) {
        pthread_mutex_lock(&host->lock);
        host->address = (uint32_t)value & ADDRESS_BITS;
        pthread_mutex_unlock(&host->lock);
    } else if (is_data(offset, size)) {
        const struct pci_function *function = select_function(host, &at);
        if (function)
            function->write(function->arg, at | (offset & 3), size, (uint32_t)value);
    }
}

const struct bus_ops pci_host_ops = {.read = host_read, .write = host_write};
