#include "boot/devtree.h"

#include <libfdt.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/platform.h"

SUITE(devtree);

/* What the bindings call a rising edge: x86/ce4100.txt. */
#define EDGE_RISING 3

static void *build(unsigned cpus, unsigned slots, uint32_t *size)
{
    struct platform platform;
    struct minivmm_error err;
    void *dtb;
    platform_make(&platform, cpus, slots);
    cr_assert_eq(devtree_build(&platform.config, &dtb, size, &err), 0, "%s", err.text);
    return dtb;
}

static bool has_cells(const void *dtb, int node, const char *name, unsigned count,
                      const uint32_t *want)
{
    int length;
    const fdt32_t *cells = fdt_getprop(dtb, node, name, &length);
    if (!cells || length != (int)(count * sizeof(*cells)))
        return false;
    for (unsigned i = 0; i < count; i++) {
        if (fdt32_to_cpu(cells[i]) != want[i])
            return false;
    }
    return true;
}

#define CELLS(node, name, ...)                                                                     \
    has_cells(dtb, node, name, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t),               \
              (uint32_t[]){__VA_ARGS__})

Test(devtree, is_a_sound_blob_as_long_as_it_says)
{
    for (size_t c = 0; c < COUNT(platform_cpus); c++) {
        for (size_t s = 0; s < COUNT(platform_slots); s++) {
            uint32_t size;
            void *dtb = build(platform_cpus[c], platform_slots[s], &size);
            cr_expect_eq(fdt_check_full(dtb, size), 0, "%u vCPUs, %u slots", platform_cpus[c],
                         platform_slots[s]);
            cr_expect_eq(fdt_totalsize(dtb), size);
            free(dtb);
        }
    }
}

Test(devtree, has_one_node_a_vcpu)
{
    for (size_t c = 0; c < COUNT(platform_cpus); c++) {
        uint32_t size;
        void *dtb = build(platform_cpus[c], 0, &size);
        int cpus = fdt_path_offset(dtb, "/cpus"), node;
        unsigned n = 0;
        cr_assert_geq(cpus, 0);
        fdt_for_each_subnode(node, dtb, cpus)
        {
            cr_expect_str_eq(fdt_getprop(dtb, node, "device_type", NULL), "cpu");
            cr_expect(CELLS(node, "reg", n), "vCPU %u", n);
            n++;
        }
        cr_expect_eq(n, platform_cpus[c]);
        free(dtb);
    }
}

Test(devtree, describes_the_interrupt_controllers)
{
    uint32_t size;
    void *dtb = build(1, 0, &size);
    int lapic = fdt_path_offset(dtb, "/soc/interrupt-controller@fee00000");
    int ioapic = fdt_path_offset(dtb, "/soc/interrupt-controller@fec00000");
    cr_assert(lapic >= 0 && ioapic >= 0);
    cr_expect_eq(fdt_node_check_compatible(dtb, lapic, "intel,ce4100-lapic"), 0);
    cr_expect(CELLS(lapic, "reg", 0xfee00000, 0x1000));
    cr_expect_eq(fdt_node_check_compatible(dtb, ioapic, "intel,ce4100-ioapic"), 0);
    cr_expect(CELLS(ioapic, "reg", 0xfec00000, 0x1000));
    cr_expect(CELLS(ioapic, "#interrupt-cells", 2));
    cr_expect_not_null(fdt_getprop(dtb, ioapic, "interrupt-controller", NULL));
    free(dtb);
}

/* The node behind a property that holds a phandle. */
static int follow(const void *dtb, int node, const char *name)
{
    const fdt32_t *phandle = fdt_getprop(dtb, node, name, NULL);
    return phandle ? fdt_node_offset_by_phandle(dtb, fdt32_to_cpu(*phandle)) : -1;
}

Test(devtree, describes_the_serial_port)
{
    uint32_t size;
    void *dtb = build(1, 0, &size);
    int isa = fdt_path_offset(dtb, "/soc/isa"), com1 = fdt_path_offset(dtb, "/soc/isa/serial@i3f8");
    cr_assert(isa >= 0 && com1 >= 0);
    cr_expect_eq(fdt_address_cells(dtb, isa), 2);
    cr_expect_eq(fdt_size_cells(dtb, isa), 1);
    cr_expect(CELLS(isa, "ranges", 1, 0, 0, 0x10000), "ports keep their numbers");
    cr_expect_eq(fdt_node_check_compatible(dtb, com1, "ns16550a"), 0);
    cr_expect(CELLS(com1, "reg", 1, 0x3f8, 8));
    cr_expect(CELLS(com1, "interrupts", 4, EDGE_RISING));
    cr_expect(CELLS(com1, "clock-frequency", 1843200));
    cr_expect_eq(follow(dtb, com1, "interrupt-parent"),
                 fdt_path_offset(dtb, "/soc/interrupt-controller@fec00000"));
    free(dtb);
}

