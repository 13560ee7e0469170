/* strata.c - a hash table of cells, each with a short list of its strata.
 *
 * Rows of traffic differ in their lengths, and how finely lengths can be kept is known only when all rows were seen:
 * cells are exact until there are too many, and are then rounded and joined. Of a part of the rows there are fewer
 * cells than of all, never more, so no part is rounded further than the whole, and the order of rows does not matter.
 *
 * Most rows find a cell that is not in the processor's cache, so the table is asked in two steps, with other rows'
 * steps between them: strata_hash tells memory what will be wanted, strata_find wants it. */
#include "strata.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_ROOM = 1024 };

/* Leading binary digits that lengths are kept to, each a rounding of the one before. */
static int fewer(int digits) { return digits == LLMPOWER_EXACT ? 8 : digits - 1; }

/* A double keeps all but the first of its digits in its last 52 bits. */
static void round_down(double *lengths, int digits) {
    uint64_t kept = ~(((uint64_t)1 << (LLMPOWER_EXACT - digits)) - 1), bits;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) {
        memcpy(&bits, lengths + k, sizeof bits);
        bits &= kept;
        memcpy(lengths + k, &bits, sizeof bits);
    }
}

/* Multiply and fold, once a length; multiplier as in SplitMix64. */
static uint64_t hash_of(uint32_t model, const double *lengths) {
    uint64_t hash = model, bits;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) {
        memcpy(&bits, lengths + k, sizeof bits);
        hash = (hash ^ bits) * 0xbf58476d1ce4e5b9u;
        hash ^= hash >> 32;
    }
    return hash;
}

/* Where in the table a cell is, or would be put. */
static uint32_t *place(const struct strata *s, uint32_t model, const double *lengths, uint64_t hash) {
    size_t mask = 2 * s->cells_room - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        uint32_t found = s->table[at];
        if (found == STRATA_NONE) return s->table + at;
        const struct cell *cell = s->cells + found;
        if (cell->model == model && !memcmp(cell->lengths, lengths, sizeof cell->lengths)) return s->table + at;
    }
}

/* Put a cell that is not there at its place, without strata. */
static uint32_t put(struct strata *s, uint32_t *at, uint32_t model, const double *lengths) {
    struct cells_of_model *own = s->models + model;
    struct cell *cell = s->cells + s->n_cells;
    memmove(cell->lengths, lengths, sizeof cell->lengths);
    cell->model = model;
    cell->next = own->first;
    cell->strata = STRATA_NONE;
    own->n++;
    return *at = own->first = (uint32_t)s->n_cells++;
}

static uint32_t stratum_of(const struct strata *s, uint32_t cell, int32_t certainty) {
    uint32_t found = s->cells[cell].strata;
    while (found != STRATA_NONE && s->strata[found].certainty != certainty) found = s->strata[found].next;
    return found;
}

static uint32_t put_stratum(struct strata *s, uint32_t cell, int32_t certainty) {
    s->strata[s->n] = (struct stratum){certainty, cell, s->cells[cell].strata};
    return s->cells[cell].strata = (uint32_t)s->n++;
}

int strata_models(struct strata *s, size_t n_models) {
    if (n_models <= s->n_models) return 0;
    struct cells_of_model *models = realloc(s->models, n_models * sizeof *models);
    if (!models) return -1;
    s->models = models;
    for (; s->n_models < n_models; s->n_models++)
        models[s->n_models] = (struct cells_of_model){STRATA_NONE, 0, LLMPOWER_EXACT};
    return 0;
}

static size_t room_for(size_t n) {
    size_t room = LEAST_ROOM;
    while (room < n) room *= 2;
    return room;
}

