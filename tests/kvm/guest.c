#include "tests/kvm/guest.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/kvm.h"

#define DEADLINE 100 /* seconds: of a machine that does much else besides */

/* Written by the linker: all of section guest_code. */
extern const char __start_guest_code[] __attribute__((visibility("hidden")));
extern const char __stop_guest_code[] __attribute__((visibility("hidden")));
extern const char guest_parameters[] __attribute__((visibility("hidden")));

GUEST(exit_with, "mov guest_parameters(%rip), %eax\n"
                 "jmp guest_exit\n");
GUEST(spin, "jmp .\n");
GUEST(power_off, "poweroff\n");
GUEST(reports_and_spins, "print \"!\"\n"
                         "jmp .\n");

/* Local APIC and I/O APIC are set up for vector 0x24 from line 4; its handler is at label 99. */
GUEST(echoes_by_interrupt, "mov $0x1100000, %edi\n" /* interrupt descriptor table */
                           "lea 99f(%rip), %rax\n"
                           "mov %ax, 0x240(%rdi)\n"
                           "movw $0x10, 0x242(%rdi)\n"
                           "movw $0x8e00, 0x244(%rdi)\n"
                           "shr $16, %rax\n"
                           "mov %ax, 0x246(%rdi)\n"
                           "movl $0, 0x248(%rdi)\n"
                           "movl $0, 0x24c(%rdi)\n"
                           "sub $16, %rsp\n"
                           "movw $0x24f, (%rsp)\n"
                           "mov %rdi, 2(%rsp)\n"
                           "lidt (%rsp)\n"
                           "mov $LAPIC, %ebx\n"
                           "movl $0x1ff, 0xf0(%rbx)\n" /* on */
                           "movl $0, 0x80(%rbx)\n"     /* task priority: everything */
                           "mov $IOAPIC, %ebx\n"
                           "movb $0x10+2*4+1, (%rbx)\n" /* line 4: vCPU 0, vector 0x24, edge */
                           "movl $0, 16(%rbx)\n"
                           "movb $0x10+2*4, (%rbx)\n"
                           "movl $0x24, 16(%rbx)\n"
                           "outb COM1+1, 1\n" /* interrupt on received data */
                           "outb COM1+4, 0xb\n"
                           "print \"ready\\n\"\n"
                           "1: sti\n"
                           "hlt\n"
                           "jmp 1b\n"

                           "99: push %rax\n"
                           "push %rdx\n"
                           "2: mov $COM1+5, %edx\n"
                           "in %dx, %al\n"
                           "test $1, %al\n"
                           "jz 3f\n"
                           "mov $COM1, %edx\n"
                           "in %dx, %al\n"
                           "out %al, %dx\n"
                           "cmp $'q', %al\n"
                           "jne 2b\n"
                           "exit 0\n"
                           "3: mov $LAPIC, %edx\n"
                           "movl $0, 0xb0(%rdx)\n" /* end of interrupt */
                           "pop %rdx\n"
                           "pop %rax\n"
                           "iretq\n");

asm(".pushsection guest_code, \"ax\"\n"
    ".globl guest_parameters, guest_puts, guest_hex, guest_exit, guest_stop\n"
    ".hidden guest_parameters, guest_puts, guest_hex, guest_exit, guest_stop\n"
    ".balign 8\n"
    "guest_parameters: .quad 0, 0, 0, 0\n"

    "guest_puts:\n"
    "mov $COM1, %edx\n"
    "1: mov (%rdi), %al\n"
    "test %al, %al\n"
    "jz 2f\n"
    "out %al, %dx\n"
    "inc %rdi\n"
    "jmp 1b\n"
    "2: ret\n"

    "guest_hex:\n"
    "push %rax\n"
    "push %rbx\n"
    "push %rcx\n"
    "push %rdx\n"
    "mov %rax, %rbx\n"
    "mov $60, %ecx\n"
    "mov $COM1, %edx\n"
    "1: mov %rbx, %rax\n" /* leading zeros */
    "shr %cl, %rax\n"
    "jnz 2f\n"
    "sub $4, %ecx\n"
    "jnz 1b\n"
    "2: mov %rbx, %rax\n"
    "shr %cl, %rax\n"
    "and $15, %eax\n"
    "add $'0', %eax\n"
    "cmp $'9', %eax\n"
    "jbe 3f\n"
    "add $'a' - '9' - 1, %eax\n"
    "3: out %al, %dx\n"
    "sub $4, %ecx\n"
    "jns 2b\n"
    "pop %rdx\n"
    "pop %rcx\n"
    "pop %rbx\n"
    "pop %rax\n"
    "ret\n"

    "guest_exit:\n"
    "mov $DEBUG_EXIT, %edx\n"
    "out %eax, %dx\n"
    "guest_stop:\n"
    "cli\n"
    "hlt\n"
    "jmp guest_stop\n"
    ".popsection");

