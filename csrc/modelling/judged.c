/* judged.c - a sample of rows by the smallest of numbers that are a hash of the rows themselves.
 *
 * Coefficients are found from all rows. How far predictions are off is an average, and some thousand rows say it as
 * well; medians need the rows themselves, which a hundred million have no room for. Which rows stay depends on what
 * they are alone, so all ways to read them judge by the same ones. Rows gather until there are twice as many as may
 * stay, so that dropping half of them costs each a few steps. */
#include "judged.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_ROOM = 256 };

/* The finaliser of SplitMix64 (Steele, Lea and Flood 2014), once a value. */
uint64_t judged_number(const struct llmpower_judged *row) {
    const double values[] = {row->energy_j, row->runtime_s, row->lengths[0], row->lengths[1]};
    uint64_t number = 0, bits;
    for (int k = 0; k < 4; k++) {
        memcpy(&bits, values + k, sizeof bits);
        number ^= bits;
        number = (number ^ (number >> 30)) * 0xbf58476d1ce4e5b9u;
        number = (number ^ (number >> 27)) * 0x94d049bb133111ebu;
        number ^= number >> 31;
    }
    return number;
}

/* The least bound that `most` of the numbers do not exceed, one digit after another: of those that begin as it does,
 * how many have each value of the next eight bits. */
static uint64_t smallest(const uint64_t *numbers, size_t n, size_t most) {
    uint64_t begin = 0, known = 0; /* the bound's digits so far, and which they are */
    for (int shift = 56; shift >= 0; shift -= 8) {
        size_t of_value[256] = {0};
        for (size_t i = 0; i < n; i++)
            if ((numbers[i] & known) == begin) of_value[numbers[i] >> shift & 0xff]++;
        uint64_t value = 0;
        while (of_value[value] < most) most -= of_value[value++];
        begin |= value << shift;
        known |= (uint64_t)0xff << shift;
    }
    return begin;
}

void judged_settle(struct judged *j, size_t most) {
    if (j->n <= most) return;
    uint64_t last = smallest(j->numbers, j->n, most);
    size_t less = 0, n = 0;
    for (size_t i = 0; i < j->n; i++) less += j->numbers[i] < last;
    size_t equal = most - less; /* that stay: rows that are the same are as good as each other */
    for (size_t i = 0; i < j->n; i++) {
        if (j->numbers[i] > last || (j->numbers[i] == last && !equal)) continue;
        equal -= j->numbers[i] == last;
        j->numbers[n] = j->numbers[i];
        j->rows[n++] = j->rows[i];
    }
    j->n = n;
    j->last = last;
    j->full = 1;
}

static int grow(struct judged *j) {
    size_t room = j->room ? 2 * j->room : LEAST_ROOM;
    struct llmpower_judged *rows = realloc(j->rows, room * sizeof *rows);
    if (rows) j->rows = rows;
    uint64_t *numbers = realloc(j->numbers, room * sizeof *numbers);
    if (numbers) j->numbers = numbers;
    if (!rows || !numbers) return -1;
    j->room = room;
    return 0;
}

int judged_offer(struct judged *j, const struct llmpower_judged *row, uint64_t number, size_t most) {
    if (!judged_may_stay(j, number)) return 0;
    if (j->n / 2 >= most) judged_settle(j, most);
    if (j->n == j->room && grow(j)) return -1;
    j->numbers[j->n] = number;
    j->rows[j->n++] = *row;
    return 0;
}

void judged_free(struct judged *j) {
    free(j->rows);
    free(j->numbers);
}
