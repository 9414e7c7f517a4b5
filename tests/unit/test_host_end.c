/* What is behind a character device: files, sockets whose clients come and go, terminals. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "devices/host_end.h"
#include "tests/unit/support.h"

SUITE(host_end);

static struct event_loop loop;
static struct host_end end;
static struct host_stream stream;
static char heard[65536];
static size_t heard_size, room;
static char dir[64], path[80];

static size_t give_room(void *dev)
{
    (void)dev;
    return room;
}

static void hear(void *dev, const uint8_t *data, size_t length)
{
    (void)dev;
    cr_assert_leq(heard_size + length, sizeof(heard));
    memcpy(heard + heard_size, data, length);
    heard_size += length;
}

static unsigned writables;

static void writable(void *dev)
{
    (void)dev;
    writables++;
}

static int failure;

static void failed(void *dev, int error)
{
    (void)dev;
    failure = error;
}

static const struct host_stream_ops ops = {
    .room = give_room, .input = hear, .writable = writable, .failed = failed};

static int try(const struct minivmm_char *config, struct minivmm_error *err)
{
    heard_size = 0;
    room = 1000;
    failure = 0;
    signal(SIGPIPE, SIG_IGN);
    cr_assert_eq(event_loop_init(&loop, err), 0);
    int rc = host_end_init(&end, config, &loop, "port p", err);
    if (rc == 0)
        rc = host_stream_init(&stream, &loop, end.in, end.out, &ops, NULL, "port p", err);
    if (rc == 0) {
        cr_assert_eq(host_end_attach(&end, &stream), 0);
        return 0;
    }
    host_end_finish(&end);
    event_loop_finish(&loop);
    return rc;
}

static void begin(const struct minivmm_char *config)
{
    struct minivmm_error err;
    cr_assert_eq(try(config, &err), 0, "%s", err.text);
}

static void finish(void)
{
    host_stream_finish(&stream);
    host_end_finish(&end);
    event_loop_finish(&loop);
}

static void settle(void)
{
    for (int i = 0; i < 8; i++)
        event_loop_once(&loop, 3);
}

static void print(const char *text)
{
    cr_assert_eq(host_stream_write(&stream, (const uint8_t *)text, strlen(text)), strlen(text));
    settle();
}

/* The next bytes of the stream's at `fd` are these, and no more have come. */
static void expect(int fd, const char *text)
{
    static char got[1 << 17];
    settle();
    ssize_t n = read(fd, got, sizeof(got) - 1);
    got[n > 0 ? n : 0] = '\0';
    cr_expect_str_eq(got, text);
}

static void expect_heard(const char *text)
{
    settle();
    cr_expect_eq(heard_size, strlen(text), "%zu bytes", heard_size);
    cr_expect_eq(memcmp(heard, text, strlen(text)), 0);
    heard_size = 0;
}

static int come(const char *to)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", to);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    settle();
    return fd;
}

static void say(int fd, const char *text)
{
    cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    settle();
}

static const struct minivmm_char *in_dir(enum minivmm_char_kind kind)
{
    static struct minivmm_char config;
    support_temp_dir(dir);
    snprintf(path, sizeof(path), "%s/x", dir);
    config = (struct minivmm_char){.kind = kind, .path = path};
    return &config;
}

Test(host_end, nothing_takes_all)
{
    begin(&(struct minivmm_char){.kind = MINIVMM_CHAR_NULL});
    print("gone\n");
    cr_expect_eq(host_stream_space(&stream), HOST_STREAM_BUFFER);
    cr_expect_eq(host_stream_drain(&stream, true), 0);
    finish();
}

Test(host_end, a_file_is_emptied_and_written)
{
    const struct minivmm_char *config = in_dir(MINIVMM_CHAR_FILE);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    cr_assert_eq(write(fd, "what was there before", 21), 21);
    lseek(fd, 0, SEEK_SET);
    begin(config);
    print("line\nrest");
    cr_expect_eq(host_stream_drain(&stream, true), 0);
    expect(fd, "line\nrest");
    finish();
    close(fd);
    support_remove_dir(dir);
}

Test(host_end, a_client_comes_and_goes_and_comes_again)
{
    begin(in_dir(MINIVMM_CHAR_UNIX));
    print("before anybody is there\n");
    int fd = come(path);
    expect(fd, "before anybody is there\n");
    print("hello\n");
    expect(fd, "hello\n");
    say(fd, "hi");
    expect_heard("hi");
    close(fd);
    settle();
    print("nobody\n");
    for (int i = 0; i < 20; i++) {
        fd = come(path);
        cr_assert_geq(fd, 0);
        expect(fd, i == 0 ? "nobody\n" : "");
        say(fd, "again");
        expect_heard("again");
        print("you\n");
        expect(fd, "you\n");
        close(fd);
        settle();
    }
    cr_expect_eq(failure, 0, "no failure");
    finish();
    support_remove_dir(dir);
}

