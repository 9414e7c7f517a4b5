#include "vmm/api_events.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>

int api_events_init(struct api_events *events)
{
    pthread_mutex_init(&events->lock, NULL);
    events->first = events->count = 0;
    events->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return events->fd < 0 ? -errno : 0;
}

void api_events_finish(struct api_events *events)
{
    if (events->fd >= 0)
        close(events->fd);
    events->fd = -1;
    pthread_mutex_destroy(&events->lock);
}

void api_events_put(struct api_events *events, const struct minivmm_event *event)
{
    pthread_mutex_lock(&events->lock);
    if (events->count == API_EVENTS_KEPT) {
        /* The oldest makes room: the end of a VM must not be what gets lost. */
        unsigned lost = 1 + events->kept[events->first].lost;
        events->first = (events->first + 1) % API_EVENTS_KEPT;
        events->count--;
        events->kept[events->first].lost += lost;
    }
    struct api_event_copy *copy =
        &events->kept[(events->first + events->count++) % API_EVENTS_KEPT];
    copy->event = *event;
    copy->lost = 0;
    snprintf(copy->name, sizeof(copy->name), "%s", event->name ? event->name : "");
    pthread_mutex_unlock(&events->lock);
    eventfd_write(events->fd, 1);
}

bool api_events_take(struct api_events *events, struct api_event_copy *copy)
{
    pthread_mutex_lock(&events->lock);
    bool some = events->count > 0;
    if (some) {
        *copy = events->kept[events->first];
        events->first = (events->first + 1) % API_EVENTS_KEPT;
        events->count--;
    }
    pthread_mutex_unlock(&events->lock);
    if (some && copy->event.name)
        copy->event.name = copy->name;
    return some;
}
