/* tally.c - rows are read once, and go into their stratum's sums, among their model's judged rows, and into its counts.
 *
 * A block of rows goes through each step before the next one is taken, so that the processor waits for the memory of
 * many rows at once. */
#include "tally.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "judged.h"
#include "strata.h"

enum { BLOCK = 128 };

/* Classes of certainty beside exponents of two: the variance is 0, or not known. */
enum { CERTAIN = -1999, UNKNOWN = -2000 };

struct model {
    struct llmpower_counts counts;
    struct judged judged;
};

struct llmpower_tally {
    size_t most_judged, n_models;
    struct model *models;
    struct strata strata;
};

struct llmpower_tally *llmpower_tally_new(size_t most_cells, size_t most_judged) {
    struct llmpower_tally *tally = calloc(1, sizeof *tally);
    if (!tally) return NULL;
    tally->most_judged = most_judged;
    tally->strata.most_cells = most_cells;
    return tally;
}

void llmpower_tally_free(struct llmpower_tally *tally) {
    if (!tally) return;
    for (size_t m = 0; m < tally->n_models; m++) judged_free(&tally->models[m].judged);
    free(tally->models);
    strata_free(&tally->strata);
    free(tally);
}

static int make_models(struct llmpower_tally *tally, size_t n_models) {
    if (n_models <= tally->n_models) return 0;
    struct model *models = realloc(tally->models, n_models * sizeof *models);
    if (!models) return -1;
    tally->models = models;
    for (; tally->n_models < n_models; tally->n_models++) {
        struct model *model = memset(models + tally->n_models, 0, sizeof *model);
        for (int k = 0; k < LLMPOWER_SPANNED; k++) model->counts.low[k] = INFINITY, model->counts.high[k] = -INFINITY;
    }
    return strata_models(&tally->strata, n_models);
}

static double at_least_one(const double *column, size_t row) { return column && column[row] >= 1 ? column[row] : 1; }

/* The exponent of the power of two above a relative variance. */
static int32_t class_of(double variance) {
    int exponent;
    if (isnan(variance)) return UNKNOWN;
    if (variance == 0) return CERTAIN;
    frexp(variance, &exponent);
    return exponent;
}

static void count(struct llmpower_counts *counts, const struct llmpower_judged *row, int allocated, int modelled) {
    const double *l = row->lengths, spanned[] = {l[0], l[1], l[2], l[3], l[0] / l[2], l[1] / l[2]};
    counts->rows++;
    counts->allocated += allocated != 0;
    counts->modelled += modelled != 0;
    for (int k = 0; k < LLMPOWER_SPANNED; k++) {
        if (spanned[k] < counts->low[k]) counts->low[k] = spanned[k];
        if (spanned[k] > counts->high[k]) counts->high[k] = spanned[k];
    }
}

/* Σ1, Σ of each length, Σ1/y², Σ1/y, Σy and Σy² of energy and of runtime, Σ(s/y)², and Σ1, Σ1/y² and Σ1/y of each
 * phase, of the rows that tell it. */
static void add(double *sums, const struct llmpower_judged *row, double variance) {
    *sums++ += 1;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) *sums++ += row->lengths[k];
    const double targets[] = {row->energy_j, row->runtime_s};
    for (int k = 0; k < 2; k++) {
        double y = targets[k], inverse = 1 / y;
        *sums++ += inverse * inverse;
        *sums++ += inverse;
        *sums++ += y;
        *sums++ += y * y;
    }
    *sums++ += isnan(variance) ? 0 : variance;
    for (int k = 0; k < LLMPOWER_PHASES; k++, sums += 3) {
        double y = row->phases[k];
        if (!(y > 0)) continue;
        double inverse = 1 / y;
        sums[0] += 1;
        sums[1] += inverse * inverse;
        sums[2] += inverse;
    }
}

/* Rows of a block that have joules: what they are, and where they go. */
struct block {
    size_t n, row[BLOCK];
    struct llmpower_judged rows[BLOCK];
    double lengths[BLOCK][LLMPOWER_LENGTHS], variance[BLOCK];
    uint64_t hash[BLOCK];
};

static void read_row(struct block *b, const struct strata *strata, const struct llmpower_rows *rows, size_t i) {
    size_t at = b->n++;
    double s = rows->std_j ? rows->std_j[i] / rows->energy_j[i] : NAN, batch = at_least_one(rows->batch_size, i);
    struct llmpower_judged *row = b->rows + at;
    b->row[at] = i;
    b->variance[at] = s * s;
    /* What is added turns a zero below zero into one above. */
    *row = (struct llmpower_judged){
        rows->energy_j[i],
        rows->runtime_s[i],
        {rows->input_tokens[i] + 0.0, rows->output_tokens[i] + 0.0, batch, batch * at_least_one(rows->concurrency, i)},
        class_of(b->variance[at]),
        {0}};
    for (int k = 0; k < LLMPOWER_PHASES; k++) row->phases[k] = rows->phases[k] ? rows->phases[k][i] : NAN;
    memcpy(b->lengths[at], row->lengths, sizeof row->lengths);
    b->hash[at] = strata_hash(strata, rows->model[i], b->lengths[at], (int32_t)row->certainty);
}

