#include "devices/serial.h"

#include <linux/serial_reg.h>
#include <sys/eventfd.h>

#include "vmm/clock.h"
#include "vmm/counter.h"

/* Modem lines of a cable that is plugged in: carrier, data set ready, clear to send. */
#define MODEM_PRESENT (UART_MSR_DCD | UART_MSR_DSR | UART_MSR_CTS)

/* What a driver may send when it finds the transmitter empty. */
#define TX_FIFO_SIZE 16u
_Static_assert(TX_FIFO_SIZE <= HOST_STREAM_LOW_ROOM, "the stream tells when there is room again");

/* Bits 6 and 7 of IIR, set while the FIFOs of a 16550A are on; linux/serial_reg.h has no name. */
#define IIR_FIFO_ENABLED 0xc0

/* A guest that has taken no input for so long is deaf. */
#define DEAF_NS NS_PER_SECOND

static unsigned rx_count(const struct serial *serial)
{
    return serial->rx_tail - serial->rx_head;
}

/*
 * Host input is shown once a driver listens: it has the receive interrupt on, or asks for the line
 * status again and again and nothing else. Opening a port clears the receiver, and what was typed
 * or piped before would be lost in it.
 */
#define LISTENING_POLLS 16u

/* The bytes that the guest sees in the receiver. */
static unsigned rx_shown(const struct serial *serial)
{
    bool shown = (serial->ier & UART_IER_RDI) || serial->polls >= LISTENING_POLLS ||
                 (serial->mcr & UART_MCR_LOOP);
    return shown ? rx_count(serial) : 0;
}

static void rx_push(struct serial *serial, uint8_t byte)
{
    if (rx_count(serial) < SERIAL_RX_SIZE)
        serial->rx[serial->rx_tail++ % SERIAL_RX_SIZE] = byte;
}

/* The interrupt condition of the highest priority, as IIR reports it. */
static uint8_t interrupt_id(const struct serial *serial)
{
    if ((serial->ier & UART_IER_RDI) && rx_shown(serial) > 0)
        return UART_IIR_RDI;
    if ((serial->ier & UART_IER_THRI) && serial->thr_event)
        return UART_IIR_THRI;
    return UART_IIR_NO_INT;
}

/* Bring the line up to date; a rising edge is one signal. With the lock held. */
static void update_irq(struct serial *serial)
{
    bool high = interrupt_id(serial) != UART_IIR_NO_INT;
    if (high && !serial->irq_high)
        eventfd_write(serial->irq_fd, 1);
    serial->irq_high = high;
}

static uint8_t modem_status(const struct serial *serial)
{
    if (!(serial->mcr & UART_MCR_LOOP))
        return MODEM_PRESENT;
    /* In loop-back the four outputs come back as the four inputs. */
    return (uint8_t)(((serial->mcr & UART_MCR_RTS) ? UART_MSR_CTS : 0) |
                     ((serial->mcr & UART_MCR_DTR) ? UART_MSR_DSR : 0) |
                     ((serial->mcr & UART_MCR_OUT1) ? UART_MSR_RI : 0) |
                     ((serial->mcr & UART_MCR_OUT2) ? UART_MSR_DCD : 0));
}

static bool transmitter_full(struct serial *serial)
{
    return host_stream_space(&serial->stream) < TX_FIFO_SIZE;
}

/* A byte leaves through the transmitter. With the lock held. */
static void transmit(struct serial *serial, uint8_t byte)
{
    if (serial->mcr & UART_MCR_LOOP) {
        rx_push(serial, byte);
    } else if (host_stream_write(&serial->stream, &byte, 1) == 0) {
        counter_add(&serial->lost, 1);
    } else {
        serial->tx_full = transmitter_full(serial);
        if (serial->events->printed)
            serial->events->printed(serial->events_arg, byte);
    }
    serial->thr_event = !serial->tx_full;
}

static uint8_t read_register(struct serial *serial, uint64_t offset)
{
    bool dlab = serial->lcr & UART_LCR_DLAB;
    uint8_t value;

    switch (offset) {
    case UART_RX:
        if (dlab)
            return serial->dll;
        if (rx_shown(serial) == 0)
            return 0;
        serial->taken_ns = clock_now_ns();
        return serial->rx[serial->rx_head++ % SERIAL_RX_SIZE];
    case UART_IER:
        return dlab ? serial->dlm : serial->ier;
    case UART_IIR:
        value = interrupt_id(serial);
        if (value == UART_IIR_THRI)
            serial->thr_event = false; /* reading it is the acknowledgement */
        return value | ((serial->fcr & UART_FCR_ENABLE_FIFO) ? IIR_FIFO_ENABLED : 0);
    case UART_LCR:
        return serial->lcr;
    case UART_MCR:
        return serial->mcr;
    case UART_LSR:
        return (uint8_t)((rx_shown(serial) > 0 ? UART_LSR_DR : 0) |
                         (serial->tx_full ? 0 : UART_LSR_THRE | UART_LSR_TEMT));
    case UART_MSR:
        return modem_status(serial);
    default:
        return serial->scr;
    }
}

