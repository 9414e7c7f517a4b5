#include "devices/ioapic.h"
#include "tests/unit/support.h"

SUITE(ioapic);

/* What the datasheet calls them. */
enum { IOREGSEL = 0x00, IOWIN = 0x10, ID = 0, VERSION = 1, ARBITRATION = 2, TABLE = 0x10 };
#define MASKED (1u << 16)

struct chip {
    struct ioapic ioapic;
    struct bus bus;
    unsigned changes;
    unsigned pin;
    struct ioapic_message message;
};

static void changed(void *arg, unsigned pin, const struct ioapic_message *message)
{
    struct chip *chip = arg;
    chip->changes++;
    chip->pin = pin;
    chip->message = *message;
}

static void chip_init(struct chip *chip)
{
    *chip = (struct chip){0};
    ioapic_init(&chip->ioapic, changed, chip);
    bus_add(&chip->bus, LAYOUT_IOAPIC, LAYOUT_IOAPIC_SIZE, &ioapic_bus_ops, &chip->ioapic);
}

static uint32_t get(struct chip *chip, uint8_t index)
{
    bus_write(&chip->bus, LAYOUT_IOAPIC + IOREGSEL, 4, index);
    return (uint32_t)bus_read(&chip->bus, LAYOUT_IOAPIC + IOWIN, 4);
}

static void set(struct chip *chip, uint8_t index, uint32_t value)
{
    bus_write(&chip->bus, LAYOUT_IOAPIC + IOREGSEL, 4, index);
    bus_write(&chip->bus, LAYOUT_IOAPIC + IOWIN, 4, value);
}

