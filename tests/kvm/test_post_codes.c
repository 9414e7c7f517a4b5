/* Port 0x80: what a guest writes there is kept with the time it came. */
#include <stdlib.h>

#include "tests/kvm/guest.h"

SUITE(post_codes);

/* Parameter 0: write 1, 2, ... up to it. */
GUEST(posts, "xor %eax, %eax\n"
             "1: cmp guest_parameters(%rip), %eax\n"
             "je 2f\n"
             "inc %eax\n"
             "out %al, $0x80\n"
             "jmp 1b\n"
             "2: exit 0\n");

Test(post_codes, are_kept_in_order_with_rising_times_up_to_64)
{
    static const struct {
        unsigned written, max;
        size_t kept;
    } rows[] = {{0, 64, 0}, {3, 64, 3}, {64, 64, 64}, {70, 100, 64}, {70, 10, 10}};

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct guest_run run = guest_config();
        struct minivmm_post_code codes[100];
        struct minivmm_times times;

        run.parameters[0] = rows[i].written;
        guest_start(&run, guest_posts);
        guest_wait(&run);
        size_t count = minivmm_post_codes(run.vm, codes, rows[i].max);
        cr_expect_eq(count, rows[i].kept);
        minivmm_times(run.vm, &times);
        uint64_t before = times.start;
        for (size_t k = 0; k < count; k++) {
            cr_expect_eq(codes[k].code, k + 1);
            cr_expect(codes[k].time_ns >= before && codes[k].time_ns <= times.end);
            before = codes[k].time_ns;
        }
        guest_destroy(&run);
        guest_free(&run);
    }
}
