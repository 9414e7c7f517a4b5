#include <misc/pvpanic.h>

#include "devices/platform_regs.h"
#include "tests/unit/support.h"
#include "vmm/layout.h"

SUITE(platform_regs);

#define NOTHING (-1)

/* All of the registers on one bus, each range at a base of its own. */
enum {
    POWER = 0x1000,
    I8042 = 0x64,
    RESET = 0xcf9,
    NMI = 0x61,
    PANIC = 0x505,
    EXIT = 0xf4,
    POST = 0x80
};

struct board {
    struct bus bus;
    struct platform_regs regs;
    unsigned events;
    int event;
    uint32_t value;
};

static void note(void *arg, enum platform_event event, uint32_t value)
{
    struct board *board = arg;
    board->events++;
    board->event = (int)event;
    board->value = value;
}

static void board_init(struct board *board)
{
    /* Wider than a machine has some of them, so that wide accesses arrive. */
    *board = (struct board){.regs = {.event = note, .arg = board}, .event = NOTHING};
    bus_add(&board->bus, POWER, LAYOUT_POWER_SIZE, &power_ops, &board->regs);
    bus_add(&board->bus, I8042, 2, &i8042_ops, &board->regs);
    bus_add(&board->bus, RESET, 2, &reset_control_ops, &board->regs);
    bus_add(&board->bus, NMI, 1, &nmi_status_ops, &board->regs);
    bus_add(&board->bus, PANIC, 1, &panic_ops, &board->regs);
    bus_add(&board->bus, EXIT, 4, &debug_exit_ops, &board->regs);
    bus_add(&board->bus, POST, 1, &post_ops, &board->regs);
}

Test(platform_regs, a_write_says_one_thing_or_nothing)
{
    static const struct {
        const char *name;
        uint64_t addr;
        unsigned size;
        uint64_t write;
        int event;
        uint32_t value;
    } rows[] = {
        {"S5 with the enable bit", POWER + POWER_SLEEP_CONTROL, 1, 0x34, PLATFORM_POWEROFF, 0},
        {"S5 without it", POWER + POWER_SLEEP_CONTROL, 1, 0x14, NOTHING, 0},
        {"S3", POWER + POWER_SLEEP_CONTROL, 1, 0x2c, NOTHING, 0},
        {"sleep control of zero", POWER + POWER_SLEEP_CONTROL, 1, 0, NOTHING, 0},
        {"S5 as two bytes", POWER + POWER_SLEEP_CONTROL, 2, 0x34, NOTHING, 0},
        {"S5 as four bytes", POWER + POWER_SLEEP_CONTROL, 4, 0x34, NOTHING, 0},
        {"S5 into sleep status", POWER + POWER_SLEEP_STATUS, 1, 0x34, NOTHING, 0},
        {"reset register", POWER + POWER_RESET, 1, 1, PLATFORM_RESET, 0},
        {"reset register, wrong value", POWER + POWER_RESET, 1, 2, NOTHING, 0},
        {"reset register, all ones", POWER + POWER_RESET, 1, 0xff, NOTHING, 0},
        {"reset register as four bytes", POWER + POWER_RESET, 4, 1, NOTHING, 0},
        {"S5 into the reset register", POWER + POWER_RESET, 1, 0x34, NOTHING, 0},
        {"past the power registers", POWER + 3, 1, 1, NOTHING, 0},
        {"the end of their page", POWER + 0xfff, 1, 0x34, NOTHING, 0},
        {"keyboard controller: pulse reset", I8042, 1, 0xfe, PLATFORM_RESET, 0},
        {"keyboard controller: self test", I8042, 1, 0xaa, NOTHING, 0},
        {"keyboard controller: pulse nothing", I8042, 1, 0xff, NOTHING, 0},
        {"keyboard controller: two bytes", I8042, 2, 0xfe, NOTHING, 0},
        {"reset control: warm", RESET, 1, 0x06, PLATFORM_RESET, 0},
        {"reset control: soft", RESET, 1, 0x04, PLATFORM_RESET, 0},
        {"reset control: full", RESET, 1, 0x0e, PLATFORM_RESET, 0},
        {"reset control: only the kind", RESET, 1, 0x02, NOTHING, 0},
        {"reset control: two bytes", RESET, 2, 0x06, NOTHING, 0},
        {"reset control: zero", RESET, 1, 0, NOTHING, 0},
        {"NMI status", NMI, 1, 0xff, NOTHING, 0},
        {"panic", PANIC, 1, PVPANIC_PANICKED, PLATFORM_PANIC, 0},
        {"panic, crash kernel loaded", PANIC, 1, PVPANIC_CRASH_LOADED, PLATFORM_PANIC_LOADED, 0},
        {"both", PANIC, 1, PVPANIC_PANICKED | PVPANIC_CRASH_LOADED, PLATFORM_PANIC, 0},
        {"panic register: zero", PANIC, 1, 0, NOTHING, 0},
        {"panic register: an unknown event", PANIC, 1, 0x80, NOTHING, 0},
        {"debug exit", EXIT, 4, 0x12345678, PLATFORM_DEBUG_EXIT, 0x12345678},
        {"debug exit, one byte", EXIT, 1, 7, PLATFORM_DEBUG_EXIT, 7},
        {"debug exit, two bytes", EXIT, 2, 0xffff, PLATFORM_DEBUG_EXIT, 0xffff},
        {"debug exit, zero", EXIT, 4, 0, PLATFORM_DEBUG_EXIT, 0},
        {"debug exit, second byte", EXIT + 1, 1, 7, NOTHING, 0},
        {"debug exit, second half", EXIT + 2, 2, 7, NOTHING, 0},
        {"debug exit, eight bytes", EXIT, 8, 7, NOTHING, 0},
        {"POST code", POST, 1, 0xab, PLATFORM_POST, 0xab},
        {"POST code of zero", POST, 1, 0, PLATFORM_POST, 0},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct board board;
        board_init(&board);
        bus_write(&board.bus, rows[i].addr, rows[i].size, rows[i].write);
        cr_expect_eq(board.event, rows[i].event, "%s: event %d", rows[i].name, board.event);
        cr_expect_eq(board.events, rows[i].event == NOTHING ? 0 : 1, "%s: %u events", rows[i].name,
                     board.events);
        cr_expect_eq(board.value, rows[i].value, "%s: value 0x%x", rows[i].name, board.value);
    }
}

