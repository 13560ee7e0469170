/* strata.c - a hash table of strata, which rows look into, and one of cells, which new strata do.
 *
 * Rows of traffic differ in their lengths, and how finely lengths can be kept is known only when all rows were seen:
 * cells are exact until there are too many, and are then rounded and joined. Of a part of the rows there are fewer
 * cells than of all, never more, so no part is rounded further than the whole, and the order of rows does not matter.
 *
 * Most rows find a stratum that is not in the processor's cache, so the table is asked in three steps, with other rows'
 * steps between them: strata_hash tells memory what place in the table will be wanted, strata_fetch what stratum, and
 * strata_find wants it. Large pages spare the processor a second wait, for where a page lies. */
#include "strata.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LEAST_ROOM = 1024, LINE = 64, PAGE = 4096 };

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

/* Multiply and fold, once a value; multiplier as in SplitMix64. */
static uint64_t fold(uint64_t hash, uint64_t bits) {
    hash = (hash ^ bits) * 0xbf58476d1ce4e5b9u;
    return hash ^ hash >> 32;
}

static uint64_t hash_of(uint32_t model, const double *lengths) {
    uint64_t hash = model, bits;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) {
        memcpy(&bits, lengths + k, sizeof bits);
        hash = fold(hash, bits);
    }
    return hash;
}

/* Where in its table a cell is, or would be put. */
static uint32_t *cell_place(const struct strata *s, uint32_t model, const double *lengths) {
    size_t mask = 2 * s->cells_room - 1;
    for (size_t at = hash_of(model, lengths) & mask;; at = (at + 1) & mask) {
        uint32_t found = s->cell_table[at];
        if (found == STRATA_NONE) return s->cell_table + at;
        const struct cell *cell = s->cells + found;
        if (cell->model == model && !memcmp(cell->lengths, lengths, sizeof cell->lengths)) return s->cell_table + at;
    }
}

static uint32_t tag_of(uint64_t hash) { return (uint32_t)(hash >> 32); }

/* The same of a stratum. */
static struct slot *place(const struct strata *s, uint32_t model, const double *lengths, int32_t certainty,
                          uint64_t hash) {
    size_t mask = 2 * s->room - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        struct slot *slot = s->table + at;
        if (slot->stratum == STRATA_NONE) return slot;
        if (slot->tag != tag_of(hash)) continue;
        const struct stratum *stratum = s->strata + slot->stratum;
        if (stratum->model == model && stratum->certainty == certainty &&
            !memcmp(stratum->lengths, lengths, sizeof stratum->lengths))
            return slot;
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

/* Put a stratum that is not there at its place, in the list of its cell. Its sums are the caller's. */
static uint32_t put_stratum(struct strata *s, struct slot *at, uint64_t hash, uint32_t cell, int32_t certainty) {
    struct stratum *stratum = s->strata + s->n;
    memcpy(stratum->lengths, s->cells[cell].lengths, sizeof stratum->lengths);
    stratum->certainty = certainty;
    stratum->model = s->cells[cell].model;
    stratum->cell = cell;
    stratum->next = s->cells[cell].strata;
    s->models[stratum->model].n_strata++;
    *at = (struct slot){tag_of(hash), (uint32_t)s->n++};
    return s->cells[cell].strata = at->stratum;
}

int strata_models(struct strata *s, size_t n_models) {
    if (n_models <= s->n_models) return 0;
    struct cells_of_model *models = realloc(s->models, n_models * sizeof *models);
    if (!models) return -1;
    s->models = models;
    for (; s->n_models < n_models; s->n_models++)
        models[s->n_models] = (struct cells_of_model){STRATA_NONE, 0, 0, LLMPOWER_EXACT};
    return 0;
}

static size_t room_for(size_t n) {
    size_t room = LEAST_ROOM;
    while (room < n) room *= 2;
    return room;
}

/* More memory for an array, in large pages where the system has them; NULL where there is not enough. */
static void *grown(void *array, size_t size) {
    char *more = realloc(array, size);
    /* What cannot be advised is slower, and no worse. */
    if (more) (void)madvise((void *)((uintptr_t)more / PAGE * PAGE), size, MADV_HUGEPAGE);
    return more;
}

/* The same for what shall begin where a line of the processor's cache does: pages of its own. */
static void *on_lines(void *array, size_t old_size, size_t size) {
    void *more = array ? mremap(array, old_size, size, MREMAP_MAYMOVE)
                       : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (more == MAP_FAILED) return NULL;
    (void)madvise(more, size, MADV_HUGEPAGE);
    return more;
}

/* The first for a table without an entry. */
static void *empty_table(void *old, size_t size) {
    void *table = grown(old, size);
    return table ? memset(table, 0xff, size) : NULL;
}

static void fill_table(struct strata *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        const struct stratum *stratum = s->strata + i;
        uint64_t hash = fold(hash_of(stratum->model, stratum->lengths), (uint32_t)stratum->certainty);
        *place(s, stratum->model, stratum->lengths, stratum->certainty, hash) = (struct slot){tag_of(hash), i};
    }
}