Test(host_end, the_last_64_KiB_are_kept_for_the_next_client)
{
    static char text[HOST_STREAM_BUFFER + 1];
    begin(in_dir(MINIVMM_CHAR_UNIX));
    for (unsigned i = 0; i < 100000; i++) {
        char line[16];
        snprintf(line, sizeof(line), "line %08u\n", i);
        cr_assert_eq(host_stream_write(&stream, (const uint8_t *)line, 14), 14);
    }
    cr_expect_eq(host_stream_drain(&stream, true), 0, "nobody is waited for");
    int fd = come(path);
    size_t length = 0;
    ssize_t n;
    while ((n = read(fd, text + length, sizeof(text) - length)) > 0) {
        length += (size_t)n;
        settle();
    }
    cr_expect_eq(length, HOST_STREAM_BUFFER);
    cr_expect_eq(memcmp(text + length - 14, "line 00099999\n", 14), 0);
    cr_expect_eq(memcmp(text + length - 28, "line 00099998\n", 14), 0);
    close(fd);
    finish();
    support_remove_dir(dir);
}

Test(host_end, one_write_larger_than_all_there_is)
{
    static char text[3 * HOST_STREAM_BUFFER];
    begin(in_dir(MINIVMM_CHAR_UNIX));
    memset(text, 'a', sizeof(text));
    text[sizeof(text) - 1] = 'z';
    cr_expect_eq(host_stream_write(&stream, (const uint8_t *)text, sizeof(text)), sizeof(text));
    cr_expect_eq(host_stream_space(&stream), HOST_STREAM_BUFFER);
    finish();
    support_remove_dir(dir);
}

Test(host_end, a_client_that_does_not_read_is_waited_for_until_it_goes)
{
    static uint8_t page[4096];
    begin(in_dir(MINIVMM_CHAR_UNIX));
    int fd = come(path);
    size_t taken = 0, n;
    while ((n = host_stream_write(&stream, page, sizeof(page))) == sizeof(page))
        taken += n;
    cr_expect_leq(taken, 1u << 20, "bounded");
    settle();
    cr_expect_eq(host_stream_write(&stream, page, sizeof(page)), 0);
    writables = 0;
    close(fd);
    settle();
    cr_expect_geq(writables, 1, "the device may go on");
    cr_expect_eq(host_stream_write(&stream, page, sizeof(page)), sizeof(page));
    finish();
    support_remove_dir(dir);
}

Test(host_end, the_second_client_waits_for_the_first)
{
    begin(in_dir(MINIVMM_CHAR_UNIX));
    int first = come(path), second = come(path);
    print("x\n");
    expect(first, "x\n");
    expect(second, "");
    close(first);
    settle();
    print("y\n");
    expect(second, "y\n");
    close(second);
    finish();
    support_remove_dir(dir);
}

Test(host_end, what_a_client_said_before_it_went_is_heard)
{
    begin(in_dir(MINIVMM_CHAR_UNIX));
    room = 0;
    int fd = come(path);
    say(fd, "last words");
    close(fd);
    settle();
    expect_heard("");
    room = 1000;
    host_stream_resume_input(&stream);
    expect_heard("last words");
    finish();
    support_remove_dir(dir);
}

Test(host_end, a_client_that_has_spoken_may_still_listen)
{
    begin(in_dir(MINIVMM_CHAR_UNIX));
    int fd = come(path);
    say(fd, "question");
    shutdown(fd, SHUT_WR);
    expect_heard("question");
    print("answer\n");
    expect(fd, "answer\n");
    close(fd);
    settle();
    fd = come(path);
    print("next\n");
    expect(fd, "next\n");
    close(fd);
    finish();
    support_remove_dir(dir);
}

Test(host_end, a_socket_is_private_and_removed_at_the_end)
{
    struct stat st;
    umask(0);
    begin(in_dir(MINIVMM_CHAR_UNIX));
    cr_assert_eq(stat(path, &st), 0);
    cr_expect_eq(st.st_mode, S_IFSOCK | 0600, "%o", st.st_mode);
    finish();
    cr_expect_eq(stat(path, &st), -1);
    support_remove_dir(dir);
}

Test(host_end, what_somebody_else_put_in_its_place_stays)
{
    struct stat st;
    begin(in_dir(MINIVMM_CHAR_UNIX));
    char moved[96];
    snprintf(moved, sizeof(moved), "%s.old", path);
    cr_assert_eq(rename(path, moved), 0);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    finish();
    cr_expect_eq(stat(path, &st), 0);
    support_remove_dir(dir);
}

