/* strata.c - a hash table of strata, which rows look into, and one of cells, which new strata do.
 *
 * Rows of traffic differ in their lengths, and how finely lengths can be kept is known only when all rows were seen:
 * cells are exact until there would be one too many, and are then rounded and joined: tokens by more digits than
 * numbers of requests, because of them cells have more sums than the mean. Of a part of the rows there are
 * fewer cells than of all, never more, so no part is rounded further than the whole, and the order of rows does not
 * matter.
 *
 * Most rows find a stratum that is not in the processor's nearest cache, so the tables are asked in three steps, with
 * other rows' steps between them: strata_ask tells memory what place will be wanted, strata_fetch what stratum and
 * cell, and strata_find wants them. A new stratum waits for the place of its cell: to have it fetched for each row
 * would be a line of eight, mostly for nothing. Large pages spare the processor a second wait, for where a page lies.
 */
#include "strata.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LEAST_ROOM = 8, LARGE_PAGE = 1 << 21 };

/* Leading binary digits that requests are kept to, each a rounding of the one before. */
static int fewer(int digits) { return digits == LLMPOWER_EXACT ? 10 : digits - 1; }

/* The same of tokens, of which fits know more than the mean. */
static int of_tokens(int digits) {
    return digits <= LLMPOWER_FINER ? 1 : digits == LLMPOWER_EXACT ? digits : digits - LLMPOWER_FINER;
}

/* A double keeps all but the first of its digits in its last 52 bits. */
static void round_down(double *lengths, int digits) {
    uint64_t bits;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) {
        int dropped = LLMPOWER_EXACT - (k < 2 ? of_tokens(digits) : digits);
        memcpy(&bits, lengths + k, sizeof bits);
        bits = bits >> dropped << dropped;
        memcpy(lengths + k, &bits, sizeof bits);
    }
}

/* Multiply and fold, once a value; multiplier as in SplitMix64. */
static uint64_t fold(uint64_t hash, uint64_t bits) {
    hash = (hash ^ bits) * 0xbf58476d1ce4e5b9u;
    return hash ^ hash >> 32;
}

static uint64_t hash_of(const double *lengths) {
    uint64_t hash = 0, bits;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) {
        memcpy(&bits, lengths + k, sizeof bits);
        hash = fold(hash, bits);
    }
    return hash;
}

/* Of a stratum, from that of its cell; a cell's strata are spread by the golden ratio (Knuth). */
static uint64_t hash_of_class(uint64_t hash, int32_t certainty) {
    return hash + (uint32_t)certainty * 0x9e3779b97f4a7c15u;
}

static uint32_t tag_of(uint64_t hash) { return (uint32_t)(hash >> 32); }

/* Where in its table a cell is, or would be put. */
static struct cell_slot *cell_place(const struct strata *s, const double *lengths, uint64_t hash) {
    size_t mask = 2 * s->cells_room - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        struct cell_slot *slot = s->cell_table + at;
        if (slot->cell == STRATA_NONE) return slot;
        if (slot->tag == tag_of(hash) && !memcmp(s->cells[slot->cell].lengths, lengths, sizeof s->cells->lengths))
            return slot;
    }
}

/* The same of a stratum. */
static struct slot *place(const struct strata *s, const double *lengths, int32_t certainty, uint64_t hash) {
    size_t mask = 2 * s->room - 1;
    for (size_t at = hash & mask;; at = (at + 1) & mask) {
        struct slot *slot = s->table + at;
        if (slot->stratum == STRATA_NONE) return slot;
        if (slot->tag == tag_of(hash) && s->strata[slot->stratum].certainty == certainty &&
            !memcmp(s->cells[slot->cell].lengths, lengths, sizeof s->cells->lengths))
            return slot;
    }
}

/* A larger copy of an array that begins where a line does, in large pages where it fills them and the system has them;
 * NULL where there is not enough memory, and the array stays. */
static void *grown(void *array, size_t old_size, size_t size) {
    void *more = NULL;
    if (posix_memalign(&more, size < LARGE_PAGE ? STRATA_LINE : LARGE_PAGE, size)) return NULL;
    /* What cannot be advised is slower, and no worse. */
    if (size >= LARGE_PAGE) (void)madvise(more, size, MADV_HUGEPAGE);
    if (array) memcpy(more, array, old_size);
    free(array);
    return more;
}