void guest_need_kvm(void)
{
    struct minivmm_error err;
    struct kvm kvm;

    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        cr_skip_test("no usable /dev/kvm: %s", strerror(errno));
    close(fd);
    int rc = kvm_open(&kvm, "/dev/kvm", &err);
    if (rc == -ENOTSUP || rc == -ENOTTY)
        cr_skip_test("no usable /dev/kvm: %s", err.text);
    kvm_close(&kvm);
}

int guest_kernel(const char *entry, const uint64_t parameters[GUEST_PARAMETERS], char path[32])
{
    const size_t size = (size_t)(__stop_guest_code - __start_guest_code);
    const uint64_t start = GUEST_BASE + (uint64_t)(entry - __start_guest_code);
    const Elf64_Ehdr header = {
        .e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
        .e_type = ET_EXEC,
        .e_machine = EM_X86_64,
        .e_version = EV_CURRENT,
        .e_entry = start,
        .e_phoff = sizeof(header),
        .e_ehsize = sizeof(header),
        .e_phentsize = sizeof(Elf64_Phdr),
        .e_phnum = 1};
    const Elf64_Phdr segment = {.p_type = PT_LOAD,
                                .p_flags = PF_R | PF_W | PF_X,
                                .p_offset = sizeof(header) + sizeof(segment),
                                .p_vaddr = GUEST_BASE,
                                .p_paddr = GUEST_BASE,
                                .p_filesz = size,
                                .p_memsz = size,
                                .p_align = 1};
    char *code = malloc(size);
    memcpy(code, __start_guest_code, size);
    if (parameters)
        memcpy(code + (guest_parameters - __start_guest_code), parameters,
               GUEST_PARAMETERS * sizeof(parameters[0]));

    int fd = memfd_create("kernel", 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(write(fd, &header, sizeof(header)), sizeof(header));
    cr_assert_eq(write(fd, &segment, sizeof(segment)), sizeof(segment));
    cr_assert_eq(write(fd, code, size), (ssize_t)size);
    free(code);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

struct guest_run guest_config(void)
{
    guest_need_kvm();
    struct guest_run run = {.output_fd = -1};
    minivmm_config_init(&run.config);
    run.config.memory = GUEST_MEMORY;
    run.config.debug_exit = true;
    run.config.timeout = DEADLINE;
    return run;
}

void guest_create(struct guest_run *run, const char *entry)
{
    struct minivmm_error err = {.text = ""};
    char path[32];
    int pipe_fds[2];

    int kernel = guest_kernel(entry, run->parameters, path);
    run->config.kernel = path;
    cr_assert_eq(pipe2(pipe_fds, O_CLOEXEC), 0);
    fcntl(pipe_fds[1], F_SETPIPE_SZ, GUEST_OUTPUT_MAX); /* so that no guest waits for us */
    run->config.serial_out = pipe_fds[1];
    run->output_fd = pipe_fds[0];
    cr_assert_eq(minivmm_create(&run->config, &run->vm, &err), 0, "%s", err.text);
    close(kernel);
    close(pipe_fds[1]); /* the VM has its own */
    run->config.kernel = NULL;
}

void guest_start(struct guest_run *run, const char *entry)
{
    guest_create(run, entry);
    cr_assert_eq(minivmm_start(run->vm), 0);
}

void guest_wait(struct guest_run *run)
{
    cr_assert_eq(minivmm_wait(run->vm, &run->verdict), 0);
    run->output = malloc(GUEST_OUTPUT_MAX + 1);
    fcntl(run->output_fd, F_SETFL, O_NONBLOCK); /* the VM still has the other end */
    ssize_t n;
    while ((n = read(run->output_fd, run->output + run->length, GUEST_OUTPUT_MAX - run->length)) >
           0)
        run->length += (size_t)n;
    run->output[run->length] = '\0';
}

void guest_destroy(struct guest_run *run)
{
    minivmm_destroy(run->vm);
    close(run->output_fd);
    run->vm = NULL;
    run->output_fd = -1;
}

void guest_run(struct guest_run *run, const char *entry)
{
    guest_start(run, entry);
    guest_wait(run);
    guest_destroy(run);
}

void guest_free(struct guest_run *run)
{
    free(run->output);
    run->output = NULL;
    run->length = 0;
}

char *guest_output(const char *entry)
{
    struct guest_run run = guest_config();
    guest_run(&run, entry);
    cr_assert_eq(run.verdict.exit_code, 0, "%s; output: %s", run.verdict.text, run.output);
    return run.output;
}

uint64_t guest_now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

double guest_seconds_since(uint64_t start)
{
    return (double)(guest_now() - start) / 1e9;
}
