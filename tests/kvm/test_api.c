/* The control socket of the built program, with curl, with `minivmm ctl`, and with rude clients. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/kvm/guest.h"
#include "tests/kvm/program.h"

SUITE(api);

static char directory[64], socket_path[100];
static struct program vm;

/* A VM with a guest that keeps its vCPU busy, and a control socket. */
static void begin(void)
{
    char kernel[32];

    guest_need_kvm();
    scratch_make(directory);
    snprintf(socket_path, sizeof(socket_path), "%s/api", directory);
    int fd = guest_kernel(guest_reports_and_spins, NULL, kernel);
    vm = (struct program){.arguments = {"--kernel", kernel, "--memory", "32M", "--timeout", "100",
                                        "--rng", "--api-sock", socket_path}};
    program_start(&vm);
    program_await(&vm, "!");
    close(fd);
}

static void end(void)
{
    program_finish(&vm);
    cr_expect_neq(access(socket_path, F_OK), 0, "the socket is still there");
    scratch_remove(directory);
}

/* Run a shell command; its exit status, and what it printed, in a buffer of ours. */
static char said[65536];
__attribute__((format(printf, 1, 2))) static int shell(const char *format, ...)
{
    char command[1000];
    va_list args;

    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    FILE *pipe = popen(command, "re");
    size_t length = fread(said, 1, sizeof(said) - 1, pipe);
    said[length] = '\0';
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* curl's output and, behind it, the status. */
static void curl(const char *words)
{
    int rc = shell("curl -sS --max-time 10 --unix-socket %s -w ' %%{http_code}' %s 2>&1",
                   socket_path, words);
    cr_expect_eq(rc, 0, "curl %s: %d: %s", words, rc, said);
}

static int ctl(const char *words)
{
    return shell("%s ctl %s %s 2>&1", getenv("MINIVMM"), socket_path, words);
}

static int connect_to(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static void send_text(int fd, const char *text)
{
    send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* Read until `text` has come, or the end, or nothing comes for 50 s; what came is in `said`. */
static bool read_until(int fd, const char *text)
{
    size_t length = 0;
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    said[0] = '\0';
    while (poll(&pfd, 1, 50000) == 1 && length < sizeof(said) - 1) {
        ssize_t n = read(fd, said + length, sizeof(said) - 1 - length);
        if (n <= 0)
            return !text;
        length += (size_t)n;
        said[length] = '\0';
        if (text && strstr(said, text))
            return true;
    }
    return false;
}

static double answer_time(void)
{
    uint64_t start = guest_now();
    int fd = connect_to();
    send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    cr_expect(read_until(fd, "\"Running\""), "%s", said);
    close(fd);
    return guest_seconds_since(start);
}

Test(api, curl_gets_and_sets_what_there_is)
{
    const struct {
        const char *words, *answer;
    } rows[] = {
        {"http://localhost/", "\"state\":\"Running\",\"vmm_version\":\"" MINIVMM_VERSION "\"} 200"},
        {"http://localhost/machine-config", "\"mem_size_mib\":32"},
        {"http://localhost/metrics", "\"devices\":[{\"slot\":0,\"name\":\"rng\""},
        {"-H 'Accept: text/plain' http://localhost/metrics", "\nminivmm_paused 0\n"},
        {"-X PATCH -d '{\"state\":\"Paused\"}' http://localhost/vm", " 204"},
        {"http://localhost/", "\"state\":\"Paused\""},
        {"-H 'Accept: text/plain' http://localhost/metrics", "\nminivmm_paused 1\n"},
        {"-X PATCH -d '{\"state\":\"Resumed\"}' http://localhost/vm", " 204"},
        {"http://localhost/", "\"state\":\"Running\""},
        {"http://localhost/nope", "\"} 404"},
        {"http://localhost/a http://localhost/b", "\"} 404{\"fault_message\""},
        {"-X FOO http://localhost/", "{\"fault_message\":\"invalid request method"},
        {"-X FOO http://localhost/", " 400"},
        {"-X PUT -d '{\"action_type\":\"Stop\"}' http://localhost/actions", " 204"},
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        curl(rows[i].words);
        cr_expect(strstr(said, rows[i].answer), "%s: %s", rows[i].words, said);
    }
    end();
    cr_expect_eq(vm.exit_code, 143);
}

/* What libevent itself finds, and what we find: the answer is of one form. */
Test(api, whatever_is_wrong_with_a_request_is_said_in_json)
{
#define A16   "aaaaaaaaaaaaaaaa"
#define A256  A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16 A16
#define A2304 A256 A256 A256 A256 A256 A256 A256 A256 A256
#define A9216 A2304 A2304 A2304 A2304
    static const struct {
        const char *name, *request, *fault;
    } rows[] = {
        {"no HTTP at all", "\x16\x03\x01\x02\x01\r\n\r\n", "malformed"},
        {"empty lines", "\r\n\r\n", "malformed"},
        {"one word", "GET\r\n\r\n", "malformed"},
        {"no version", "GET /\r\n\r\n", "malformed"},
        {"another protocol", "GET / HTTX/1.1\r\n\r\n", "malformed"},
        {"a future version", "GET / HTTP/9.9\r\n\r\n", "malformed"},
        {"a header without a colon", "GET / HTTP/1.1\r\nHost\r\n\r\n", "malformed"},
        {"HTTP/1.0, too", "GET / HTTP/1.0\r\nHost\r\n\r\n", "malformed"},
        {"a long header", "GET / HTTP/1.1\r\nX: " A9216 "\r\n\r\n", "more than 8192 bytes"},
        {"one that goes on", "GET / HTTP/1.1\r\nX: " A9216, "more than 8192 bytes"},
        {"a long path", "GET /" A9216 " HTTP/1.1\r\n\r\n", "more than 8192 bytes"},
        {"an odd URI", "GET http://[/ HTTP/1.1\r\n\r\n", "malformed"},
        {"an unknown method", "BREW / HTTP/1.1\r\n\r\n", "no such method"},
        {"a method of proxies", "CONNECT a:1 HTTP/1.1\r\n\r\n", "no such method"},
        {"a method of no path here", "DELETE / HTTP/1.1\r\n\r\n", "path: DELETE /"},
        {"an unknown path", "GET /nope HTTP/1.1\r\n\r\n", "path: GET /nope"},
        {"a negative length", "PATCH /vm HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}", "malformed"},
        {"a length of letters", "PATCH /vm HTTP/1.1\r\nContent-Length: x\r\n\r\n{}", "malformed"},
        {"a large body", "PATCH /vm HTTP/1.1\r\nContent-Length: 9216\r\n\r\n" A9216,
         "a body of 9216 bytes; at most 4096 are taken"},
        {"a larger one", "PATCH /vm HTTP/1.1\r\nContent-Length: 65537\r\n\r\n",
         "a body of more than 65536 bytes"},
        {"one that waits",
         "PATCH /vm HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 65537\r\n\r\n",
         "a body of more than 65536 bytes"},
        {"an endless chunk",
         "PATCH /vm HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
         "or a malformed chunk"},
        {"an unknown wish", "PATCH /vm HTTP/1.1\r\nExpect: tea\r\nContent-Length: 2\r\n\r\n{}",
         "only 100-continue"},
        {"no JSON", "PATCH /vm HTTP/1.1\r\nContent-Length: 3\r\n\r\ntea", "the body is no JSON"},
        {"behind a good one", "GET /version HTTP/1.1\r\n\r\nBREW / HTTP/1.1\r\n\r\n",
         "no such method"},
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int fd = connect_to();
        send_text(fd, rows[i].request);
        cr_expect(read_until(fd, rows[i].fault), "%s: %s", rows[i].name, said);
        const char *answer = strstr(said, "HTTP/1.1 40");
        cr_assert(answer, "%s: %s", rows[i].name, said);
        cr_expect(strstr(answer, "\r\nContent-Type: application/json\r\n"), "%s: %s", rows[i].name,
                  said);
        const char *body = strstr(answer, "\r\n\r\n{\"fault_message\":\"");
        const char *length = strstr(answer, "\r\nContent-Length: ");
        cr_expect(body && length && strlen(body + 4) == strtoul(length + 18, NULL, 10), "%s: %s",
                  rows[i].name, said);
        cr_expect_null(strstr(said, "<"), "%s: %s", rows[i].name, said);
        close(fd);
    }
    cr_expect_lt(answer_time(), 1);
    kill(vm.pid, SIGTERM);
    end();
}

Test(api, a_client_that_waits_for_leave_to_send_its_body_gets_it)
{
    begin();
    int fd = connect_to();
    send_text(fd, "PATCH /vm HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 18\r\n\r\n");
    cr_expect(read_until(fd, "HTTP/1.1 100 Continue\r\n\r\n"), "%s", said);
    send_text(fd, "{\"state\":\"Paused\"}");
    cr_expect(read_until(fd, " 204 "), "%s", said);
    close(fd);
    kill(vm.pid, SIGTERM);
    end();
}

Test(api, the_socket_is_its_users_alone_and_gone_at_the_end)
{
    struct stat file;
    begin();
    cr_assert_eq(stat(socket_path, &file), 0);
    cr_expect(S_ISSOCK(file.st_mode));
    cr_expect_eq(file.st_mode & 07777, 0600);
    kill(vm.pid, SIGTERM);
    end();
}

Test(api, a_path_in_use_is_refused_and_a_stale_socket_replaced)
{
    char kernel[32], other[100], pattern[100];
    begin();
    int fd = guest_kernel(guest_power_off, NULL, kernel);
    struct program second = {.arguments = {"--kernel", kernel, "--api-sock", socket_path},
                             .among_others = true};
    program_run(&second);
    snprintf(pattern, sizeof(pattern), "*: process %d listens there", vm.pid);
    program_expect_refusal(&second, "a live one", pattern);
    cr_expect_lt(answer_time(), 1);

    snprintf(other, sizeof(other), "%s/file", directory);
    scratch_write(other, "x", 1);
    second = (struct program){.arguments = {"--kernel", kernel, "--api-sock", other},
                              .among_others = true};
    program_run(&second);
    program_expect_refusal(&second, "a file", "*: is there already, and no socket");

    kill(vm.pid, SIGKILL); /* which leaves its socket */
    program_finish(&vm);
    cr_assert_eq(access(socket_path, F_OK), 0);
    second = (struct program){.arguments = {"--kernel", kernel, "--api-sock", socket_path},
                              .among_others = true};
    program_run(&second);
    cr_expect_eq(second.exit_code, 0, "%s", second.err_text);
    cr_expect_neq(access(socket_path, F_OK), 0);
    close(fd);
    scratch_remove(directory);
}

Test(api, the_end_closes_the_streams_and_is_told_in_them)
{
    int streams[16];
    begin();
    for (unsigned i = 0; i < 16; i++) {
        streams[i] = connect_to();
        send_text(streams[i], "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
        cr_expect(read_until(streams[i], "{\"event\":\"state\",\"state\":\"Running\"}\n"), "%s",
                  said);
    }
    curl("http://localhost/events");
    cr_expect(strstr(said, "16 streams of events are open already"), "%s", said);
    close(streams[0]);
    curl("-X PATCH -d '{\"state\":\"Paused\"}' http://localhost/vm");
    for (unsigned i = 1; i < 16; i++)
        cr_expect(read_until(streams[i], "\"paused\""), "%s", said);
    streams[0] = connect_to();
    send_text(streams[0], "GET /events HTTP/1.0\r\n\r\n");
    cr_expect(read_until(streams[0], "\"Paused\"}\n"), "a place is free again: %s", said);
    kill(vm.pid, SIGTERM);
    for (unsigned i = 0; i < 16; i++) {
        cr_expect(read_until(streams[i], NULL), "stream %u does not end", i);
        cr_expect(strstr(said, "\"ended\""), "%s", said);
        close(streams[i]);
    }
    end();
}

/* Two events for each pair of requests, which are sent many at once. */
static void make_events(unsigned pairs)
{
    enum { AT_ONCE = 20 };
    static const char pair[] =
        "PATCH /vm HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
        "PATCH /vm HTTP/1.1\r\nContent-Length: 19\r\n\r\n{\"state\":\"Resumed\"}";
    int fd = connect_to();

    for (unsigned i = 0; i < pairs; i += AT_ONCE) {
        unsigned answers = 0;
        for (unsigned n = 0; n < AT_ONCE; n++)
            send_text(fd, pair);
        while (answers < 2 * AT_ONCE) {
            ssize_t n = read(fd, said, sizeof(said) - 1);
            cr_assert_gt(n, 0);
            said[n] = '\0';
            for (char *at = said; (at = strstr(at, "HTTP/1.1 204")) != NULL; at++)
                answers++;
        }
    }
    close(fd);
}

/* All that has come, without waiting for more; false at the end. */
static bool read_what_there_is(int fd, size_t *bytes)
{
    ssize_t n;
    while ((n = recv(fd, said, sizeof(said) - 1, MSG_DONTWAIT)) > 0) {
        said[n] = '\0';
        *bytes += (size_t)n;
    }
    return n < 0 && errno == EAGAIN;
}

Test(api, who_does_not_read_its_events_is_dropped_and_nobody_else)
{
    const size_t unread_max = 256 << 10, socket_holds = 256 << 10; /* by default 208 KiB */
    size_t heard = 0, left = 0;

    begin();
    int reader = connect_to(), sleeper = connect_to();
    send_text(reader, "GET /events HTTP/1.1\r\n\r\n");
    send_text(sleeper, "GET /events HTTP/1.1\r\n\r\n");
    cr_expect(read_until(reader, "\"state\""), "%s", said);
    /* The server looks at it four times a second. */
    struct pollfd hung = {.fd = sleeper};
    for (unsigned i = 0; i < 500 && poll(&hung, 1, 0) == 0; i++) {
        make_events(100);
        cr_assert(read_what_there_is(reader, &heard), "the reader was dropped");
    }
    cr_expect(hung.revents & POLLHUP, "after %zu bytes of events it is there still", heard);
    cr_expect_gt(heard, unread_max, "it was given up too early");
    cr_expect_lt(heard, 2 * (unread_max + socket_holds), "%zu bytes, and not dropped", heard);
    while (read_what_there_is(sleeper, &left))
        usleep(1000);
    cr_expect_leq(left, socket_holds, "%zu bytes were left of it", left);
    cr_expect_lt(answer_time(), 1);
    curl("-X PATCH -d '{\"state\":\"Paused\"}' http://localhost/vm");
    cr_expect(read_until(reader, "\"paused\""), "%s", said);
    close(reader);
    close(sleeper);
    kill(vm.pid, SIGTERM);
    end();
}

Test(api, rude_clients_delay_nobody)
{
    enum { RUDE = 100 };
    static const char *const habits[] = {
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: x\r\nX: ",
        "PATCH /vm HTTP/1.1\r\nContent-Length: 100\r\n\r\n{\"state\":",
        "PATCH /vm HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n{",
        "PATCH /vm HTTP/1.1\r\nContent-Length: -1\r\n\r\n{}",
        "PATCH /vm HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "\x16\x03\x01\x02\x01\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n",
    };
    static char megabyte[1 << 20];
    int clients[RUDE];

    begin();
    memset(megabyte, 'a', sizeof(megabyte) - 1);
    shell("ls /proc/%d/fd | wc -l", vm.pid);
    int before = atoi(said);
    for (unsigned i = 0; i < RUDE; i++) {
        clients[i] = connect_to();
        send_text(clients[i], habits[i % (sizeof(habits) / sizeof(habits[0]))]);
        cr_expect_lt(answer_time(), 1, "after client %u", i);
    }
    int loud = connect_to();
    send_text(loud, "PATCH /vm HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n");
    send(loud, megabyte, sizeof(megabyte), MSG_NOSIGNAL | MSG_DONTWAIT);
    cr_expect_lt(answer_time(), 1);
    int endless = connect_to();
    send_text(endless, "GET / HTTP/1.1\r\nX: ");
    send(endless, megabyte, sizeof(megabyte), MSG_NOSIGNAL | MSG_DONTWAIT);
    cr_expect_lt(answer_time(), 1);
    shell("ls /proc/%d/fd | wc -l", vm.pid);
    cr_expect_lt(atoi(said), before + 48 + 8, "descriptors: %d and %s", before, said);
    for (unsigned i = 0; i < RUDE; i++)
        close(clients[i]);
    close(loud);
    close(endless);
    cr_expect_eq(ctl("stop"), 0, "%s", said);
    end();
    cr_expect_eq(vm.exit_code, 143);
}

Test(api, pipelined_requests_are_answered_in_order)
{
    begin();
    int fd = connect_to();
    send_text(fd, "GET /version HTTP/1.1\r\n\r\n"
                  "PATCH /vm HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}"
                  "GET / HTTP/1.1\r\n\r\nGET /nope HTTP/1.1\r\nConnection: close\r\n\r\n");
    cr_expect(read_until(fd, NULL), "%s", said);
    const char *at = said;
    const char *const order[] = {"firecracker_version", " 204 ", "\"Paused\"", "fault_message"};
    for (unsigned i = 0; i < 4; i++) {
        const char *next = strstr(at, order[i]);
        cr_assert(next, "%s: %s", order[i], said);
        at = next;
    }
    close(fd);
    kill(vm.pid, SIGTERM);
    end();
}

Test(api, a_client_that_goes_while_its_pause_is_under_way_leaves_a_paused_vm)
{
    begin();
    for (unsigned i = 0; i < 20; i++) {
        int fd = connect_to();
        send_text(fd, "PATCH /vm HTTP/1.1\r\nContent-Length: 18\r\n\r\n{\"state\":\"Paused\"}");
        close(fd);
        curl("http://localhost/version");
        int code;
        do
            code = ctl("resume"); /* refused while the pause goes on */
        while (code == 1 && strstr(said, "under way"));
        cr_assert_eq(code, 0, "%s", said);
    }
    cr_expect_lt(answer_time(), 1);
    kill(vm.pid, SIGTERM);
    end();
}

Test(api, ctl_says_it_in_words_and_exit_codes)
{
    const struct {
        const char *words;
        int code;
        const char *text;
    } rows[] = {
        {"status", 0, "state      Running\n"},
        {"status --json", 0, "\"vcpu_count\": 1,"},
        {"pause", 0, ""},
        {"status", 0, "state      Paused\n"},
        {"pause", 0, ""},
        {"resume --json", 0, "{}\n"},
        {"stats", 0, "0     rng      0"},
        {"stats --json", 0, "\"devices\": ["},
        {"metrics", 0, "# TYPE minivmm_exits_total counter\n"},
        {"metrics --json", 0, "{\"state\":\"Running\""},
        {"balloon 16M", 1, "minivmm ctl: this VM has no balloon"},
        {"keep 33M", 1, "was started with 32 MiB, and a balloon cannot add to that"},
        {"balloon", 125, "needs a size"},
        {"balloon 1X", 125, "needs a size"},
        {"balloon -1", 125, "needs a size"},
        {"pause now", 125, "takes no further word"},
        {"pause --watch", 125, "--watch is for stats"},
        {"frobnicate", 125, "frobnicate: no such command"},
        {"", 125, "SOCKET and COMMAND are needed"},
        {"--frob status", 125, "--frob: not understood"},
        {"a b c", 125, "not understood"},
        {"status --timeout 0", 125, "--timeout: must be"},
        {"stop", 0, ""},
    };
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int code = ctl(rows[i].words);
        cr_expect_eq(code, rows[i].code, "%s: %d: %s", rows[i].words, code, said);
        cr_expect(strstr(said, rows[i].text), "%s: %s", rows[i].words, said);
    }
    end();
    cr_expect_eq(ctl("status"), 125);
    cr_expect(strstr(said, "does the VM still run?"), "%s", said);
}

Test(api, ctl_gives_up_a_server_that_does_not_answer)
{
    begin();
    kill(vm.pid, SIGSTOP);
    uint64_t start = guest_now();
    cr_expect_eq(ctl("status --timeout 1"), 125);
    cr_expect(strstr(said, "no answer in time"), "%s", said);
    cr_expect_lt(guest_seconds_since(start), 5);
    kill(vm.pid, SIGCONT);
    kill(vm.pid, SIGTERM);
    end();
}