/* The first for a table without an entry. */
static void *empty_table(void *old, size_t size) {
    free(old);
    void *table = grown(NULL, 0, size);
    return table ? memset(table, 0xff, size) : NULL;
}

static void fill_table(struct strata *s) {
    for (uint32_t i = 0; i < s->n; i++) {
        const double *lengths = s->cells[s->strata[i].cell].lengths;
        uint64_t hash = hash_of_class(hash_of(lengths), s->strata[i].certainty);
        *place(s, lengths, s->strata[i].certainty, hash) = (struct slot){tag_of(hash), s->strata[i].cell, i};
    }
}

static void fill_cell_table(struct strata *s) {
    for (uint32_t c = 0; c < s->n_cells; c++) {
        uint64_t hash = hash_of(s->cells[c].lengths);
        *cell_place(s, s->cells[c].lengths, hash) = (struct cell_slot){tag_of(hash), c};
    }
}

/* Twice the room. */
static int more_strata(struct strata *s) {
    size_t room = s->room ? 2 * s->room : LEAST_ROOM;
    struct stratum *strata = grown(s->strata, s->n * sizeof *strata, room * sizeof *strata);
    if (!strata) return -1;
    s->strata = strata;
    s->table = empty_table(s->table, 2 * room * sizeof *s->table);
    if (!s->table) return -1;
    s->room = room;
    fill_table(s);
    return 0;
}

static int more_cells(struct strata *s) {
    size_t room = s->cells_room ? 2 * s->cells_room : LEAST_ROOM;
    struct cell *cells = grown(s->cells, s->n_cells * sizeof *cells, room * sizeof *cells);
    if (!cells) return -1;
    s->cells = cells;
    s->cell_table = empty_table(s->cell_table, 2 * room * sizeof *s->cell_table);
    if (!s->cell_table) return -1;
    s->cells_room = room;
    fill_cell_table(s);
    return 0;
}

int strata_init(struct strata *s, size_t most_cells) {
    *s = (struct strata){.most_cells = most_cells, .digits = LLMPOWER_EXACT};
    return more_strata(s) || more_cells(s) ? -1 : 0;
}

uint64_t strata_hash(const struct strata *s, double *lengths) {
    if (s->digits < LLMPOWER_EXACT) round_down(lengths, s->digits);
    return hash_of(lengths);
}

void strata_ask(const struct strata *s, int32_t certainty, uint64_t hash) {
    __builtin_prefetch(s->table + (hash_of_class(hash, certainty) & (2 * s->room - 1)));
}

static void fetch_cell(const struct strata *s, uint32_t cell) {
    const char *lines = (const char *)(s->cells + cell);
    for (size_t line = 0; line < sizeof(struct cell); line += STRATA_LINE) __builtin_prefetch(lines + line, 1);
}

uint32_t strata_fetch(const struct strata *s, int32_t certainty, uint64_t hash) {
    uint64_t of_class = hash_of_class(hash, certainty);
    size_t mask = 2 * s->room - 1, at = of_class & mask;
    while (s->table[at].stratum != STRATA_NONE && s->table[at].tag != tag_of(of_class)) at = (at + 1) & mask;
    if (s->table[at].stratum != STRATA_NONE) {
        __builtin_prefetch(s->strata + s->table[at].stratum, 1);
        fetch_cell(s, s->table[at].cell);
        return s->table[at].stratum;
    }
    mask = 2 * s->cells_room - 1, at = hash & mask;
    while (s->cell_table[at].cell != STRATA_NONE && s->cell_table[at].tag != tag_of(hash)) at = (at + 1) & mask;
    if (s->cell_table[at].cell != STRATA_NONE) fetch_cell(s, s->cell_table[at].cell);
    return STRATA_NONE;
}

/* Whether the stratum with this number, which may be none, has these. */
static int is_of(const struct strata *s, uint32_t stratum, const double *lengths, int32_t certainty) {
    return stratum < s->n && s->strata[stratum].certainty == certainty &&
           !memcmp(s->cells[s->strata[stratum].cell].lengths, lengths, sizeof s->cells->lengths);
}

