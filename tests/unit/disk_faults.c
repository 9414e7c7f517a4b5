#include "tests/unit/disk_faults.h"

#include <errno.h>
#include <libaio.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/unit/support.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t replaced = PTHREAD_COND_INITIALIZER;
static unsigned generation; /* of faults */
static struct fault armed[FAULTS_MAX];
static unsigned hits[FAULTS_MAX], calls[CALLS], durable;

void faults_set(const struct fault *faults, size_t count)
{
    pthread_mutex_lock(&lock);
    memset(armed, 0, sizeof(armed));
    memset(hits, 0, sizeof(hits));
    memset(calls, 0, sizeof(calls));
    durable = 0;
    for (size_t i = 0; i < count && i < FAULTS_MAX; i++)
        armed[i] = faults[i];
    generation++;
    pthread_cond_broadcast(&replaced);
    pthread_mutex_unlock(&lock);
}

unsigned faults_calls(enum call call)
{
    pthread_mutex_lock(&lock);
    unsigned n = calls[call];
    pthread_mutex_unlock(&lock);
    return n;
}

unsigned faults_durable(void)
{
    pthread_mutex_lock(&lock);
    unsigned n = durable;
    pthread_mutex_unlock(&lock);
    return n;
}

struct awaited {
    enum call call;
    unsigned times;
};

static bool has_come(void *arg)
{
    const struct awaited *awaited = arg;
    return faults_calls(awaited->call) >= awaited->times;
}

bool faults_await(enum call call, unsigned times)
{
    struct awaited awaited = {call, times};
    return support_wait(has_come, &awaited);
}

/* The fault that hits this call, if one does; has slept, or been held, then. */
static struct fault hit(enum call call)
{
    struct fault fault = {0};
    pthread_mutex_lock(&lock);
    calls[call]++;
    for (unsigned i = 0; i < FAULTS_MAX && !fault.times; i++) {
        if (!armed[i].times || armed[i].call != call)
            continue;
        unsigned n = hits[i]++;
        if (n >= armed[i].skip && n - armed[i].skip < armed[i].times)
            fault = armed[i];
    }
    for (unsigned mine = generation; fault.held && mine == generation;)
        pthread_cond_wait(&replaced, &lock);
    pthread_mutex_unlock(&lock);
    if (fault.sleep_ms)
        usleep(fault.sleep_ms * 1000);
    return fault;
}

static bool fails(const struct fault *fault)
{
    if (fault->error)
        errno = fault->error;
    return fault->error != 0;
}

/* No more than `limit` bytes of `iov`, in `cut`. */
static int cut_iov(struct iovec *cut, const struct iovec *iov, int count, size_t limit)
{
    int n = 0;
    for (; n < count && n < 1024 && limit > 0; n++) {
        cut[n] = iov[n];
        if (cut[n].iov_len > limit)
            cut[n].iov_len = limit;
        limit -= cut[n].iov_len;
    }
    return n;
}

#define WRAP_TRANSFER(name, id)                                                                    \
    ssize_t __real_##name(int fd, const struct iovec *iov, int count, off_t offset);               \
    ssize_t __wrap_##name(int fd, const struct iovec *iov, int count, off_t offset);               \
    ssize_t __wrap_##name(int fd, const struct iovec *iov, int count, off_t offset)                \
    {                                                                                              \
        struct iovec cut[1024];                                                                    \
        struct fault fault = hit(id);                                                              \
        if (fails(&fault))                                                                         \
            return -1;                                                                             \
        if (!fault.limit)                                                                          \
            return __real_##name(fd, iov, count, offset);                                          \
        return __real_##name(fd, cut, cut_iov(cut, iov, count, fault.limit), offset);              \
    }

WRAP_TRANSFER(preadv, CALL_PREADV)
WRAP_TRANSFER(pwritev, CALL_PWRITEV)

#define WRAP_TRANSFER2(name, id)                                                                   \
    ssize_t __real_##name(int fd, const struct iovec *iov, int count, off_t offset, int flags);    \
    ssize_t __wrap_##name(int fd, const struct iovec *iov, int count, off_t offset, int flags);    \
    ssize_t __wrap_##name(int fd, const struct iovec *iov, int count, off_t offset, int flags)     \
    {                                                                                              \
        struct iovec cut[1024];                                                                    \
        struct fault fault = hit(id);                                                              \
        if (fails(&fault))                                                                         \
            return -1;                                                                             \
        if (!fault.limit)                                                                          \
            return __real_##name(fd, iov, count, offset, flags);                                   \
        return __real_##name(fd, cut, cut_iov(cut, iov, count, fault.limit), offset, flags);       \
    }

WRAP_TRANSFER2(preadv2, CALL_PREADV2)
WRAP_TRANSFER2(pwritev2, CALL_PWRITEV2)

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    struct fault fault = hit(CALL_FDATASYNC);
    return fails(&fault) ? -1 : __real_fdatasync(fd);
}

int __real_fallocate(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length);
int __wrap_fallocate(int fd, int mode, off_t offset, off_t length)
{
    struct fault fault = hit(CALL_FALLOCATE);
    return fails(&fault) ? -1 : __real_fallocate(fd, mode, offset, length);
}

/* libaio returns errors itself. */
int __real_io_submit(io_context_t context, long count, struct iocb **iocbs);
int __wrap_io_submit(io_context_t context, long count, struct iocb **iocbs);
int __wrap_io_submit(io_context_t context, long count, struct iocb **iocbs)
{
    struct fault fault = hit(CALL_IO_SUBMIT);
    if (fault.error)
        return -fault.error;
    if (fault.limit && count > (long)fault.limit)
        count = (long)fault.limit;
    pthread_mutex_lock(&lock);
    for (long i = 0; i < count; i++)
        durable += iocbs[i]->aio_rw_flags == RWF_DSYNC;
    pthread_mutex_unlock(&lock);
    return __real_io_submit(context, count, iocbs);
}

int __real_io_setup(int count, io_context_t *context);
int __wrap_io_setup(int count, io_context_t *context);
int __wrap_io_setup(int count, io_context_t *context)
{
    struct fault fault = hit(CALL_IO_SETUP);
    return fault.error ? -fault.error : __real_io_setup(count, context);
}

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*function)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*function)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*function)(void *),
                          void *arg)
{
    struct fault fault = hit(CALL_PTHREAD_CREATE);
    return fault.error ? fault.error : __real_pthread_create(thread, attr, function, arg);
}
