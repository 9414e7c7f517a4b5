/* `--help verdicts`: what the exit codes mean, in README.md's words; a test compares them. */
#include <string.h>

#include "vmm/config.h"

#define WIDTH 79u
#define LEFT  7u /* columns of the code */

static const struct {
    const char *code, *meaning;
} verdicts[] = {
    {"0", "powered off, or restarted, in order; or wrote 0 to the debug exit register; or printed "
          "what --until waits for"},
    {"1-119", "reported this status through the status port or the debug exit register (larger "
              "ones count as 119)"},
    {"120",
     "kernel panic: told by the panic device (pvpanic driver), by the reset flag that Linux sets "
     "with the default command line, or by its message on the console"},
    {"121", "triple fault, or KVM refused to run it"},
    {"122", "printed nothing for the time of --silence"},
    {"123", "ended well without printing all that was expected, or printed what it must not"},
    {"124", "did not end before the deadline"},
    {"125",
     "minivmm or its host failed: bad option, bad file, no KVM, output that could not be written"},
    {"128+N", "was stopped by signal N; Ctrl-A x counts as 2"},
};

/* Words behind the left column, on as many lines as they need. */
static void print_wrapped(FILE *out, const char *words)
{
    unsigned column = LEFT;

    while (*words) {
        unsigned length = (unsigned)strcspn(words, " ");
        if (column > LEFT && column + 1 + length > WIDTH) {
            fprintf(out, "\n%*s", (int)LEFT, "");
            column = LEFT;
        } else if (column > LEFT) {
            fputc(' ', out);
            column++;
        }
        fprintf(out, "%.*s", (int)length, words);
        column += length;
        words += length + (words[length] == ' ');
    }
    fputc('\n', out);
}

void options_print_verdicts(FILE *out)
{
    fputs("exit code, and the guest\n", out);
    for (size_t i = 0; i < sizeof(verdicts) / sizeof(verdicts[0]); i++) {
        fprintf(out, "%-*s", (int)LEFT, verdicts[i].code);
        print_wrapped(out, verdicts[i].meaning);
    }
}