/* Numbers of the part's rows, those of a model together and in their order: what a model's rows look for then stays in
 * the processor's cache. NULL where there is not enough memory. */
static uint32_t *by_model(const struct llmpower_rows *rows, size_t n_models, size_t *n) {
    uint32_t *order = calloc(rows->n + 1, sizeof *order);
    size_t *next = calloc(n_models + 1, sizeof *next), parts = rows->parts ? rows->parts : 1;
    if (order && next) {
        for (size_t i = 0; i < rows->n; i++) next[rows->model[i] + 1]++;
        for (size_t m = 0; m < n_models; m++) next[m + 1] = next[m] + (m % parts == rows->part ? next[m + 1] : 0);
        *n = next[n_models];
        for (size_t i = 0; i < rows->n; i++)
            if (rows->model[i] % parts == rows->part) order[next[rows->model[i]]++] = (uint32_t)i;
    } else {
        free(order);
        order = NULL;
    }
    free(next);
    return order;
}

static int take_in(struct llmpower_tally *tally, const struct llmpower_rows *rows, const uint32_t *order, size_t n) {
    struct strata *strata = &tally->strata;
    for (size_t start = 0; start < n; start += BLOCK) {
        size_t end = start + BLOCK < n ? start + BLOCK : n;
        struct block b;
        b.n = 0;
        if (strata_reserve(strata, BLOCK)) return -1;
        for (size_t at = start; at < end; at++) {
            size_t i = order[at];
            if (rows->energy_j[i] > 0) read_row(&b, strata, rows, i);
            tally->models[rows->model[i]].counts.below += rows->energy_j[i] <= 0;
        }
        for (size_t k = 0; k < b.n; k++) strata_fetch(strata, b.hash[k]);
        for (size_t k = 0; k < b.n; k++) {
            size_t i = b.row[k];
            struct model *model = tally->models + rows->model[i];
            int32_t certainty = (int32_t)b.rows[k].certainty;
            uint32_t found = strata_find(strata, rows->model[i], b.lengths[k], certainty, b.hash[k]);
            add(strata->strata[found].sums, b.rows + k, b.variance[k]);
            count(&model->counts, b.rows + k, rows->allocated && rows->allocated[i],
                  rows->modelled && rows->modelled[i]);
            if (judged_offer(&model->judged, b.rows + k, tally->most_judged)) return -1;
        }
    }
    return 0;
}

int llmpower_tally_rows(struct llmpower_tally *tally, const struct llmpower_rows *rows, size_t n_models) {
    size_t n = 0;
    if (make_models(tally, n_models)) return -1;
    uint32_t *order = by_model(rows, n_models, &n);
    int status = order ? take_in(tally, rows, order, n) : -1;
    free(order);
    if (status) return -1;
    return n_models ? strata_settle(&tally->strata, 0, LLMPOWER_EXACT) : 0;
}

int llmpower_tally_merge(struct llmpower_tally *tally, size_t model, const struct llmpower_counts *counts,
                         const struct llmpower_sizes *sizes, const double *lengths, const int64_t *certainty,
                         const double *sums, const struct llmpower_judged *judged) {
    struct strata *strata = &tally->strata;
    if (make_models(tally, model + 1) || strata_settle(strata, (uint32_t)model, sizes->digits)) return -1;
    struct llmpower_counts *own = &tally->models[model].counts;
    own->rows += counts->rows;
    own->below += counts->below;
    own->allocated += counts->allocated;
    own->modelled += counts->modelled;
    for (int k = 0; k < LLMPOWER_SPANNED; k++) {
        own->low[k] = fmin(own->low[k], counts->low[k]);
        own->high[k] = fmax(own->high[k], counts->high[k]);
    }
    if (strata_reserve(strata, sizes->strata)) return -1;
    for (size_t i = 0; i < sizes->strata; i++) {
        double theirs[LLMPOWER_LENGTHS];
        for (size_t k = 0; k < LLMPOWER_LENGTHS; k++) theirs[k] = lengths[k * sizes->strata + i];
        uint64_t hash = strata_hash(strata, (uint32_t)model, theirs, (int32_t)certainty[i]);
        uint32_t found = strata_find(strata, (uint32_t)model, theirs, (int32_t)certainty[i], hash);
        for (size_t k = 0; k < LLMPOWER_SUMS; k++) strata->strata[found].sums[k] += sums[k * sizes->strata + i];
    }
    for (size_t i = 0; i < sizes->judged; i++)
        if (judged_offer(&tally->models[model].judged, judged + i, tally->most_judged)) return -1;
    return strata_settle(strata, (uint32_t)model, LLMPOWER_EXACT);
}

