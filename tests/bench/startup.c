/*
 * Start-up and end of minivmm with the smallest kernel, on this machine's /dev/kvm, beside what the
 * bare system calls cost in the same run; and its memory beyond guest RAM.
 *
 * usage: startup MINIVMM TINY-KERNEL WAITING-KERNEL
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/bench/bench.h"

#define ROUNDS   60
#define GUEST_MB 256

extern char **environ;

static void die(const char *what)
{
    fprintf(stderr, "startup: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* A row of the table: median, and the tenth and ninetieth percentile as the spread. */
static void print_row(const char *name, double *samples, const char *limit)
{
    struct bench_spread ms = bench_spread(samples, ROUNDS);
    printf("%-52s %8.3f  (%.3f-%.3f)  %s\n", name, ms.median, ms.low, ms.high, limit);
}

/* Start a program with its output in a pipe; returns its process, *out the pipe's end. */
static pid_t start(const char *const argv[], int *out)
{
    int pipe_fds[2];
    pid_t pid;
    posix_spawn_file_actions_t actions;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0)
        die("pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDOUT_FILENO);
    errno = posix_spawn(&pid, argv[0], &actions, NULL, (char *const *)argv, environ);
    if (errno)
        die(argv[0]);
    posix_spawn_file_actions_destroy(&actions);
    close(pipe_fds[1]);
    *out = pipe_fds[0];
    return pid;
}

/* Run it once: when its first byte came, and when the process was gone, both from before the exec.
 */
static void run_once(const char *const argv[], double *first, double *end)
{
    char byte;
    int out;
    double begin = bench_now(CLOCK_MONOTONIC);
    pid_t pid = start(argv, &out);
    if (read(out, &byte, 1) != 1)
        byte = 0;
    *first = (bench_now(CLOCK_MONOTONIC) - begin) / 1e6;
    int status;
    waitpid(pid, &status, 0);
    *end = (bench_now(CLOCK_MONOTONIC) - begin) / 1e6;
    close(out);
    if (status != 0) {
        fprintf(stderr, "startup: %s ended with status 0x%x\n", argv[0], status);
        exit(1);
    }
}

/*
 * The floor: a process that does nothing but the system calls of the smallest VM with an irqchip of
 * kind `kind` (1 split, 2 all in the kernel), runs it to its first exit, and ends.
 */
static void bare_vm(int kind)
{
    size_t size = (size_t)GUEST_MB << 20;
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int vm = ioctl(kvm, KVM_CREATE_VM, 0);
    uint8_t *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    madvise(mem, size, MADV_HUGEPAGE);
    struct kvm_userspace_memory_region slot = {.memory_size = size,
                                               .userspace_addr = (uintptr_t)mem};
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
    int rc = ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
    rc |= ioctl(vm, KVM_SET_USER_MEMORY_REGION, &slot);
    rc |= kind == 1 ? ioctl(vm, KVM_ENABLE_CAP, &split) : ioctl(vm, KVM_CREATE_IRQCHIP, 0);
    int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
    rc |= ioctl(vcpu, KVM_GET_SREGS, &sregs);
    sregs.cs.base = sregs.cs.selector = 0;
    rc |= ioctl(vcpu, KVM_SET_SREGS, &sregs);
    rc |= ioctl(vcpu, KVM_SET_REGS, &regs);
    memcpy(mem + 0x1000, "\xe6\x80", 2); /* out %al, $0x80 */
    rc |= ioctl(vcpu, KVM_RUN, 0);
    rc |= write(STDOUT_FILENO, "\n", 1) != 1;
    _exit(rc != 0);
}

/* KiB that the process has for itself alone, beyond the mapping of guest memory. */
static long private_kib(pid_t pid)
{
    char path[64], line[256];
    unsigned long from, to;
    long total = 0, kib;
    int guest = 0;

    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f)
        die(path);
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            guest = to - from >= (unsigned long)(GUEST_MB - 2)
                                     << 20; /* its first 2 MiB count as ours */
        else if (!guest && (sscanf(line, "Private_Clean: %ld kB", &kib) == 1 ||
                            sscanf(line, "Private_Dirty: %ld kB", &kib) == 1))
            total += kib;
    }
    fclose(f);
    return total;
}

static void measure_memory(const char *const argv[])
{
    int out;
    char byte;
    pid_t pid = start(argv, &out);
    if (read(out, &byte, 1) != 1)
        die("waiting guest");
    printf("%-52s %8ld KiB          limit 1024\n", "private memory beyond guest RAM, 1 vCPU",
           private_kib(pid));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    close(out);
}

int main(int argc, char **argv)
{
    static double first[ROUNDS], end[ROUNDS];
    char self[] = "/proc/self/exe";

    if (argc == 3 && strcmp(argv[1], "--bare") == 0)
        bare_vm(atoi(argv[2]));
    if (argc != 5) {
        fprintf(stderr, "usage: startup MINIVMM TINY-KERNEL WAITING-KERNEL IMAGE\n");
        return 2;
    }
    const char *nothing[] = {argv[1], "--version", NULL};
    const char *split[] = {self, "--bare", "1", NULL};
    const char *full[] = {self, "--bare", "2", NULL};
    const char *tiny[] = {argv[1], "--kernel", argv[2], "--debug-exit", "--quiet", NULL};
    const char *disk[] = {argv[1],   "--kernel", argv[2], "--debug-exit",
                          "--quiet", "--disk",   argv[4], NULL};
    const char *waiting[] = {argv[1], "--kernel", argv[3], "--quiet", "--timeout", "20", NULL};
    const struct {
        const char *name;
        const char *const *command;
    } rows[] = {{"exec and exit, no VM (minivmm --version)", nothing},
                {"floor: bare system calls, split irqchip", split},
                {"floor: bare system calls, irqchip in the kernel", full},
                {"minivmm, 1 vCPU, 256 MiB", tiny},
                {"the same with an idle disk", disk}};

    printf("%-52s %8s  (10-90 %%)\n", "milliseconds, median of 60", "");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char name[96];
        for (int round = 0; round < ROUNDS; round++) {
            run_once(rows[i].command, &first[round], &end[round]);
        }
        snprintf(name, sizeof(name), "%s: exec -> first output", rows[i].name);
        print_row(name, first, rows[i].command == tiny ? "limit 2" : "");
        snprintf(name, sizeof(name), "%s: -> process gone", rows[i].name);
        print_row(name, end, "");
    }
    measure_memory(waiting);
    return 0;
}