Test(host_end, a_socket_that_nobody_listens_to_is_replaced)
{
    const struct minivmm_char *config = in_dir(MINIVMM_CHAR_UNIX);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct minivmm_error err;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    cr_assert_eq(listen(fd, 1), 0);
    cr_expect_eq(try(config, &err), -EADDRINUSE, "somebody listens");
    cr_expect(support_one_line(&err, "port p: socket "));
    close(fd);
    begin(config);
    fd = come(path);
    cr_expect_geq(fd, 0);
    close(fd);
    finish();
    support_remove_dir(dir);
}

static int open_terminal(void)
{
    int fd = open(end.path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    cr_assert_geq(fd, 0, "%s", strerror(errno));
    settle();
    return fd;
}

Test(host_end, a_terminal_is_opened_and_closed_and_opened_again)
{
    struct termios settings;
    begin(&(struct minivmm_char){.kind = MINIVMM_CHAR_PTY});
    for (int i = 0; i < 50000; i++)
        cr_assert_eq(host_stream_write(&stream, (const uint8_t *)"nobody\n", 7), 7);
    settle();
    for (int i = 0; i < 10; i++) {
        int fd = open_terminal();
        static char got[1 << 17];
        if (i == 0) {
            size_t length = 0;
            ssize_t n;
            while ((n = read(fd, got + length, sizeof(got) - length)) > 0) {
                length += (size_t)n;
                settle();
            }
            cr_expect_eq(length, HOST_STREAM_BUFFER, "%zu", length);
            cr_assert_eq(tcgetattr(fd, &settings), 0);
            cr_expect(!(settings.c_lflag & (ECHO | ICANON)) && !(settings.c_oflag & OPOST));
        }
        print("hello\r\n");
        expect(fd, "hello\r\n");
        say(fd, "\003keys\n");
        expect_heard("\003keys\n");
        close(fd);
        settle();
    }
    finish();
}

Test(host_end, what_cannot_be_opened_is_named)
{
    static const struct {
        struct minivmm_char config;
        int rc;
        const char *text;
    } rows[] = {
        {{.kind = MINIVMM_CHAR_FILE, .path = "/nowhere/x"},
         -ENOENT,
         "port p: file /nowhere/x: No such file or directory"},
        {{.kind = MINIVMM_CHAR_FILE, .path = "/tmp"}, -EISDIR, "port p: file /tmp: Is a directory"},
        {{.kind = MINIVMM_CHAR_UNIX, .path = "/nowhere/x"},
         -ENOENT,
         "port p: socket /nowhere/x: No such file or directory"},
        {{.kind = MINIVMM_CHAR_UNIX, .path = "/tmp"},
         -EADDRINUSE,
         "port p: socket /tmp: Address already in use; choose another, or remove what is there"},
        {{.kind = MINIVMM_CHAR_UNIX,
          .path = "/tmp/0123456789012345678901234567890123456789012345678901234567890123456789"
                  "01234567890123456789012345678901234567890"},
         -ENAMETOOLONG,
         "port p: socket /tmp/0123"},
        {{.kind = MINIVMM_CHAR_FDS, .in = 999, .out = 999},
         -EBADF,
         "port p: descriptor 999: Bad file descriptor"},
        {{.kind = (enum minivmm_char_kind)7}, -EINVAL, "port p: there is no back end 7"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct minivmm_error err;
        int rc = try(&rows[i].config, &err);
        cr_expect_eq(rc, rows[i].rc, "row %zu: %d", i, rc);
        cr_expect(support_one_line(&err, rows[i].text), "row %zu: %s", i, err.text);
    }
}

Test(host_end, a_pipe_without_a_reader_is_no_wait)
{
    struct minivmm_error err;
    const struct minivmm_char *config = in_dir(MINIVMM_CHAR_FILE);
    cr_assert_eq(mkfifo(path, 0600), 0);
    cr_expect_eq(try(config, &err), -ENXIO);
    cr_expect(support_one_line(&err, "nobody reads this pipe"));
    support_remove_dir(dir);
}

Test(host_end, a_descriptor_serves_for_what_it_was_opened_for)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    begin(&(struct minivmm_char){.kind = MINIVMM_CHAR_FDS, .in = ends[1], .out = ends[1]});
    print("out\n");
    expect(ends[0], "out\n");
    finish();
    begin(&(struct minivmm_char){.kind = MINIVMM_CHAR_FDS, .in = ends[0], .out = ends[0]});
    say(ends[1], "in");
    expect_heard("in");
    finish();
    close(ends[0]);
    close(ends[1]);
}