/* Put a stratum that is not there at its place, in the list of its cell. */
static uint32_t put_stratum(struct strata *s, struct slot *at, uint64_t hash, uint32_t cell, int32_t certainty) {
    *at = (struct slot){tag_of(hash), cell, (uint32_t)s->n++};
    s->strata[at->stratum] = (struct stratum){.certainty = certainty, .cell = cell, .next = s->cells[cell].first};
    return s->cells[cell].first = at->stratum;
}

/* Round and join cells where they are; new_cell tells where each of them went. A cell never moves behind another that
 * is still to be looked at. */
static void join_cells(struct strata *s, uint32_t *new_cell) {
    size_t n_old = s->n_cells;
    memset(s->cell_table, 0xff, 2 * s->cells_room * sizeof *s->cell_table);
    s->n_cells = 0;
    for (size_t c = 0; c < n_old; c++) {
        struct cell old = s->cells[c];
        uint64_t hash = strata_hash(s, old.lengths);
        struct cell_slot *at = cell_place(s, old.lengths, hash);
        if (at->cell == STRATA_NONE) {
            *at = (struct cell_slot){tag_of(hash), (uint32_t)s->n_cells++};
            old.first = STRATA_NONE;
            s->cells[at->cell] = old;
        } else {
            for (int k = 0; k < LLMPOWER_SUMS; k++) s->cells[at->cell].sums[k] += old.sums[k];
        }
        new_cell[c] = at->cell;
    }
}

/* The same with strata. */
static void join_strata(struct strata *s, const uint32_t *new_cell) {
    size_t n_old = s->n;
    memset(s->table, 0xff, 2 * s->room * sizeof *s->table);
    s->n = 0;
    for (size_t i = 0; i < n_old; i++) {
        const struct stratum old = s->strata[i];
        uint32_t cell = new_cell[old.cell];
        uint64_t hash = hash_of_class(hash_of(s->cells[cell].lengths), old.certainty);
        struct slot *at = place(s, s->cells[cell].lengths, old.certainty, hash);
        uint32_t found = at->stratum == STRATA_NONE ? put_stratum(s, at, hash, cell, old.certainty) : at->stratum;
        for (int k = 0; k < LLMPOWER_SURE_SUMS; k++) s->strata[found].sums[k] += old.sums[k];
    }
}

int strata_round(struct strata *s, int digits) {
    if (digits >= s->digits) return 0;
    uint32_t *new_cell = malloc((s->n_cells + 1) * sizeof *new_cell);
    if (!new_cell) return -1;
    s->digits = digits;
    join_cells(s, new_cell);
    join_strata(s, new_cell);
    free(new_cell);
    return 0;
}

int strata_cell(struct strata *s, double *lengths, uint64_t hash, uint32_t *found) {
    while ((*found = cell_place(s, lengths, hash)->cell) == STRATA_NONE) {
        if (s->n_cells < s->most_cells || s->digits == 1) break;
        if (strata_round(s, fewer(s->digits))) return -1;
        hash = strata_hash(s, lengths);
    }
    if (*found != STRATA_NONE) return 0;
    if (s->n_cells == s->cells_room && more_cells(s)) return -1;
    *found = (uint32_t)s->n_cells++;
    *cell_place(s, lengths, hash) = (struct cell_slot){tag_of(hash), *found};
    s->cells[*found] = (struct cell){.first = STRATA_NONE};
    memcpy(s->cells[*found].lengths, lengths, sizeof s->cells->lengths);
    return 0;
}

int strata_find(struct strata *s, double *lengths, int32_t certainty, uint64_t hash, uint32_t likely, uint32_t *found) {
    uint64_t of_class = hash_of_class(hash, certainty);
    uint32_t cell;
    if (is_of(s, likely, lengths, certainty)) {
        *found = likely;
        return 0;
    }
    if ((*found = place(s, lengths, certainty, of_class)->stratum) != STRATA_NONE) return 0;
    if (strata_cell(s, lengths, hash, &cell) || (s->n == s->room && more_strata(s))) return -1;
    of_class = hash_of_class(hash_of(lengths), certainty);
    struct slot *at = place(s, lengths, certainty, of_class);
    *found = at->stratum == STRATA_NONE ? put_stratum(s, at, of_class, cell, certainty) : at->stratum;
    return 0;
}

void strata_free(struct strata *s) {
    free(s->cells);
    free(s->strata);
    free(s->cell_table);
    free(s->table);
}
