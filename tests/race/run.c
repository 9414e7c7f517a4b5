#include "tests/race/run.h"

#include <elf.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vmm/layout.h"

#define CODE_BASE   0x1000000ull
#define CAPTURE_MAX (4u << 20)
_Static_assert(LAYOUT_PORT_COM1 == 0x3f8 && LAYOUT_PORT_DEBUG_EXIT == 0xf4 &&
                   LAYOUT_PORT_POST == 0x80 && LAYOUT_POWER == 0xd0000000u &&
                   POWER_SLEEP_S5 == 0x34 && LAYOUT_IOAPIC == 0xfec00000u,
               "numbers in the guests' code");

/* ---- guests -------------------------------------------------------------------------------- */

/* Position-independent 64-bit code, copied to CODE_BASE; `code_wait` is patched in the copy. */
extern const char code_start[] __attribute__((visibility("hidden")));
extern const char code_end[] __attribute__((visibility("hidden")));
extern const char code_wait[] __attribute__((visibility("hidden")));

asm(".pushsection .rodata\n"
    ".globl guest_exit_7, guest_spin, guest_exit_later, guest_writes, guest_floods, guest_echoes\n"
    ".hidden guest_exit_7, guest_spin, guest_exit_later, guest_writes, guest_floods, guest_echoes\n"
    "code_start:\n"
    "code_wait: .quad 0\n" /* ticks of the TSC */

    "guest_exit_7:\n"
    "mov $7, %eax\n"
    "out %eax, $0xf4\n"
    "guest_spin: jmp .\n"

    "guest_exit_later:\n"
    "rdtsc\n"
    "shl $32, %rdx\n"
    "lea (%rax,%rdx), %rsi\n"
    "add code_wait(%rip), %rsi\n"
    "1: rdtsc\n"
    "shl $32, %rdx\n"
    "add %rdx, %rax\n"
    "cmp %rsi, %rax\n"
    "jb 1b\n"
    "jmp guest_exit_7\n"

    /* LINES times LINE, one byte at a time when the transmitter is free; then power-off */
    "guest_writes:\n"
    "mov $40, %ebx\n"
    "1: lea 8f(%rip), %rsi\n"
    "2: mov $0x3fd, %edx\n"
    "in %dx, %al\n"
    "test $0x20, %al\n"
    "jz 2b\n"
    "mov (%rsi), %al\n"
    "inc %rsi\n"
    "test %al, %al\n"
    "jz 3f\n"
    "mov $0x3f8, %edx\n"
    "out %al, %dx\n"
    "jmp 2b\n"
    "3: dec %ebx\n"
    "jnz 1b\n"
    "mov $0xd0000000, %edx\n"
    "movb $0x34, (%rdx)\n"
    "jmp guest_spin\n"
    "8: .asciz \"0123456789abcdefghijklmnopqrstuvwxyz\\n\"\n"

    /*
     * The other processors write to COM1, read its status and identification and write POST codes,
     * in real mode at 0x8000; this one changes its interrupt enables and a line of the I/O APIC.
     */
    "guest_floods:\n"
    "lea 7f(%rip), %rsi\n"
    "mov $0x8000, %edi\n"
    "mov $8f - 7f, %ecx\n"
    "rep movsb\n"
    "mov $0xfee00000, %ebx\n"
    "movl $0x1ff, 0xf0(%rbx)\n"
    "movl $0xc4500, 0x300(%rbx)\n"
    "movl $0xc4608, 0x300(%rbx)\n"
    "movl $0xc4608, 0x300(%rbx)\n"
    "mov $0xfec00000, %ebx\n"
    "mov $0x24, %ecx\n"
    "1: mov $0x3f9, %edx\n"
    "mov %cl, %al\n"
    "out %al, %dx\n"
    "mov $0x3f8, %edx\n"
    "out %al, %dx\n"
    "movb $0x18, (%rbx)\n" /* line 4, low half */
    "mov %ecx, 16(%rbx)\n"
    "xor $3, %ecx\n"
    "jmp 1b\n"
    ".code16\n"
    "7: mov $0x3f8, %dx\n"
    "mov $0x61, %al\n"
    "out %al, %dx\n"
    "add $2, %dx\n"
    "in %dx, %al\n"
    "add $3, %dx\n"
    "in %dx, %al\n"
    "out %al, $0x80\n"
    "jmp 7b\n"
    "8:\n"
    ".code64\n"

    /* COM1, by polling, with the receive interrupt on; ends after a q */
    "guest_echoes:\n"
    "mov $0x3f9, %edx\n"
    "mov $1, %al\n"
    "out %al, %dx\n"
    "1: mov $0x3fd, %edx\n"
    "in %dx, %al\n"
    "test $1, %al\n"
    "jz 1b\n"
    "mov $0x3f8, %edx\n"
    "in %dx, %al\n"
    "mov %al, %cl\n"
    "2: mov $0x3fd, %edx\n"
    "in %dx, %al\n"
    "test $0x20, %al\n"
    "jz 2b\n"
    "mov $0x3f8, %edx\n"
    "mov %cl, %al\n"
    "out %al, %dx\n"
    "cmp $0x71, %cl\n"
    "je guest_exit_7\n"
    "jmp 1b\n"
    "code_end:\n"
    ".popsection");

