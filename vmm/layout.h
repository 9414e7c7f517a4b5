/*
 * The machine's memory map, I/O ports and interrupt lines: the one place where they are chosen.
 *
 *  guest-physical memory
 *
 *   0x0000_0000 +----------------------+
 *               | RAM                  |  0x0500 GDT, 0x7000 boot_params, 0x9000 page tables,
 *               |                      |  0x1_0000 setup_data, 0x8_0000 command line
 *   0x0009_8000 +----------------------+
 *               | reserved: MP table   |  only with --platform cmdline
 *   0x000a_0000 |    hole              |  what a PC keeps for VGA and option ROMs
 *   0x000e_0000 |    ACPI tables       |  only with --platform acpi
 *   0x000f_fff0 |    reset vector      |  a few instructions that pull the reset line
 *   0x0010_0000 +----------------------+
 *               | RAM                  |  the kernel where its header wants it (0x0100_0000),
 *               |                      |  the initrd at the end of this RAM
 *   0xc000_0000 +----------------------+  end of low RAM: 3 GiB or the memory's size
 *               | hole for devices     |
 *   0xd000_0000 |    power registers   |  sleep control, sleep status, reset: 1 byte each
 *   0xd000_1000 |    virtio-mmio slots |  4 KiB each, so that a slot can be a page of its own
 *   0xd010_0000 |    PCI devices       |  8 KiB each, with --transport pci in place of the slots
 *   0xfec0_0000 |    IOAPIC            |
 *   0xfee0_0000 |    local APICs       |  in KVM
 *   0xfffb_c000 |    KVM's own pages   |  identity map and TSS, needed on Intel processors
 *   0x1_0000_0000 +--------------------+
 *               | RAM above 3 GiB      |
 *               +----------------------+
 *
 *  I/O ports                                interrupt lines (GSI = IOAPIC pin)
 *   0x061         NMI status                  4        COM1
 *   0x064         keyboard controller         5        power button
 *   0x080         POST codes                  8..23    virtio-mmio slots 0..15
 *   0x0f4         debug exit (on request)    all of them edge-triggered, active high
 *   0x3f8         COM1                        24..295  KVM's own: messages of PCI devices' queues
 *   0x505         panic register
 *   0xcf8..0xcff  PCI configuration, with --transport pci
 *   0xcf9         reset control
 *   0x1000        PCI devices' notifications: 4 ports each
 */
#ifndef VMM_LAYOUT_H
#define VMM_LAYOUT_H

/* Structures for the kernel's entry, all within the first MiB. */
#define LAYOUT_GDT          0x500u
#define LAYOUT_BOOT_PARAMS  0x7000u
#define LAYOUT_PAGE_TABLES  0x9000u  /* 6 pages: PML4, PDPT, 4 page directories */
#define LAYOUT_SETUP_DATA   0x10000u /* up to LAYOUT_CMDLINE */
#define LAYOUT_CMDLINE      0x80000u /* up to LAYOUT_LOW_RESERVED */
#define LAYOUT_LOW_RESERVED 0x98000u /* e820: reserved from here to 1 MiB */
#define LAYOUT_MP_TABLE     0x98000u
#define LAYOUT_MP_TABLE_END 0xa0000u
#define LAYOUT_ACPI         0xe0000u
#define LAYOUT_ACPI_END     0xff000u
#define LAYOUT_RESET_VECTOR 0xffff0u  /* F000:FFF0, where a PC's firmware starts */
#define LAYOUT_HIGH_MEMORY  0x100000u /* 1 MiB: where kernels may start */

/* RAM goes round the hole below 4 GiB. */
#define LAYOUT_LOW_RAM_END 0xc0000000ull
#define LAYOUT_HIGH_RAM    0x100000000ull

/* Devices in memory. */
#define LAYOUT_POWER      0xd0000000u
#define LAYOUT_POWER_SIZE 0x1000u
/*
 * Its registers, one byte each: ACPI 6.5, 4.8.3.7 sleep control and sleep status, 4.8.3.6 reset.
 */
#define POWER_SLEEP_CONTROL 0u
#define POWER_SLEEP_STATUS  1u
#define POWER_RESET         2u
#define POWER_RESET_VALUE   0x01u
#define POWER_SLEEP_TYPE_S5 5u
#define POWER_SLEEP_S5      (POWER_SLEEP_TYPE_S5 << 2 | 1u << 5) /* S5 with the enable bit */
#define LAYOUT_VIRTIO       0xd0001000u
#define LAYOUT_VIRTIO_SIZE  0x1000u
#define LAYOUT_VIRTIO_SLOTS 16u
#define LAYOUT_PCI          0xd0100000u
#define LAYOUT_PCI_SIZE     0x20000u /* 8 KiB for each of LAYOUT_VIRTIO_SLOTS devices */
#define LAYOUT_IOAPIC       0xfec00000u
#define LAYOUT_IOAPIC_SIZE  0x1000u
#define LAYOUT_LAPIC        0xfee00000u
#define LAYOUT_KVM_IDENTITY 0xfffbc000u /* 1 page */
#define LAYOUT_KVM_TSS      0xfffbd000u /* 3 pages */

/* I/O ports. */
#define LAYOUT_PORT_NMI_STATUS 0x61u
#define LAYOUT_PORT_I8042_CMD  0x64u
#define LAYOUT_PORT_POST       0x80u
#define LAYOUT_PORT_DEBUG_EXIT 0xf4u
#define LAYOUT_PORT_COM1       0x3f8u
#define LAYOUT_PORTS_COM1      8u
#define LAYOUT_PORT_PANIC      0x505u
#define LAYOUT_PORT_PCI        0xcf8u
#define LAYOUT_PORTS_PCI       8u
#define LAYOUT_PORT_RESET      0xcf9u
#define LAYOUT_PCI_PORTS       0x1000u
#define LAYOUT_PCI_PORTS_SIZE  0x40u

/* Interrupt lines. */
#define LAYOUT_IRQ_LINES  24u
#define LAYOUT_IRQ_COM1   4u
#define LAYOUT_IRQ_POWER  5u /* the power button, with ACPI */
#define LAYOUT_IRQ_VIRTIO 8u /* of slot 0; one line a slot */

/*
 * Numbers behind the lines, KVM's alone: messages of PCI devices whose datapath is in the host's
 * kernel, one for each of a slot's queues.
 */
#define LAYOUT_IRQ_MESSAGES  LAYOUT_IRQ_LINES
#define LAYOUT_SLOT_MESSAGES 17u /* 8 pairs and a control queue */
#define LAYOUT_IRQS          (LAYOUT_IRQ_MESSAGES + LAYOUT_VIRTIO_SLOTS * LAYOUT_SLOT_MESSAGES)

/*
 * The word at 0040:0072 of a PC's BIOS data area, in which an operating system leaves 0x1234 when
 * it asks for a warm reset. The default command line makes Linux leave it there after a panic only.
 */
#define LAYOUT_RESET_FLAG 0x472u
#define RESET_FLAG_WARM   0x1234u

#endif