int strata_reserve(struct strata *s, size_t n_more) {
    if (s->n + n_more > s->room) {
        size_t room = room_for(s->n + n_more);
        struct stratum *strata = realloc(s->strata, room * sizeof *strata);
        if (strata) s->strata = strata;
        double (*sums)[LLMPOWER_SUMS] = realloc(s->sums, room * sizeof *sums);
        if (sums) s->sums = sums;
        if (!strata || !sums) return -1;
        s->room = room;
    }
    if (s->n_cells + n_more > s->cells_room) {
        size_t room = room_for(s->n_cells + n_more);
        struct cell *cells = realloc(s->cells, room * sizeof *cells);
        if (cells) s->cells = cells;
        uint32_t *table = malloc(2 * room * sizeof *table);
        if (!cells || !table) {
            free(table);
            return -1;
        }
        free(s->table);
        s->table = memset(table, 0xff, 2 * room * sizeof *table);
        s->cells_room = room;
        for (uint32_t c = 0; c < s->n_cells; c++)
            *place(s, cells[c].model, cells[c].lengths, hash_of(cells[c].model, cells[c].lengths)) = c;
    }
    return 0;
}

uint64_t strata_hash(const struct strata *s, uint32_t model, double *lengths) {
    if (s->models[model].digits < LLMPOWER_EXACT) round_down(lengths, s->models[model].digits);
    uint64_t hash = hash_of(model, lengths);
    __builtin_prefetch(s->table + (hash & (2 * s->cells_room - 1)));
    return hash;
}

uint32_t strata_find(struct strata *s, uint32_t model, const double *lengths, uint64_t hash, int32_t certainty) {
    uint32_t *at = place(s, model, lengths, hash);
    uint32_t cell = *at == STRATA_NONE ? put(s, at, model, lengths) : *at;
    uint32_t found = stratum_of(s, cell, certainty);
    if (found != STRATA_NONE) return found;
    found = put_stratum(s, cell, certainty);
    memset(s->sums[found], 0, sizeof s->sums[found]);
    return found;
}

/* Round and join cells where they are; new_cell tells where each of them went. A cell never moves behind another that
 * is still to be looked at. */
static void round_cells(struct strata *s, uint32_t *new_cell) {
    size_t n_old = s->n_cells;
    memset(s->table, 0xff, 2 * s->cells_room * sizeof *s->table);
    for (size_t m = 0; m < s->n_models; m++) s->models[m].first = STRATA_NONE, s->models[m].n = 0;
    s->n_cells = 0;
    for (size_t c = 0; c < n_old; c++) {
        struct cell cell = s->cells[c];
        uint64_t hash = strata_hash(s, cell.model, cell.lengths);
        uint32_t *at = place(s, cell.model, cell.lengths, hash);
        new_cell[c] = *at == STRATA_NONE ? put(s, at, cell.model, cell.lengths) : *at;
    }
}

/* The same with strata, whose sums are added up. */
static void join_strata(struct strata *s, const uint32_t *new_cell) {
    size_t n_old = s->n;
    s->n = 0;
    for (size_t i = 0; i < n_old; i++) {
        uint32_t cell = new_cell[s->strata[i].cell], found = stratum_of(s, cell, s->strata[i].certainty);
        if (found != STRATA_NONE) {
            for (int k = 0; k < LLMPOWER_SUMS; k++) s->sums[found][k] += s->sums[i][k];
            continue;
        }
        found = put_stratum(s, cell, s->strata[i].certainty);
        memmove(s->sums[found], s->sums[i], sizeof s->sums[found]);
    }
}

static int too_many(struct strata *s) {
    int some = 0;
    for (size_t m = 0; m < s->n_models; m++)
        if (s->models[m].n > s->most_cells && s->models[m].digits > 1)
            s->models[m].digits = fewer(s->models[m].digits), some = 1;
    return some;
}

int strata_settle(struct strata *s, uint32_t model, int digits) {
    int rounded = digits < s->models[model].digits;
    if (rounded) s->models[model].digits = digits;
    if (!too_many(s) && !rounded) return 0;
    size_t n_old = s->n_cells;
    uint32_t *new_cell = malloc((2 * n_old + 1) * sizeof *new_cell);
    if (!new_cell) return -1;
    round_cells(s, new_cell);
    while (too_many(s)) {
        uint32_t *again = new_cell + n_old;
        round_cells(s, again);
        for (size_t c = 0; c < n_old; c++) new_cell[c] = again[new_cell[c]];
    }
    join_strata(s, new_cell);
    free(new_cell);
    return 0;
}

void strata_free(struct strata *s) {
    free(s->cells);
    free(s->strata);
    free(s->sums);
    free(s->table);
    free(s->models);
}
