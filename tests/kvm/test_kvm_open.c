/* A /dev/kvm that is missing, something else, or not for us: the text says what to do. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "vmm/kvm.h"

SUITE(kvm_open);

#define NOBODY 65534

Test(kvm_open, a_missing_node_names_the_cure)
{
    struct minivmm_error err;
    struct kvm kvm;

    cr_assert_eq(kvm_open(&kvm, "/nonexistent/kvm", &err), -ENOENT);
    cr_expect_eq(strncmp(err.text, "/nonexistent/kvm: No such file or directory; ", 45), 0, "%s",
                 err.text);
    cr_expect(strstr(err.text, "modprobe") || strstr(err.text, "nested") ||
                  strstr(err.text, "firmware"),
              "%s", err.text);
    cr_expect_eq(kvm.fd, -1);
    kvm_close(&kvm); /* harmless */
}

Test(kvm_open, another_device_is_named_as_such)
{
    struct minivmm_error err;
    struct kvm kvm;

    int probe = dup(0);
    cr_assert_eq(kvm_open(&kvm, "/dev/null", &err), -ENOTTY);
    cr_expect_str_eq(err.text, "/dev/null: not a KVM device: Inappropriate ioctl for device");
    cr_expect_eq(kvm.fd, -1);
    int next = dup(0);
    cr_expect_eq(next, probe + 1, "no descriptor stays open");
    close(probe);
    close(next);
}

/* kvm_open in a child without privileges; its text comes back. */
static int open_as_nobody(const char *path, struct minivmm_error *err)
{
    int fds[2], status;

    cr_assert_eq(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0) {
        struct minivmm_error text = {.text = ""};
        struct kvm kvm;
        if (setgroups(0, NULL) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
            _exit(0);
        int rc = kvm_open(&kvm, path, &text);
        ssize_t n = write(fds[1], &text, sizeof(text));
        _exit(n == sizeof(text) ? -rc : 0);
    }
    close(fds[1]);
    cr_assert_eq(read(fds[0], err, sizeof(*err)), sizeof(*err));
    close(fds[0]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

Test(kvm_open, a_forbidden_node_names_who_may_use_it)
{
    static const struct {
        mode_t mode;
        gid_t group;
        const char *text;
    } rows[] = {
        {0600, 0, "; only its owner may use it: chmod 660 "},
        {0660, 0, "; join its group: usermod -aG root USER"},
        {0660, 54321, "; it belongs to group 54321, which you are not in"},
    };
    char directory[] = "/tmp/kvm-open-XXXXXX", path[64];
    struct minivmm_error err;

    if (geteuid() != 0)
        cr_skip_test("only root can become somebody else");
    if (getgrgid(54321))
        cr_skip_test("this host knows group 54321");
    cr_assert_not_null(mkdtemp(directory));
    chmod(directory, 0755);
    snprintf(path, sizeof(path), "%s/kvm", directory);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        cr_assert_eq(chown(path, 0, rows[i].group), 0);
        cr_assert_eq(chmod(path, rows[i].mode), 0);
        cr_expect_eq(open_as_nobody(path, &err), -EACCES);
        cr_expect(strstr(err.text, rows[i].text), "%s", err.text);
        cr_expect(strstr(err.text, ": Permission denied; "), "%s", err.text);
    }
    unlink(path);
    rmdir(directory);
}
