#include "vmm/guest_status.h"

#include "vmm/minivmm.h"

/* What the line that has begun is worth. */
static unsigned value_of(const struct guest_status *status)
{
    unsigned digits = status->length - status->returned;
    bool good = !status->strange && digits > 0 && status->number <= MINIVMM_EXIT_STATUS_MAX;
    return good ? status->number : MINIVMM_EXIT_STATUS_MAX;
}

static void end_line(struct guest_status *status)
{
    *status = (struct guest_status){.reported = true, .value = value_of(status)};
}

static void take_byte(struct guest_status *status, uint8_t byte)
{
    if (byte == '\n') {
        end_line(status);
        return;
    }
    status->length += status->length < 1000; /* only whether there are any is of interest */
    if (status->returned)
        status->strange = true;
    status->returned = byte == '\r';
    if (byte >= '0' && byte <= '9') {
        if (status->number <= MINIVMM_EXIT_STATUS_MAX)
            status->number = status->number * 10 + (byte - '0');
    } else if (byte != '\r') {
        status->strange = true;
    }
}

void guest_status_feed(struct guest_status *status, const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        take_byte(status, data[i]);
}

int guest_status(const struct guest_status *status)
{
    if (status->length > 0)
        return (int)value_of(status);
    return status->reported ? (int)status->value : 0;
}
