/* The registers of the serial port: what a driver finds and what interrupts it gets. */
#include <unistd.h>

#include "tests/unit/serial_port.h"

SUITE(serial_registers);

#define IDLE   (UART_LSR_THRE | UART_LSR_TEMT)
#define CABLE  (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)
#define IIR_ID 0x0f

/* Bytes for the receiver without a host: through the loop-back, which then stays on. */
static void loop_back(struct port *port, unsigned count)
{
    out8(port, UART_MCR, UART_MCR_LOOP);
    for (unsigned i = 0; i < count; i++)
        out8(port, UART_TX, (uint8_t)i);
}

Test(serial_registers, have_their_values_after_reset)
{
    static const struct {
        const char *name;
        unsigned reg;
        uint8_t value;
    } rows[] = {
        {"RBR", UART_RX, 0},      {"IER", UART_IER, 0}, {"IIR", UART_IIR, UART_IIR_NO_INT},
        {"LCR", UART_LCR, 0},     {"MCR", UART_MCR, 0}, {"LSR", UART_LSR, IDLE},
        {"MSR", UART_MSR, CABLE}, {"SCR", UART_SCR, 0},
    };
    struct port port;
    port_open(&port, -1, -1, false);
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_expect_eq(in8(&port, rows[i].reg), rows[i].value, "%s", rows[i].name);
    cr_expect_eq(support_take(port.irq), 0);
    port_close(&port);
}

Test(serial_registers, keep_what_is_written_and_no_more)
{
    static const struct {
        const char *name;
        unsigned reg;
        uint8_t mask;
    } rows[] = {
        {"IER", UART_IER, 0x0f}, {"LCR", UART_LCR, 0x7f}, /* without DLAB, which moves others */
        {"MCR", UART_MCR, 0x1f}, {"SCR", UART_SCR, 0xff},
        {"LSR", UART_LSR, 0},    {"MSR", UART_MSR, 0},
    };
    struct port port;
    port_open(&port, -1, -1, false);
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t before = in8(&port, rows[i].reg);
        out8(&port, rows[i].reg, 0x7f);
        uint8_t want = rows[i].mask ? 0x7f & rows[i].mask : before;
        cr_expect_eq(in8(&port, rows[i].reg), want, "%s", rows[i].name);
        out8(&port, rows[i].reg, 0);
        cr_expect_eq(in8(&port, rows[i].reg), rows[i].mask ? 0 : before, "%s", rows[i].name);
    }
    out8(&port, UART_SCR, 0xa5);
    cr_expect_eq(in8(&port, UART_SCR), 0xa5);
    port_close(&port);
}

Test(serial_registers, dlab_puts_the_divisor_over_data_and_ier)
{
    struct port port;
    port_open(&port, -1, -1, false);
    out8(&port, UART_IER, UART_IER_RDI);
    out8(&port, UART_LCR, UART_LCR_DLAB | UART_LCR_WLEN8);
    cr_expect_eq(in8(&port, UART_DLL), 12, "9600 baud");
    cr_expect_eq(in8(&port, UART_DLM), 0);
    out8(&port, UART_DLL, 0x34);
    out8(&port, UART_DLM, 0x12);
    cr_expect_eq(in8(&port, UART_DLL), 0x34);
    cr_expect_eq(in8(&port, UART_DLM), 0x12);
    out8(&port, UART_LCR, UART_LCR_WLEN8);
    cr_expect_eq(in8(&port, UART_IER), UART_IER_RDI, "the divisor is not the IER");
    cr_expect_eq(in8(&port, UART_RX), 0);
    cr_expect_not(port_has_data(&port), "the divisor was not sent");
    port_close(&port);
}

Test(serial_registers, loop_back_brings_bytes_and_modem_lines_back)
{
    static const struct {
        uint8_t output, input;
    } lines[] = {
        {0, 0},
        {UART_MCR_RTS, UART_MSR_CTS},
        {UART_MCR_DTR, UART_MSR_DSR},
        {UART_MCR_OUT1, UART_MSR_RI},
        {UART_MCR_OUT2, UART_MSR_DCD},
    };
    struct port port;
    port_open(&port, -1, -1, false);
    for (size_t i = 0; i < COUNT(lines); i++) {
        out8(&port, UART_MCR, UART_MCR_LOOP | lines[i].output);
        cr_expect_eq(in8(&port, UART_MSR), lines[i].input, "line %zu", i);
    }
    loop_back(&port, 3);
    for (uint8_t i = 0; i < 3; i++) {
        cr_expect(port_has_data(&port));
        cr_expect_eq(in8(&port, UART_RX), i);
    }
    cr_expect_not(port_has_data(&port));
    out8(&port, UART_MCR, 0);
    cr_expect_eq(in8(&port, UART_MSR), CABLE);
    port_close(&port);
}

Test(serial_registers, what_loops_back_does_not_reach_the_host)
{
    struct port port;
    int ends[2];
    char text[4];
    cr_assert_eq(pipe(ends), 0);
    port_open(&port, -1, ends[1], false);
    loop_back(&port, 3);
    out8(&port, UART_MCR, 0);
    cr_assert(port_send(&port, "x\n", 2, 1));
    cr_assert_eq(read(ends[0], text, sizeof(text)), 2);
    cr_expect_eq(text[0], 'x');
    port_close(&port);
    close(ends[0]);
    close(ends[1]);
}