Test(devtree, describes_power_off_and_reset)
{
    uint32_t size;
    void *dtb = build(1, 0, &size);
    int power = fdt_path_offset(dtb, "/soc/power@d0000000");
    int off = fdt_path_offset(dtb, "/soc/power@d0000000/poweroff");
    int reset = fdt_path_offset(dtb, "/soc/power@d0000000/reboot");
    cr_assert(power >= 0 && off >= 0 && reset >= 0);
    cr_expect_eq(fdt_node_check_compatible(dtb, power, "syscon"), 0);
    cr_expect_eq(fdt_node_check_compatible(dtb, power, "simple-mfd"), 0);
    cr_expect(CELLS(power, "reg", 0xd0000000, 0x1000));
    cr_expect(CELLS(power, "reg-io-width", 1));
    cr_expect_eq(fdt_node_check_compatible(dtb, off, "syscon-poweroff"), 0);
    cr_expect(CELLS(off, "offset", POWER_SLEEP_CONTROL));
    cr_expect(CELLS(off, "value", 0x34));
    cr_expect_eq(fdt_node_check_compatible(dtb, reset, "syscon-reboot"), 0);
    cr_expect(CELLS(reset, "offset", POWER_RESET));
    cr_expect(CELLS(reset, "value", 1));
    cr_expect_eq(follow(dtb, off, "regmap"), power);
    cr_expect_eq(follow(dtb, reset, "regmap"), power);
    free(dtb);
}

Test(devtree, has_one_node_a_virtio_slot)
{
    uint32_t size;
    void *dtb = build(2, LAYOUT_VIRTIO_SLOTS, &size);
    int ioapic = fdt_path_offset(dtb, "/soc/interrupt-controller@fec00000");
    for (unsigned i = 0; i < LAYOUT_VIRTIO_SLOTS; i++) {
        char path[40];
        snprintf(path, sizeof(path), "/soc/virtio_mmio@%x", 0xd0001000 + i * 0x1000);
        int node = fdt_path_offset(dtb, path);
        cr_assert_geq(node, 0, "%s", path);
        cr_expect_eq(fdt_node_check_compatible(dtb, node, "virtio,mmio"), 0, "%s", path);
        cr_expect(CELLS(node, "reg", 0xd0001000 + i * 0x1000, 0x1000), "%s", path);
        cr_expect(CELLS(node, "interrupts", 8 + i, EDGE_RISING), "%s", path);
        cr_expect_eq(follow(dtb, node, "interrupt-parent"), ioapic, "%s", path);
        cr_expect_not_null(fdt_getprop(dtb, node, "dma-coherent", NULL), "%s", path);
    }
    free(dtb);
}

Test(devtree, more_than_it_has_room_for_is_an_error)
{
    static struct platform_fact facts[1000];
    struct boot_config config = {.cpus = 1, .facts = facts, .fact_count = COUNT(facts)};
    struct minivmm_error err;
    void *dtb;
    uint32_t size;
    for (unsigned i = 0; i < COUNT(facts); i++)
        facts[i] = (struct platform_fact){
            .kind = PLATFORM_VIRTIO, .base = 0xd0000000 + i * 0x1000, .len = 0x1000, .irq = 8};
    cr_assert_lt(devtree_build(&config, &dtb, &size, &err), 0);
    cr_assert(support_one_line(&err, "device tree: "), "%s", err.text);
}

Test(devtree, the_device_tree_compiler_has_no_complaint)
{
    if (!support_has_program("dtc"))
        cr_skip_test("dtc is not installed");
    char dir[64];
    support_temp_dir(dir);
    for (size_t s = 0; s < COUNT(platform_slots); s++) {
        uint32_t size;
        char path[80], command[256];
        void *dtb = build(2, platform_slots[s], &size);
        snprintf(path, sizeof(path), "%s/dtb", dir);
        FILE *file = fopen(path, "w");
        cr_assert_eq(fwrite(dtb, 1, size, file), size);
        fclose(file);
        free(dtb);
        snprintf(command, sizeof(command), "dtc -I dtb -O dts -o %s.dts %s", path, path);
        int status;
        char *output = support_run(command, &status);
        cr_expect_eq(status, 0, "%s", output);
        cr_expect_str_eq(output, "", "%s", output);
        free(output);
    }
    support_remove_dir(dir);
}
