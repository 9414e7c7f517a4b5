/* Disks as a user gives them: what is refused, in one line that names the disk; locks; the end. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(disks);

/* It waits until it is stopped. */
GUEST(disks_wait, "print \"up\\n\"\njmp guest_stop");

/*
 * It drives the first slot as far as a driver can without a queue, notifies queues that are not
 * ready, writes to every register, and goes: nothing of it may matter.
 */
GUEST(disks_rude, "mov $0xd0001000, %ebx\n"
                  "xor %esi, %esi\n"
                  "1: movl $0xffffffff, (%rbx,%rsi)\n"
                  "mov (%rbx,%rsi), %eax\n"
                  "movl %esi, (%rbx,%rsi)\n"
                  "add $4, %esi\n"
                  "cmp $0x1000, %esi\n"
                  "jb 1b\n"
                  "movl $0, 0x70(%rbx)\n"
                  "mov 0x70(%rbx), %ecx\n"
                  "mov (%rbx), %eax\n"
                  "cmp $0x74726976, %eax\n"
                  "jne 2f\n"
                  "mov %ecx, %eax\n"
                  "jmp guest_exit\n"
                  "2: exit 9");

static char scratch[64], kernel[32];
static int kernel_fd;

static void setup(void)
{
    guest_need_kvm();
    scratch_make(scratch);
    kernel_fd = guest_kernel(guest_disks_wait, NULL, kernel);
}

static void teardown(void)
{
    close(kernel_fd);
    scratch_remove(scratch);
    suite_check_leaks();
}

TestSuite(disks_files, .init = setup, .fini = teardown, .timeout = 180);

static const char *path_of(const char *name)
{
    static char paths[8][160];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof(paths[0]), "%s/%s", scratch, name);
    return path;
}

static void make_image(const char *name, off_t size)
{
    int fd = open(path_of(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, size) == 0);
    close(fd);
}

Test(disks_files, what_cannot_be_a_disk_is_refused_in_one_line)
{
    static const struct {
        const char *name, *disk, *pattern;
    } rows[] = {
        {"missing", "%s/none", "disk 0: *none: no such file*"},
        {"empty", "%s/empty", "disk 0: *empty: *"},
        {"directory", "%s", "disk 0: *: is a directory*"},
        {"character device", "/dev/null", "disk 0: /dev/null: *"},
        {"not whole sectors", "%s/odd",
         "disk 0: *odd: its last 488 bytes do not fill a sector of 512 *truncate -s %512 *odd"},
        {"unknown sub-option", "%s/good,colour=red", "disk 0: 'colour' is none of readonly, *"},
        {"two that exclude each other", "%s/good,ephemeral,direct",
         "disk 0: *good: ephemeral and direct exclude each other"},
        {"no name", ",readonly", "disk 0: no file given"},
    };
    make_image("empty", 0);
    make_image("odd", 1000);
    make_image("good", 1 << 20);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static struct program program;
        char disk[256];
        snprintf(disk, sizeof(disk), rows[i].disk, scratch);
        program = (struct program){.arguments = {"--kernel", kernel, "--disk", disk}};
        program_run(&program);
        program_expect_refusal(&program, rows[i].name, rows[i].pattern);
    }
}

Test(disks_files, a_second_disk_is_named_by_its_number)
{
    static struct program program;
    make_image("good", 1 << 20);
    program = (struct program){
        .arguments = {"--kernel", kernel, "--disk", path_of("good"), "--disk", path_of("none")}};
    program_run(&program);
    program_expect_refusal(&program, "missing", "disk 1: *none: *");
}

Test(disks_files, one_image_twice_in_a_vm_is_refused)
{
    static struct program program;
    make_image("good", 1 << 20);
    program = (struct program){
        .arguments = {"--kernel", kernel, "--disk", path_of("good"), "--disk", path_of("good")}};
    program_run(&program);
    program_expect_refusal(&program, "twice", "disk 1: *good: already given as another disk*");
}

Test(disks_files, an_image_that_another_vm_writes_is_refused_with_its_process)
{
    static struct program first, second;
    char pattern[160];

    make_image("good", 1 << 20);
    first = (struct program){.arguments = {"--kernel", kernel, "--disk", path_of("good")}};
    program_start(&first);
    program_await(&first, "up");
    for (int i = 0; i < 2; i++) {
        char disk[200];
        snprintf(disk, sizeof(disk), "%s%s", path_of("good"), i ? ",readonly" : "");
        second = (struct program){.arguments = {"--kernel", kernel, "--disk", disk},
                                  .among_others = true};
        program_run(&second);
        snprintf(pattern, sizeof(pattern), "disk 0: *good: in use by process %d *", first.pid);
        program_expect_refusal(&second, disk, pattern);
    }
    kill(first.pid, SIGTERM);
    program_finish(&first);
    cr_expect_eq(first.exit_code, 128 + SIGTERM);
}

Test(disks_files, several_vms_share_an_image_that_none_of_them_writes)
{
    static struct program programs[3];

    make_image("good", 1 << 20);
    for (int i = 0; i < 3; i++) {
        char disk[200];
        snprintf(disk, sizeof(disk), "%s,%s", path_of("good"), i ? "readonly" : "ephemeral");
        programs[i] = (struct program){.arguments = {"--kernel", kernel, "--disk", disk},
                                       .among_others = i < 2};
        program_start(&programs[i]);
        program_await(&programs[i], "up");
    }
    for (int i = 0; i < 3; i++) {
        kill(programs[i].pid, SIGTERM);
        program_finish(&programs[i]);
        cr_expect_eq(programs[i].exit_code, 128 + SIGTERM);
    }
}

Test(disks, a_guest_that_writes_nonsense_to_every_register_is_alone_with_it)
{
    char directory[64], path[80];
    scratch_make(directory);
    snprintf(path, sizeof(path), "%s/image", directory);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    cr_assert(fd >= 0 && ftruncate(fd, 1 << 20) == 0);
    close(fd);

    struct guest_run run = guest_config();
    const struct minivmm_disk disk = {.path = path};
    run.config.disks = &disk;
    run.config.disk_count = 1;
    run.config.rng = true;
    guest_run(&run, guest_disks_rude);
    cr_expect_eq(run.verdict.exit_code, 0, "status 0 after a reset, and magic: %s",
                 run.verdict.text);
    guest_free(&run);
    scratch_remove(directory);
}