void llmpower_tally_sizes(struct llmpower_tally *tally, size_t model, struct llmpower_sizes *sizes,
                          struct llmpower_counts *counts) {
    const struct cells_of_model *own = tally->strata.models + model;
    judged_settle(&tally->models[model].judged, tally->most_judged);
    *counts = tally->models[model].counts;
    *sizes = (struct llmpower_sizes){own->n, own->n_strata, tally->models[model].judged.n, own->digits};
}

static int by_lengths(const void *a, const void *b) {
    const struct cell *one = *(const struct cell *const *)a, *other = *(const struct cell *const *)b;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++)
        if (one->lengths[k] != other->lengths[k]) return one->lengths[k] < other->lengths[k] ? -1 : 1;
    return 0;
}

/* The stratum of a cell that is next in certainty after those below a bound; STRATA_NONE after the last. */
static uint32_t next_certain(const struct strata *strata, const struct cell *cell, int32_t bound) {
    uint32_t least = STRATA_NONE;
    for (uint32_t i = cell->strata; i != STRATA_NONE; i = strata->strata[i].next)
        if (strata->strata[i].certainty >= bound &&
            (least == STRATA_NONE || strata->strata[i].certainty < strata->strata[least].certainty))
            least = i;
    return least;
}

int llmpower_tally_model(struct llmpower_tally *tally, size_t model, double *lengths, int64_t *certainty,
                         int64_t *cells, double *sums, struct llmpower_judged *judged, int64_t *judged_strata) {
    struct strata *strata = &tally->strata;
    struct llmpower_sizes sizes;
    struct llmpower_counts counts;
    llmpower_tally_sizes(tally, model, &sizes, &counts);
    /* Where each stratum went, and the model's cells in order; both need memory even where there are none. */
    uint32_t *number = malloc((strata->n + 1) * sizeof *number);
    const struct cell **sorted = malloc((sizes.cells + 1) * sizeof(struct cell *));
    if (!number || !sorted || strata_reserve(strata, 1)) {
        free(number);
        free(sorted);
        return -1;
    }
    size_t n_sorted = 0, n = 0;
    for (uint32_t c = strata->models[model].first; c != STRATA_NONE; c = strata->cells[c].next)
        sorted[n_sorted++] = strata->cells + c;
    qsort(sorted, n_sorted, sizeof *sorted, by_lengths);
    for (size_t c = 0; c < n_sorted; c++) {
        int32_t bound = INT32_MIN;
        for (uint32_t i; (i = next_certain(strata, sorted[c], bound)) != STRATA_NONE; n++) {
            for (size_t k = 0; k < LLMPOWER_LENGTHS; k++) lengths[k * sizes.strata + n] = sorted[c]->lengths[k];
            for (size_t k = 0; k < LLMPOWER_SUMS; k++) sums[k * sizes.strata + n] = strata->strata[i].sums[k];
            certainty[n] = strata->strata[i].certainty;
            cells[n] = (int64_t)c;
            number[i] = (uint32_t)n;
            bound = strata->strata[i].certainty + 1;
        }
    }
    /* In blocks, as rows are taken in. */
    for (size_t start = 0; start < sizes.judged; start += BLOCK) {
        size_t in_block = start + BLOCK < sizes.judged ? BLOCK : sizes.judged - start;
        const struct llmpower_judged *rows = tally->models[model].judged.rows + start;
        double kept[BLOCK][LLMPOWER_LENGTHS];
        uint64_t hash[BLOCK];
        for (size_t k = 0; k < in_block; k++) {
            memcpy(kept[k], rows[k].lengths, sizeof kept[k]);
            hash[k] = strata_hash(strata, (uint32_t)model, kept[k], (int32_t)rows[k].certainty);
        }
        for (size_t k = 0; k < in_block; k++) strata_fetch(strata, hash[k]);
        for (size_t k = 0; k < in_block; k++) {
            int32_t class = (int32_t)rows[k].certainty;
            judged[start + k] = rows[k];
            judged_strata[start + k] = number[strata_find(strata, (uint32_t)model, kept[k], class, hash[k])];
        }
    }
    free(number);
    free(sorted);
    return 0;
}
