/* strata.h - a model's sums by cell and by stratum: rows with the same lengths, and those of them that are about as
 * certain.
 *
 * A cell is a model's lengths, kept to as many leading binary digits as leave it no more cells than it may have; a
 * stratum is a cell's rows of one class of certainty. */
#ifndef LLMPOWER_STRATA_H
#define LLMPOWER_STRATA_H

#include <stdalign.h>

#include "tally.h"

enum { STRATA_LINE = 64 };

/* Five lines of a cache: what a row looks for lies beside what it adds to. */
struct cell {
    alignas(STRATA_LINE) double lengths[LLMPOWER_LENGTHS];
    double sums[LLMPOWER_SUMS];
    uint32_t first; /* of its strata */
};

/* One line. */
struct stratum {
    alignas(STRATA_LINE) double sums[LLMPOWER_SURE_SUMS];
    int32_t certainty;
    uint32_t cell, next; /* the next stratum of its cell */
};

/* A place in the table of cells, and in that of strata; the tag is half of a hash, so that others' cells need not be
 * looked at. */
struct cell_slot {
    uint32_t tag, cell;
};

struct slot {
    uint32_t tag, cell, stratum;
};

struct strata {
    size_t most_cells, n_cells, cells_room, n, room;
    struct cell *cells;
    struct stratum *strata;
    struct cell_slot *cell_table; /* by hash, as the next; both are twice as long as there is room for what they hold */
    struct slot *table;
    int digits; /* that lengths are kept to */
};

#define STRATA_NONE UINT32_MAX

/* Nothing, with room for a few; of no more cells than that, as long as a digit can be spared. 0, or -1 without memory,
 * as the next two; strata may then only be freed. */
int strata_init(struct strata *s, size_t most_cells);

/* The number of a cell or a stratum into ``found``, a new one where there was none. Where its cell would be one too
 * many, all are rounded and joined first, and these lengths with them: numbers change. The hash is by strata_hash, of
 * lengths kept to as many digits as the strata's. What strata_fetch took for the stratum is looked at first. */
int strata_cell(struct strata *s, double *lengths, uint64_t hash, uint32_t *found);
int strata_find(struct strata *s, double *lengths, int32_t certainty, uint64_t hash, uint32_t likely, uint32_t *found);

/* Keep lengths to no more digits than these; 0, or -1 without memory. */
int strata_round(struct strata *s, int digits);

/* Round lengths to the digits of the strata; the hash of what they are then. */
uint64_t strata_hash(const struct strata *s, double *lengths);

/* Have memory fetch where its table has a stratum; and, when that is there, what strata_find will look at: the
 * stratum that has the tag of the hash, STRATA_NONE where there is none. */
void strata_ask(const struct strata *s, int32_t certainty, uint64_t hash);
uint32_t strata_fetch(const struct strata *s, int32_t certainty, uint64_t hash);

void strata_free(struct strata *s);

#endif
