/* strata.h - sums by stratum: rows of one model that have the same lengths and are about as sure.
 *
 * A cell is a model's lengths, kept to as many leading binary digits as leave it no more cells than it may have; a
 * stratum is a cell's rows of one class of certainty. */
#ifndef LLMPOWER_STRATA_H
#define LLMPOWER_STRATA_H

#include "tally.h"

struct cell {
    double lengths[LLMPOWER_LENGTHS];
    uint32_t model, next, strata; /* the next cell of its model, and the first of its strata */
};

/* Four lines of a cache: what a row looks for lies beside what it adds to. */
struct stratum {
    double lengths[LLMPOWER_LENGTHS], sums[LLMPOWER_SUMS];
    int32_t certainty;
    uint32_t model, cell, next; /* the next stratum of its cell */
};

struct cells_of_model {
    uint32_t first, n, n_strata;
    int digits;
};

/* A place in the table of strata; the tag is half of a hash, so that others' strata need not be looked at. */
struct slot {
    uint32_t tag, stratum;
};

struct strata {
    size_t most_cells, n_cells, cells_room, n, room, n_models;
    struct cell *cells;
    struct stratum *strata;
    uint32_t *cell_table; /* by hash, as the next; both are twice as long as there is room for what they hold */
    struct slot *table;
    struct cells_of_model *models;
};

#define STRATA_NONE UINT32_MAX

/* Make room for so many models, and for so many more rows that each may be a stratum; 0, or -1 without memory. */
int strata_models(struct strata *s, size_t n_models);
int strata_reserve(struct strata *s, size_t n_more);

/* Round lengths to the digits of the model; the hash of what they are then, for the two below. */
uint64_t strata_hash(const struct strata *s, uint32_t model, double *lengths, int32_t certainty);

/* Have memory fetch what strata_find will look at; the place in the table was asked for by strata_hash. */
void strata_fetch(const struct strata *s, uint64_t hash);

/* The number of a stratum, a new one where there was none and room was reserved. */
uint32_t strata_find(struct strata *s, uint32_t model, const double *lengths, int32_t certainty, uint64_t hash);

/* Keep a model's lengths to no more digits than these, and all models' to as few as leave them no more cells than they
 * may have; 0, or -1 without memory. Numbers of strata change. */
int strata_settle(struct strata *s, uint32_t model, int digits);

void strata_free(struct strata *s);

#endif
