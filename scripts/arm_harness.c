/* Runs one kernel on one call that scripts/arm_emulation.py has written down, and writes its results.

   The call: table length and table; number of buffers, each with its size and bytes; number of addresses, each as (holder,
   place in the holder, buffer, offset), the holder being the table (−1) or a buffer of 64-bit numbers; the place of
   sched_yield's address in the table, or −1; bytes of scratch memory, budget; number of results, each a buffer. All numbers
   are 64 bits. */
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

extern int64_t KERNEL(int64_t *table, void *scratch, int64_t budget);

static FILE *problem;

static int64_t number(void) {
    int64_t n;
    if (fread(&n, sizeof n, 1, problem) != 1) exit(3);
    return n;
}

static void *memory(int64_t size) {
    void *at = aligned_alloc(64, (size + 127) & ~(int64_t)63);
    if (!at) exit(4);
    return at;
}

int main(int count, char **names) {
    if (count != 3 || !(problem = fopen(names[1], "rb"))) return 2;
    int64_t length = number(), *table = memory(8 * length);
    for (int64_t i = 0; i < length; i++) table[i] = number();
    int64_t buffers = number(), *sizes = memory(8 * buffers);
    char **at = memory(8 * buffers);
    for (int64_t i = 0; i < buffers; i++) {
        sizes[i] = number();
        at[i] = memory(sizes[i]);
        if (fread(at[i], 1, sizes[i], problem) != (size_t)sizes[i]) return 3;
    }
    for (int64_t left = number(); left > 0; left--) {
        int64_t holder = number(), place = number(), buffer = number(), offset = number();
        int64_t *words = holder < 0 ? table : (int64_t *)at[holder];
        words[place] = (int64_t)(at[buffer] + offset);
    }
    int64_t give_way = number();
    if (give_way >= 0) table[give_way] = (int64_t)sched_yield;
    int64_t scratch = number(), budget = number();
    void *space = memory(scratch);
    while (KERNEL(table, space, budget)) {}
    FILE *results = fopen(names[2], "wb");
    for (int64_t left = number(); left > 0; left--) {
        int64_t buffer = number();
        if (fwrite(at[buffer], 1, sizes[buffer], results) != (size_t)sizes[buffer]) return 5;
    }
    return fclose(results) ? 5 : 0;
}