Test(ioapic, resets_to_masked_pins)
{
    struct chip chip;
    chip_init(&chip);
    cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 4), 0);
    cr_expect_eq(get(&chip, ID), 0);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        cr_expect_eq(get(&chip, (uint8_t)(TABLE + 2 * pin)), MASKED, "pin %u", pin);
        cr_expect_eq(get(&chip, (uint8_t)(TABLE + 2 * pin + 1)), 0, "pin %u", pin);
    }
    cr_expect_eq(chip.changes, 0);
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, tells_version_and_number_of_pins)
{
    struct chip chip;
    chip_init(&chip);
    cr_expect_eq(get(&chip, VERSION), 0x00170011u);
    set(&chip, VERSION, 0xffffffff);
    cr_expect_eq(get(&chip, VERSION), 0x00170011u, "it is read-only");
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, keeps_four_bits_of_id)
{
    struct chip chip;
    chip_init(&chip);
    set(&chip, ID, 0xffffffff);
    cr_expect_eq(get(&chip, ID), 0x0f000000u);
    cr_expect_eq(get(&chip, ARBITRATION), 0x0f000000u);
    set(&chip, ARBITRATION, 0);
    cr_expect_eq(get(&chip, ID), 0x0f000000u, "the arbitration id is read-only");
    cr_expect_eq(chip.changes, 0);
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, the_index_is_eight_bits_and_reads_back)
{
    struct chip chip;
    chip_init(&chip);
    bus_write(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 4, 0xabcdef01);
    cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 4), 1);
    cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOWIN, 4), 0x00170011u);
    bus_write(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 1, 0x10);
    cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 1), 0x10);
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, the_halves_of_an_entry_are_separate_and_of_one_pin)
{
    struct chip chip;
    chip_init(&chip);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        set(&chip, (uint8_t)(TABLE + 2 * pin), MASKED | (0x20 + pin));
        set(&chip, (uint8_t)(TABLE + 2 * pin + 1), pin << 24);
    }
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++) {
        cr_expect_eq(get(&chip, (uint8_t)(TABLE + 2 * pin)), MASKED | (0x20 + pin), "pin %u", pin);
        cr_expect_eq(get(&chip, (uint8_t)(TABLE + 2 * pin + 1)), pin << 24, "pin %u", pin);
    }
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, delivery_status_and_remote_irr_are_read_only)
{
    struct chip chip;
    chip_init(&chip);
    set(&chip, TABLE, 0xffffffff);
    cr_expect_eq(get(&chip, TABLE), 0xffffffffu & ~(1u << 12 | 1u << 14));
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, an_entry_becomes_the_message_it_stands_for)
{
    static const struct {
        const char *name;
        uint32_t low, high;
        bool enabled;
        uint64_t address;
        uint32_t data;
    } rows[] = {
        {"fixed to 0, physical", 0x31, 0, true, 0xfee00000, 0x31},
        {"fixed to 5, physical", 0x31, 5u << 24, true, 0xfee05000, 0x31},
        {"fixed, logical", 0x831, 0x81u << 24, true, 0xfee81004, 0x31},
        {"to all", 0x31, 0xffu << 24, true, 0xfeeff000, 0x31},
        {"lowest priority, logical", 0x9fe, 3u << 24, true, 0xfee03004, 0x1fe},
        {"NMI", 0x400, 1u << 24, true, 0xfee01000, 0x400},
        {"INIT", 0x500, 0, true, 0xfee00000, 0x500},
        {"ExtINT", 0x700, 0, true, 0xfee00000, 0x700},
        {"level and low change nothing", 0xa031, 0, true, 0xfee00000, 0x31},
        {"reserved bits change nothing", 0xfffe0031, 0x00ffffff, true, 0xfee00000, 0x31},
        {"masked", MASKED | 0x31, 5u << 24, false, 0, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct chip chip;
        chip_init(&chip);
        set(&chip, TABLE + 2 * 4 + 1, rows[i].high);
        cr_expect_eq(chip.changes, 0, "%s: the pin is still masked", rows[i].name);
        set(&chip, TABLE + 2 * 4, rows[i].low);
        cr_expect_eq(chip.changes, rows[i].enabled ? 1 : 0, "%s", rows[i].name);
        cr_expect_eq(chip.message.enabled, rows[i].enabled, "%s", rows[i].name);
        cr_expect_eq(chip.message.address, rows[i].address, "%s: 0x%llx", rows[i].name,
                     (unsigned long long)chip.message.address);
        cr_expect_eq(chip.message.data, rows[i].data, "%s: 0x%x", rows[i].name, chip.message.data);
        cr_expect_eq(chip.pin, rows[i].enabled ? 4 : 0, "%s", rows[i].name);
        ioapic_finish(&chip.ioapic);
    }
}

Test(ioapic, masking_takes_the_message_away)
{
    struct chip chip;
    chip_init(&chip);
    set(&chip, TABLE + 46, 0x31);
    cr_assert_eq(chip.changes, 1);
    set(&chip, TABLE + 46, MASKED | 0x31);
    cr_assert_eq(chip.changes, 2);
    cr_assert_eq(chip.pin, 23);
    cr_assert_not(chip.message.enabled);
    cr_assert_not(chip.ioapic.messages[23].enabled);
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, a_write_that_changes_no_message_calls_nobody)
{
    struct chip chip;
    chip_init(&chip);
    set(&chip, TABLE, 0x31);
    cr_assert_eq(chip.changes, 1);
    set(&chip, TABLE, 0x31);
    cr_expect_eq(chip.changes, 1, "the same value");
    set(&chip, TABLE, 0xa031);
    cr_expect_eq(chip.changes, 1, "trigger and polarity");
    set(&chip, TABLE + 1, 0x00ffffff);
    cr_expect_eq(chip.changes, 1, "reserved bits");
    set(&chip, TABLE + 1, 1u << 24);
    cr_expect_eq(chip.changes, 2, "another destination");
    set(&chip, TABLE, 0x32);
    cr_expect_eq(chip.changes, 3, "another vector");
    set(&chip, TABLE, 0x832);
    cr_expect_eq(chip.changes, 4, "another destination mode");
    set(&chip, TABLE + 3, 1u << 24);
    cr_expect_eq(chip.changes, 4, "a masked pin");
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, an_index_without_a_register_does_nothing)
{
    struct chip chip;
    chip_init(&chip);
    static const uint8_t indices[] = {3, 4, 0x0f, 0x40, 0x41, 0x7f, 0xfe, 0xff};
    for (size_t i = 0; i < COUNT(indices); i++) {
        cr_expect_eq(get(&chip, indices[i]), UINT32_MAX, "0x%x", indices[i]);
        set(&chip, indices[i], 0x31);
        cr_expect_eq(get(&chip, indices[i]), UINT32_MAX, "0x%x", indices[i]);
    }
    cr_expect_eq(chip.changes, 0);
    for (unsigned pin = 0; pin < IOAPIC_PINS; pin++)
        cr_expect_eq(chip.ioapic.redirection[pin], MASKED, "pin %u", pin);
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, the_window_is_written_in_whole_double_words_only)
{
    static const unsigned sizes[] = {1, 2, 8};
    struct chip chip;
    chip_init(&chip);
    bus_write(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 4, TABLE);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        bus_write(&chip.bus, LAYOUT_IOAPIC + IOWIN, sizes[i], 0x31);
        cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOWIN, 4), MASKED, "size %u", sizes[i]);
    }
    bus_write(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 8, 1);
    cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 4), TABLE, "8 bytes of index");
    cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOWIN, 8), 0, "8 bytes of window");
    cr_expect_eq(chip.changes, 0);
    ioapic_finish(&chip.ioapic);
}

Test(ioapic, the_rest_of_its_page_is_empty)
{
    static const unsigned offsets[] = {0x01, 0x04, 0x0f, 0x11, 0x14, 0x20, 0x40, 0xff8};
    struct chip chip;
    chip_init(&chip);
    bus_write(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 4, TABLE);
    for (size_t i = 0; i < COUNT(offsets); i++) {
        bus_write(&chip.bus, LAYOUT_IOAPIC + offsets[i], 4, 0x31);
        cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + offsets[i], 4), 0, "0x%x", offsets[i]);
    }
    cr_expect_eq(bus_read(&chip.bus, LAYOUT_IOAPIC + IOREGSEL, 4), TABLE);
    cr_expect_eq(chip.changes, 0);
    ioapic_finish(&chip.ioapic);
}
