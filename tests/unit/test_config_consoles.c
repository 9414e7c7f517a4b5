/* --serial, --console, --port: what they mean together, and what the configuration check says. */
#include <errno.h>
#include <string.h>

#include "tests/unit/support.h"
#include "vmm/config.h"
#include "vmm/console_check.h"

SUITE(config_consoles);

#define WORDS 10

static int parse(const char *const *words, struct options *options, struct minivmm_error *err)
{
    char *argv[WORDS + 4] = {(char *)"minivmm", (char *)"--kernel", (char *)"k"};
    int argc = 3;
    for (unsigned i = 0; i < WORDS && words[i]; i++)
        argv[argc++] = (char *)words[i];
    err->text[0] = '\0';
    int rc = options_parse(argc, argv, options, err);
    return rc == 0 ? console_check(&options->vm, err) : rc;
}

/* Who has standard input and output: s, c, or the number of a port. */
static const struct {
    const char *words[WORDS];
    char stdio;
    int serial, console; /* kinds; -1: none */
    bool status;
    const char *line; /* the kernel's */
} goods[] = {
    {{NULL}, 's', MINIVMM_CHAR_FDS, -1, false, "console=ttyS0"},
    {{"--serial", "null"}, '-', MINIVMM_CHAR_NULL, -1, false, "console=ttyS0"},
    {{"--console", "stdio"}, 'c', MINIVMM_CHAR_NULL, MINIVMM_CHAR_FDS, true, "console=hvc0"},
    {{"--console", "null"},
     's',
     MINIVMM_CHAR_FDS,
     MINIVMM_CHAR_NULL,
     true,
     "console=ttyS0 console=hvc0"},
    {{"--console", "stdio", "--serial", "file:x"},
     'c',
     MINIVMM_CHAR_FILE,
     MINIVMM_CHAR_FDS,
     true,
     "console=ttyS0 console=hvc0"},
    {{"--serial", "pty", "--console", "unix:/s"},
     '-',
     MINIVMM_CHAR_PTY,
     MINIVMM_CHAR_UNIX,
     true,
     "console=ttyS0 console=hvc0"},
    {{"--serial", "fd:3"}, '-', MINIVMM_CHAR_FDS, -1, false, "console=ttyS0"},
    {{"--port", "a=stdio"}, '0', MINIVMM_CHAR_NULL, -1, true, "console=ttyS0"},
    {{"--port", "a=null", "--port", "b=null"}, 's', MINIVMM_CHAR_FDS, -1, true, "console=ttyS0"},
    {{"--port", "a=file:x=y,z"}, 's', MINIVMM_CHAR_FDS, -1, true, "console=ttyS0"},
    {{"--status-port"}, 's', MINIVMM_CHAR_FDS, -1, true, "console=ttyS0"},
    {{"--serial", "stdio", "--port", "A-z_0.9=unix:/s"},
     's',
     MINIVMM_CHAR_FDS,
     -1,
     true,
     "console=ttyS0"},
};

Test(config_consoles, what_they_mean)
{
    for (size_t i = 0; i < COUNT(goods); i++) {
        struct options o;
        struct minivmm_error err;
        cr_assert_eq(parse(goods[i].words, &o, &err), 0, "row %zu: %s", i, err.text);
        const struct minivmm_char *stdio = goods[i].stdio == 's'   ? &o.serial
                                           : goods[i].stdio == 'c' ? &o.console
                                           : goods[i].stdio == '0' ? &o.ports[0].host
                                                                   : NULL;
        cr_expect_eq(o.stdio, stdio, "row %zu", i);
        cr_expect_eq((int)o.vm.serial->kind, goods[i].serial, "row %zu", i);
        cr_expect_eq(o.vm.console ? (int)o.vm.console->kind : -1, goods[i].console, "row %zu", i);
        cr_expect_eq(o.vm.status_port, goods[i].status, "row %zu", i);
        cr_expect_str_eq(console_words(&o.vm), goods[i].line, "row %zu", i);
        options_finish(&o);
    }
}

#define LONG "a23456789b123456789c123456789d123456789e123456789f123456789g1234"

