/* What happens to a VM on any thread, kept until the main thread comes for it; bounded. */
#ifndef VMM_API_EVENTS_H
#define VMM_API_EVENTS_H

#include <pthread.h>

#include "vmm/minivmm.h"

#define API_EVENTS_KEPT 64u
#define API_EVENT_NAME  400u

struct api_event_copy {
    struct minivmm_event event; /* its name points to the next */
    char name[API_EVENT_NAME];
    unsigned lost; /* events before it that found no room */
};

struct api_events {
    pthread_mutex_t lock;
    int fd; /* eventfd: something is there */
    struct api_event_copy kept[API_EVENTS_KEPT];
    unsigned first, count;
};

int api_events_init(struct api_events *events); /* negative errno */
void api_events_finish(struct api_events *events);

/* From any thread, without waiting. */
void api_events_put(struct api_events *events, const struct minivmm_event *event);

/* The oldest; false when there is none. */
bool api_events_take(struct api_events *events, struct api_event_copy *copy);

#endif