static void fill_cell_table(struct strata *s) {
    for (uint32_t c = 0; c < s->n_cells; c++) *cell_place(s, s->cells[c].model, s->cells[c].lengths) = c;
}

int strata_reserve(struct strata *s, size_t n_more) {
    if (s->n + n_more > s->room) {
        size_t room = room_for(s->n + n_more);
        struct slot *table = empty_table(NULL, 2 * room * sizeof *table);
        struct stratum *strata = table ? on_lines(s->strata, s->room * sizeof *strata, room * sizeof *strata) : NULL;
        if (!strata) { /* what there is stays as it is, and is freed by its old size */
            free(table);
            return -1;
        }
        free(s->table);
        s->table = table;
        s->strata = strata;
        s->room = room;
        fill_table(s);
    }
    if (s->n_cells + n_more > s->cells_room) {
        size_t room = room_for(s->n_cells + n_more);
        struct cell *cells = grown(s->cells, room * sizeof *cells);
        if (!cells) return -1;
        s->cells = cells;
        uint32_t *table = empty_table(s->cell_table, 2 * room * sizeof *table);
        if (!table) return -1;
        s->cell_table = table;
        s->cells_room = room;
        fill_cell_table(s);
    }
    return 0;
}

uint64_t strata_hash(const struct strata *s, uint32_t model, double *lengths, int32_t certainty) {
    if (s->models[model].digits < LLMPOWER_EXACT) round_down(lengths, s->models[model].digits);
    uint64_t of_cell = hash_of(model, lengths), hash = fold(of_cell, (uint32_t)certainty);
    /* A stratum that is not there yet asks for its cell, too. */
    __builtin_prefetch(s->cell_table + (of_cell & (2 * s->cells_room - 1)));
    __builtin_prefetch(s->table + (hash & (2 * s->room - 1)));
    return hash;
}

void strata_fetch(const struct strata *s, uint64_t hash) {
    size_t mask = 2 * s->room - 1, at = hash & mask;
    while (s->table[at].stratum != STRATA_NONE && s->table[at].tag != tag_of(hash)) at = (at + 1) & mask;
    if (s->table[at].stratum == STRATA_NONE) return;
    const char *stratum = (const char *)(s->strata + s->table[at].stratum);
    for (size_t line = 0; line < sizeof(struct stratum); line += LINE) __builtin_prefetch(stratum + line, 1);
}

uint32_t strata_find(struct strata *s, uint32_t model, const double *lengths, int32_t certainty, uint64_t hash) {
    struct slot *at = place(s, model, lengths, certainty, hash);
    if (at->stratum != STRATA_NONE) return at->stratum;
    uint32_t *cell = cell_place(s, model, lengths);
    if (*cell == STRATA_NONE) put(s, cell, model, lengths);
    uint32_t found = put_stratum(s, at, hash, *cell, certainty);
    memset(s->strata[found].sums, 0, sizeof s->strata[found].sums);
    return found;
}

/* Round and join cells where they are; new_cell tells where each of them went. A cell never moves behind another that
 * is still to be looked at. */
static void round_cells(struct strata *s, uint32_t *new_cell) {
    size_t n_old = s->n_cells;
    memset(s->cell_table, 0xff, 2 * s->cells_room * sizeof *s->cell_table);
    for (size_t m = 0; m < s->n_models; m++)
        s->models[m].first = STRATA_NONE, s->models[m].n = 0, s->models[m].n_strata = 0;
    s->n_cells = 0;
    for (size_t c = 0; c < n_old; c++) {
        struct cell cell = s->cells[c];
        if (s->models[cell.model].digits < LLMPOWER_EXACT) round_down(cell.lengths, s->models[cell.model].digits);
        uint32_t *at = cell_place(s, cell.model, cell.lengths);
        new_cell[c] = *at == STRATA_NONE ? put(s, at, cell.model, cell.lengths) : *at;
    }
}

/* The same with strata, whose sums are added up. */
static void join_strata(struct strata *s, const uint32_t *new_cell) {
    size_t n_old = s->n;
    s->n = 0;
    memset(s->table, 0xff, 2 * s->room * sizeof *s->table);
    for (size_t i = 0; i < n_old; i++) {
        const struct stratum old = s->strata[i];
        const struct cell *cell = s->cells + new_cell[old.cell];
        uint64_t hash = fold(hash_of(cell->model, cell->lengths), (uint32_t)old.certainty);
        struct slot *at = place(s, cell->model, cell->lengths, old.certainty, hash);
        if (at->stratum == STRATA_NONE) {
            uint32_t found = put_stratum(s, at, hash, new_cell[old.cell], old.certainty);
            memcpy(s->strata[found].sums, old.sums, sizeof old.sums);
        } else {
            for (int k = 0; k < LLMPOWER_SUMS; k++) s->strata[at->stratum].sums[k] += old.sums[k];
        }
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
    if (s->strata) (void)munmap(s->strata, s->room * sizeof *s->strata);
    free(s->cell_table);
    free(s->table);
    free(s->models);
}