Test(serial_registers, loop_back_overruns_drop_the_newest)
{
    struct port port;
    port_open(&port, -1, -1, false);
    loop_back(&port, SERIAL_RX_SIZE + 10);
    for (unsigned i = 0; i < SERIAL_RX_SIZE; i++)
        cr_expect_eq(in8(&port, UART_RX), (uint8_t)i, "byte %u", i);
    cr_expect_not(port_has_data(&port));
    port_close(&port);
}

Test(serial_registers, iir_tells_received_data_before_an_empty_transmitter)
{
    struct port port;
    port_open(&port, -1, -1, false);
    loop_back(&port, 2);
    out8(&port, UART_IER, UART_IER_RDI | UART_IER_THRI);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_RDI);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_RDI, "reading it acknowledges nothing");
    in8(&port, UART_RX);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_RDI, "there is more");
    in8(&port, UART_RX);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_THRI);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_NO_INT, "reading it was the answer");
    port_close(&port);
}

Test(serial_registers, conditions_that_are_not_enabled_interrupt_nobody)
{
    struct port port;
    port_open(&port, -1, -1, false);
    loop_back(&port, 2);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_NO_INT);
    out8(&port, UART_IER, UART_IER_RLSI | UART_IER_MSI);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_NO_INT);
    cr_expect_eq(support_take(port.irq), 0);
    out8(&port, UART_IER, UART_IER_THRI);
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_THRI, "data is there, not enabled");
    port_close(&port);
}

Test(serial_registers, each_rising_condition_signals_the_line_once)
{
    struct port port;
    port_open(&port, -1, -1, false);
    out8(&port, UART_IER, UART_IER_THRI);
    cr_expect_eq(support_take(port.irq), 1, "enabled while empty");
    out8(&port, UART_IER, UART_IER_THRI);
    out8(&port, UART_TX, 'a');
    cr_expect_eq(support_take(port.irq), 0, "the line is high already");
    in8(&port, UART_LSR);
    in8(&port, UART_MSR);
    in8(&port, UART_SCR);
    cr_expect_eq(support_take(port.irq), 0, "other registers change nothing");
    in8(&port, UART_IIR);
    cr_expect_eq(support_take(port.irq), 0, "it fell");
    out8(&port, UART_TX, 'b');
    cr_expect_eq(support_take(port.irq), 1, "empty again");
    in8(&port, UART_IIR);
    out8(&port, UART_IER, 0);
    out8(&port, UART_IER, UART_IER_THRI);
    cr_expect_eq(support_take(port.irq), 1, "enabled anew");
    in8(&port, UART_IIR);

    out8(&port, UART_IER, UART_IER_RDI);
    loop_back(&port, 3);
    cr_expect_eq(support_take(port.irq), 1, "three bytes, one edge");
    in8(&port, UART_RX);
    in8(&port, UART_RX);
    cr_expect_eq(support_take(port.irq), 0, "still high");
    in8(&port, UART_RX);
    loop_back(&port, 1);
    cr_expect_eq(support_take(port.irq), 1, "data after it was empty");
    port_close(&port);
}

Test(serial_registers, the_fifo_bits_of_iir_follow_fcr)
{
    struct port port;
    port_open(&port, -1, -1, false);
    cr_expect_eq(in8(&port, UART_IIR), UART_IIR_NO_INT);
    out8(&port, UART_FCR, UART_FCR_ENABLE_FIFO);
    cr_expect_eq(in8(&port, UART_IIR), 0xc0 | UART_IIR_NO_INT);
    out8(&port, UART_IER, UART_IER_THRI);
    cr_expect_eq(in8(&port, UART_IIR), 0xc0 | UART_IIR_THRI);
    out8(&port, UART_FCR, 0);
    cr_expect_eq(in8(&port, UART_IIR), UART_IIR_NO_INT);
    port_close(&port);
}

Test(serial_registers, clearing_the_receiver_empties_it_and_drops_the_line)
{
    struct port port;
    port_open(&port, -1, -1, false);
    out8(&port, UART_IER, UART_IER_RDI);
    loop_back(&port, 5);
    cr_expect_eq(support_take(port.irq), 1);
    out8(&port, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_XMIT);
    cr_expect(port_has_data(&port), "the transmitter is not the receiver");
    out8(&port, UART_FCR, UART_FCR_ENABLE_FIFO | UART_FCR_CLEAR_RCVR);
    cr_expect_not(port_has_data(&port));
    cr_expect_eq(in8(&port, UART_IIR) & IIR_ID, UART_IIR_NO_INT);
    loop_back(&port, 1);
    cr_expect_eq(support_take(port.irq), 1, "a new edge");
    cr_expect_eq(in8(&port, UART_RX), 0);
    port_close(&port);
}

Test(serial_registers, wider_accesses_read_ones_and_write_nothing)
{
    static const unsigned sizes[] = {2, 4, 8};
    struct port port;
    port_open(&port, -1, -1, false);
    loop_back(&port, 1);
    out8(&port, UART_SCR, 0x55);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        const unsigned size = sizes[i];
        const uint64_t ones = size == 8 ? UINT64_MAX : (1ull << (8 * size)) - 1;
        for (unsigned reg = 0; reg < 8; reg++) {
            cr_expect_eq(bus_read(&port.bus, 0x3f8 + reg, size), ones, "register %u, %u bytes", reg,
                         size);
            bus_write(&port.bus, 0x3f8 + reg, size, 0);
        }
    }
    cr_expect_eq(in8(&port, UART_SCR), 0x55);
    cr_expect_eq(in8(&port, UART_MCR), UART_MCR_LOOP);
    cr_expect(port_has_data(&port), "nothing was taken");
    port_close(&port);
}
