/* Report a status through minivmm's debug exit register, as a test in a guest would. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>

#define DEBUG_EXIT 0xf4

int main(int argc, char **argv)
{
    if (argc != 2 || ioperm(DEBUG_EXIT, 4, 1) < 0) {
        perror("ioperm");
        return 1;
    }
    outl((unsigned)strtoul(argv[1], NULL, 0), DEBUG_EXIT);
    return 1; /* not reached: the VM has ended */
}