static const struct {
    const char *words[WORDS], *text;
} bads[] = {
    {{"--console", "stdio", "--serial", "stdio"},
     "--console and --serial: only one can have stdio"},
    {{"--port", "a=stdio", "--port", "b=stdio"}, "--port a and --port b: only one can have stdio"},
    {{"--console", "stdio", "--port", "b=stdio"},
     "--console and --port b: only one can have stdio"},
    {{"--console", "tcp:1"},
     "--console tcp:1: must be stdio, null, file:PATH, unix:PATH, pty or fd:N"},
    {{"--console", ""}, "--console : must be stdio"},
    {{"--console", "file:"}, "--console file:: must be stdio"},
    {{"--serial", "unix:"}, "--serial unix:: must be stdio"},
    {{"--serial", "stdio,x"}, "--serial stdio,x: must be stdio"},
    {{"--serial", "fd:2"}, "--serial fd:2: must be the number of an open file, from 3 on"},
    {{"--serial", "fd:"}, "--serial fd:: must be the number"},
    {{"--serial", "fd:x"}, "--serial fd:x: must be the number"},
    {{"--serial", "fd:3x"}, "--serial fd:3x: must be the number"},
    {{"--serial", "fd:-3"}, "--serial fd:-3: must be the number"},
    {{"--serial", "fd:99999999999999999999"}, "--serial fd:99999999999999999999: must be"},
    {{"--console", "null", "--console", "null"}, "--console: given twice"},
    {{"--port", "a"}, "--port a: must be NAME=WHERE"},
    {{"--port", "a=tcp"}, "--port a tcp: must be stdio"},
    {{"--port", "=null"}, "port 0: has no name"},
    {{"--port", "a=null", "--port", "a=null"}, "port a: given twice"},
    {{"--port", LONG "=null"}, "port a23456789b123456789c...: its name has 64 bytes, more than 63"},
    {{"--port", "a/b=null"}, "port 'a/b': a name is made of letters"},
    {{"--port", "a b=null"}, "port 'a b': a name is made of letters"},
    {{"--port", "\xc3\xa4=null"}, "port '\xc3\xa4': a name is made of letters"},
    {{"--port", "..=null"}, "port '..': a name is made of letters"},
    {{"--port", "org.minivmm.status=null"}, "port org.minivmm.status: that name is taken"},
    {{"--port", "console=null"}, "port console: that name is taken"},
    {{"--port", "a=unix:/s", "--console", "unix:/s"}, "port a: console has the same file"},
    {{"--port", "a=fd:5", "--port", "b=fd:5"}, "port b: port a has the same file"},
    {{"--serial", "file:x", "--port", "b=file:x"}, "port b: serial has the same file"},
};

Test(config_consoles, what_cannot_be_is_named)
{
    for (size_t i = 0; i < COUNT(bads); i++) {
        struct options o;
        struct minivmm_error err;
        cr_expect_eq(parse(bads[i].words, &o, &err), -EINVAL, "row %zu", i);
        cr_expect_eq(strncmp(err.text, bads[i].text, strlen(bads[i].text)), 0, "row %zu: %s", i,
                     err.text);
        cr_expect(support_one_line(&err, ""), "row %zu", i);
        options_finish(&o);
    }
}

Test(config_consoles, there_are_sixteen_ports)
{
    char words[17][24], *argv[3 + 2 * 17] = {(char *)"minivmm", (char *)"--kernel", (char *)"k"};
    for (int count = 16; count <= 17; count++) {
        struct options o;
        struct minivmm_error err;
        for (int i = 0; i < count; i++) {
            snprintf(words[i], sizeof(words[i]), "p%d=null", i);
            argv[3 + 2 * i] = (char *)"--port";
            argv[4 + 2 * i] = words[i];
        }
        cr_expect_eq(options_parse(3 + 2 * count, argv, &o, &err), count == 16 ? 0 : -EINVAL);
        if (count == 16)
            cr_expect_eq(console_check(&o.vm, &err), 0, "%s", err.text);
        else
            cr_expect_str_eq(err.text, "--port p16=null: a VM has room for 16 ports");
        options_finish(&o);
    }
}
