/* Runs one kernel on one call that scripts/emulation.py has written down, and writes its results.

   The call: table length and table; number of buffers, each with its size and bytes; number of addresses, each as (holder,
   place in the holder, buffer, offset), the holder being the table (−1) or a buffer of 64-bit numbers; the place of
   sched_yield's address in the table, or −1; bytes of scratch memory, budget. All numbers are 64 bits. The results are all
   buffers, in which addresses that the kernel left alone are what they were. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32
#include <malloc.h>
#include <windows.h>
#define aligned_alloc(alignment, size) _aligned_malloc(size, alignment)
#define sched_yield SwitchToThread
// Windows' own name of the function that touches each page of a large frame; the compiler's library has it under another.
__asm__(".globl __chkstk\n__chkstk: jmp ___chkstk_ms");
#else
#include <sched.h>
#endif

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
    int64_t moved = number(), (*moves)[3] = memory(24 * moved + 24);
    for (int64_t i = 0; i < moved; i++) {
        int64_t holder = number(), place = number(), buffer = number(), offset = number();
        int64_t *word = (holder < 0 ? table : (int64_t *)at[holder]) + place;
        moves[i][0] = holder < 0 ? 0 : (int64_t)word;
        moves[i][1] = *word;
        moves[i][2] = *word = (int64_t)(at[buffer] + offset);
    }
    int64_t give_way = number();
    if (give_way >= 0) table[give_way] = (int64_t)sched_yield;
    int64_t scratch = number(), budget = number();
    void *space = memory(scratch);
    while (KERNEL(table, space, budget)) {}
    for (int64_t i = 0; i < moved; i++) {
        int64_t *word = (int64_t *)moves[i][0];
        if (word && *word == moves[i][2]) *word = moves[i][1];
    }
    FILE *results = fopen(names[2], "wb");
    for (int64_t i = 0; i < buffers; i++) {
        if (fwrite(at[i], 1, sizes[i], results) != (size_t)sizes[i]) return 5;
    }
    return fclose(results) ? 5 : 0;
}