static void write_register(struct serial *serial, uint64_t offset, uint8_t value)
{
    bool dlab = serial->lcr & UART_LCR_DLAB;

    switch (offset) {
    case UART_TX:
        if (dlab)
            serial->dll = value;
        else
            transmit(serial, value);
        break;
    case UART_IER:
        if (dlab) {
            serial->dlm = value;
            break;
        }
        /* Enabling the transmitter interrupt raises it when the transmitter is empty. */
        if ((value & UART_IER_THRI) && !(serial->ier & UART_IER_THRI))
            serial->thr_event = !serial->tx_full;
        serial->ier = value & (UART_IER_RDI | UART_IER_THRI | UART_IER_RLSI | UART_IER_MSI);
        break;
    case UART_FCR:
        serial->fcr = value;
        if (value & UART_FCR_CLEAR_RCVR)
            serial->rx_head += rx_shown(serial);
        break;
    case UART_LCR:
        serial->lcr = value;
        break;
    case UART_MCR:
        serial->mcr =
            value & (UART_MCR_DTR | UART_MCR_RTS | UART_MCR_OUT1 | UART_MCR_OUT2 | UART_MCR_LOOP);
        break;
    case UART_SCR:
        serial->scr = value;
        break;
    default: /* LSR and MSR are for reading */
        break;
    }
}

/*
 * Bring interrupt line and count of polls up to date; returns whether input that had to wait can
 * come now. With the lock held.
 */
static bool after_access(struct serial *serial, uint64_t offset, bool write)
{
    bool poll = !write && offset == UART_LSR;
    bool take = !write && offset == UART_RX;
    if (!poll && !take)
        serial->polls = 0;
    else if (poll && serial->polls < LISTENING_POLLS)
        serial->polls++;
    update_irq(serial);
    bool resume = serial->input_waits && rx_count(serial) == 0;
    serial->input_waits &= !resume;
    return resume;
}

static uint64_t serial_read(void *dev, uint64_t offset, unsigned size)
{
    struct serial *serial = dev;

    if (size != 1)
        return UINT64_MAX; /* the chip sits on an 8-bit bus */
    pthread_mutex_lock(&serial->lock);
    uint8_t value = read_register(serial, offset);
    bool resume = after_access(serial, offset, false);
    pthread_mutex_unlock(&serial->lock);
    if (resume)
        host_stream_resume_input(&serial->stream);
    return value;
}

static void serial_write(void *dev, uint64_t offset, unsigned size, uint64_t value)
{
    struct serial *serial = dev;

    if (size != 1)
        return;
    pthread_mutex_lock(&serial->lock);
    write_register(serial, offset, (uint8_t)value);
    bool resume = after_access(serial, offset, true);
    pthread_mutex_unlock(&serial->lock);
    if (resume)
        host_stream_resume_input(&serial->stream);
}

const struct bus_ops serial_bus_ops = {.read = serial_read, .write = serial_write};

/*
 * One byte of room is kept back for the Ctrl-A that the escape filter may hold. Keys for a guest
 * that has stopped taking them are dropped: the escape among them must be seen.
 */
static size_t stream_room(void *dev)
{
    struct serial *serial = dev;
    pthread_mutex_lock(&serial->lock);
    size_t room = SERIAL_RX_SIZE - rx_count(serial);
    room -= room > 0;
    if (room == 0 && !serial->input_waits) {
        serial->input_waits = true;
        serial->taken_ns = clock_now_ns();
    } else if (room == 0 && serial->escape_on && clock_now_ns() - serial->taken_ns > DEAF_NS) {
        room = SERIAL_RX_SIZE;
    }
    pthread_mutex_unlock(&serial->lock);
    return room;
}

static void stream_input(void *dev, const uint8_t *data, size_t length)
{
    struct serial *serial = dev;
    uint8_t kept[SERIAL_RX_SIZE + 1];
    bool leave = false;

    if (serial->escape_on) {
        length = escape_filter(&serial->escape, data, length, kept, &leave);
        data = kept;
    }
    pthread_mutex_lock(&serial->lock);
    for (size_t i = 0; i < length; i++)
        rx_push(serial, data[i]);
    update_irq(serial);
    pthread_mutex_unlock(&serial->lock);
    if (leave)
        serial->events->leave(serial->events_arg);
}

static void stream_writable(void *dev)
{
    struct serial *serial = dev;
    pthread_mutex_lock(&serial->lock);
    serial->tx_full = transmitter_full(serial); /* a vCPU may have written meanwhile */
    serial->thr_event = !serial->tx_full;
    update_irq(serial);
    pthread_mutex_unlock(&serial->lock);
}

static void stream_failed(void *dev, int error)
{
    struct serial *serial = dev;
    serial->events->failed(serial->events_arg, error);
}

static const struct host_stream_ops stream_ops = {.room = stream_room,
                                                  .input = stream_input,
                                                  .writable = stream_writable,
                                                  .failed = stream_failed};

int serial_init(struct serial *serial, struct event_loop *loop, int in_fd, int out_fd, int irq_fd,
                bool escape, const struct serial_events *events, void *events_arg,
                struct minivmm_error *err)
{
    serial->ier = serial->lcr = serial->mcr = serial->fcr = serial->scr = serial->dlm = 0;
    serial->dll = 12; /* 9600 baud, as firmware leaves it */
    serial->rx_head = serial->rx_tail = 0;
    serial->tx_full = serial->thr_event = serial->irq_high = serial->input_waits = false;
    serial->polls = 0;
    serial->taken_ns = 0;
    serial->irq_fd = irq_fd;
    serial->lost = 0;
    serial->escape_on = escape;
    serial->escape = (struct escape){0};
    serial->events = events;
    serial->events_arg = events_arg;
    int rc =
        host_stream_init(&serial->stream, loop, in_fd, out_fd, &stream_ops, serial, "serial", err);
    if (rc == 0)
        pthread_mutex_init(&serial->lock, NULL);
    return rc;
}

void serial_finish(struct serial *serial)
{
    host_stream_finish(&serial->stream);
    pthread_mutex_destroy(&serial->lock);
}