Test(platform_regs, a_read_has_its_value_and_no_effect)
{
    static const struct {
        const char *name;
        uint64_t addr;
        unsigned size;
        uint64_t value;
    } rows[] = {
        {"sleep control", POWER + POWER_SLEEP_CONTROL, 1, 0},
        {"sleep status", POWER + POWER_SLEEP_STATUS, 1, 0},
        {"reset register", POWER + POWER_RESET, 1, 0},
        {"the whole word", POWER, 8, 0},
        {"keyboard status: all but input full", I8042, 1, 0xfd},
        {"reset control", RESET, 1, 0},
        {"NMI status: the timer's output", NMI, 1, 0x20},
        {"panic: what it understands", PANIC, 1, PVPANIC_PANICKED | PVPANIC_CRASH_LOADED},
        {"debug exit", EXIT, 4, 0},
        {"POST", POST, 1, 0},
    };
    struct board board;
    board_init(&board);
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint64_t value = bus_read(&board.bus, rows[i].addr, rows[i].size);
        cr_expect_eq(value, rows[i].value, "%s: 0x%llx", rows[i].name, (unsigned long long)value);
    }
    cr_expect_eq(board.events, 0);
}

Test(platform_regs, an_io_check_is_the_reason_until_the_guest_clears_it)
{
    struct board board;
    board_init(&board);
    board.regs.io_check = true;
    bus_write(&board.bus, NMI, 1, 0x04); /* clears another error */
    cr_expect_not(board.regs.reason_read);
    cr_expect_eq(bus_read(&board.bus, NMI, 1), 0x60);
    cr_expect(board.regs.reason_read);
    cr_expect_eq(bus_read(&board.bus, NMI, 1), 0x60);
    bus_write(&board.bus, NMI, 1, 0x08);
    cr_expect_eq(bus_read(&board.bus, NMI, 1), 0x20);
    cr_expect_eq(board.events, 0);
}
