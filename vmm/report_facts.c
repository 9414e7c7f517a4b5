#include "vmm/report_facts.h"

const struct report_event *report_find(const struct report_facts *facts,
                                       enum minivmm_event_kind kind, unsigned number)
{
    for (unsigned i = 0; i < facts->event_count; i++) {
        const struct report_event *event = &facts->events[i];
        if (event->kind == kind && event->number == number)
            return event;
    }
    return NULL;
}

double report_ms(const struct report_facts *facts, uint64_t time_ns)
{
    int64_t ns = (int64_t)(time_ns - facts->begun);
    return (double)(ns / 1000) / 1000.0;
}

const char *report_end_name(enum minivmm_end end)
{
    static const char *const names[] = {
        [MINIVMM_END_POWEROFF] = "poweroff",
        [MINIVMM_END_REBOOT] = "reboot",
        [MINIVMM_END_STATUS] = "status",
        [MINIVMM_END_PANIC] = "panic",
        [MINIVMM_END_TRIPLE_FAULT] = "triple-fault",
        [MINIVMM_END_KVM] = "kvm",
        [MINIVMM_END_TIMEOUT] = "timeout",
        [MINIVMM_END_UNTIL] = "until",
        [MINIVMM_END_SILENCE] = "silence",
        [MINIVMM_END_EXPECTATION] = "expectation",
        [MINIVMM_END_STOPPED] = "stopped",
        [MINIVMM_END_ERROR] = "error",
    };
    return names[end];
}

void report_timestamp(const struct timespec *time, char text[32])
{
    struct tm utc;
    char seconds[24];

    gmtime_r(&time->tv_sec, &utc);
    strftime(seconds, sizeof(seconds), "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text, 32, "%s.%03uZ", seconds, (unsigned)(time->tv_nsec / 1000000) % 1000);
}
