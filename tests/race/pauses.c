/* VMs that two threads pause and resume, that a third looks at, and that end meanwhile. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tests/race/run.h"

struct meddler {
    struct run run; /* for its random numbers and the VM */
    bool looks;
};

static void *meddle(void *arg)
{
    struct meddler *m = arg;
    struct minivmm_metrics metrics;
    int rc = 0;

    while (m->looks ? minivmm_state(m->run.vm) != MINIVMM_STATE_ENDED : rc == 0) {
        if (m->looks) {
            minivmm_metrics(m->run.vm, &metrics);
        } else {
            rc = minivmm_pause(m->run.vm);
            pause_up_to(&m->run, 300);
            if (rc == 0)
                rc = minivmm_resume(m->run.vm);
        }
        pause_up_to(&m->run, 300);
    }
    if (rc != 0 && rc != -ESHUTDOWN)
        complain(&m->run, "pause or resume: %s", strerror(-rc));
    return NULL;
}

void pause_any_time(struct run *base)
{
    static const struct {
        const char *entry;
        unsigned cpus;
        bool ends;
    } rows[] = {{guest_spin, 4, false}, {guest_floods, 4, false}, {guest_writes, 4, true}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct run run = run_of(base, rows[i].entry, rows[i].cpus), owner = run;
        struct meddler meddlers[3];
        pthread_t threads[3];
        if (!run_create(&run))
            return;
        minivmm_start(run.vm);
        for (unsigned n = 0; n < 3; n++) {
            meddlers[n] = (struct meddler){.run = owner, .looks = n == 2};
            meddlers[n].run.vm = run.vm;
            meddlers[n].run.random[1] = (unsigned short)(owner.random[1] + n);
            if (pthread_create(&threads[n], NULL, meddle, &meddlers[n]) != 0)
                abort();
        }
        pause_up_to(&owner, 20000);
        if (!rows[i].ends)
            minivmm_stop(run.vm, SIGTERM);
        run_wait(&run);
        if (rows[i].ends)
            expect_verdict(&run, MINIVMM_END_POWEROFF, 0);
        else
            expect_verdict(&run, MINIVMM_END_STOPPED, MINIVMM_EXIT_SIGNAL + SIGTERM);
        for (unsigned n = 0; n < 3; n++)
            pthread_join(threads[n], NULL);
        if (rows[i].ends) {
            run_read_all(&run);
            if (run.length != LINES * strlen(LINE))
                complain(&run, "%zu bytes of output", run.length);
        }
        run_finish(&run);
        memcpy(base->random, owner.random, sizeof(base->random));
    }
}