/* An ELF kernel of one segment, in a file without a name; returns its descriptor. */
int write_kernel(const char *entry, uint64_t wait_ticks)
{
    const size_t size = (size_t)(code_end - code_start);
    struct {
        Elf64_Ehdr header;
        Elf64_Phdr segment;
        char code[1024];
    } image = {.header = {.e_ident = {ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB,
                                      EV_CURRENT},
                          .e_type = ET_EXEC,
                          .e_machine = EM_X86_64,
                          .e_version = EV_CURRENT,
                          .e_entry = CODE_BASE + (uint64_t)(entry - code_start),
                          .e_phoff = sizeof(Elf64_Ehdr),
                          .e_ehsize = sizeof(Elf64_Ehdr),
                          .e_phentsize = sizeof(Elf64_Phdr),
                          .e_phnum = 1},
               .segment = {.p_type = PT_LOAD,
                           .p_flags = PF_R | PF_W | PF_X,
                           .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
                           .p_vaddr = CODE_BASE,
                           .p_paddr = CODE_BASE,
                           .p_filesz = size,
                           .p_memsz = size,
                           .p_align = 1}};
    if (size > sizeof(image.code))
        abort();
    memcpy(image.code, code_start, size);
    memcpy(image.code + (code_wait - code_start), &wait_ticks, sizeof(wait_ticks));
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    if (fd < 0 || write(fd, &image, sizeof(image)) != sizeof(image))
        abort();
    return fd;
}

unsigned failures;

void complain(const struct run *run, const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    printf("# %s: %s\n", run->name, text);
    __atomic_add_fetch(&failures, 1, __ATOMIC_RELAXED);
}

static void *read_output(void *arg)
{
    struct run *run = arg;
    char chunk[4096];
    for (ssize_t n; (n = read(run->out, chunk, sizeof(chunk))) > 0;) {
        size_t keep = run->length + (size_t)n <= CAPTURE_MAX ? (size_t)n : 0;
        memcpy(run->text + run->length, chunk, keep);
        run->length += keep;
    }
    return NULL;
}

bool run_create(struct run *run)
{
    struct minivmm_config config;
    struct minivmm_error err;
    char path[32];
    int in[2] = {-1, -1}, out[2];

    if (pipe2(out, O_CLOEXEC) < 0 || (run->input && pipe2(in, O_CLOEXEC) < 0))
        abort();
    int kernel = write_kernel(run->entry, run->wait_ticks);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", kernel);
    minivmm_config_init(&config);
    config.kernel = path;
    config.memory = MEMORY;
    config.cpus = run->cpus;
    config.timeout = run->timeout;
    config.debug_exit = true;
    config.serial_in = in[0];
    config.serial_out = out[1];
    int rc = minivmm_create(&config, &run->vm, &err);
    close(kernel);
    close(out[1]);
    if (run->input)
        close(in[0]);
    run->in = in[1];
    run->out = out[0];
    if (rc < 0) {
        complain(run, "create: %s", err.text);
        close(run->out);
        return false;
    }
    run->length = 0;
    run->text = malloc(CAPTURE_MAX);
    if (!run->text || pthread_create(&run->reader, NULL, read_output, run) != 0)
        abort();
    run->reads = true;
    return true;
}

void run_read_all(struct run *run)
{
    minivmm_destroy(run->vm);
    run->vm = NULL;
    if (run->reads)
        pthread_join(run->reader, NULL);
    run->reads = false;
}

void run_finish(struct run *run)
{
    run_read_all(run);
    close(run->out);
    if (run->in >= 0)
        close(run->in);
    free(run->text);
}

void run_wait(struct run *run)
{
    if (minivmm_wait(run->vm, &run->verdict) < 0)
        complain(run, "wait failed");
}

void expect_verdict(const struct run *run, enum minivmm_end end, int exit_code)
{
    if (run->verdict.end != end || run->verdict.exit_code != exit_code)
        complain(run, "end %d, exit code %d: %s", (int)run->verdict.end, run->verdict.exit_code,
                 run->verdict.text);
}

void pause_up_to(struct run *run, long microseconds)
{
    const struct timespec pause = {.tv_nsec = nrand48(run->random) % (microseconds * 1000)};
    nanosleep(&pause, NULL);
}

struct run run_of(const struct run *parent, const char *entry, unsigned cpus)
{
    struct run run = {.name = parent->name, .entry = entry, .cpus = cpus, .in = -1};
    memcpy(run.random, parent->random, sizeof(run.random));
    return run;
}
