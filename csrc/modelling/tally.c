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

enum { BLOCK = 64 };

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

/* The exponent of the power of two above a relative variance. */
static int32_t class_of(double variance) {
    uint64_t bits;
    int exponent;
    if (isnan(variance)) return UNKNOWN;
    if (variance == 0) return CERTAIN;
    memcpy(&bits, &variance, sizeof bits);
    exponent = (int)(bits >> 52);
    if (exponent > 0 && exponent < 0x7ff) return exponent - 0x3fe;
    frexp(variance, &exponent);
    return exponent;
}

static void count(struct llmpower_counts *counts, const struct llmpower_judged *row) {
    const double *l = row->lengths, spanned[] = {l[0], l[1], l[2], l[3], l[0] / l[2], l[1] / l[2]};
    counts->rows++;
    for (int k = 0; k < LLMPOWER_SPANNED; k++) {
        counts->low[k] = spanned[k] < counts->low[k] ? spanned[k] : counts->low[k];
        counts->high[k] = spanned[k] > counts->high[k] ? spanned[k] : counts->high[k];
    }
}

/* Σ1, Σ of each length, Σ1/y², Σ1/y, Σy and Σy² of energy and of runtime, Σ(s/y)², and Σ1, Σ1/y² and Σ1/y of each
 * phase, of the rows that tell it. All quotients are there before the first is added: a processor divides some at once,
 * and a zero is as good as no sum. */
static void add(double *sums, const struct llmpower_judged *row, double variance) {
    double y[2 + LLMPOWER_PHASES], inverse[2 + LLMPOWER_PHASES], told[2 + LLMPOWER_PHASES];
    y[0] = row->energy_j, y[1] = row->runtime_s;
    memcpy(y + 2, row->phases, sizeof row->phases);
    for (int k = 0; k < 2 + LLMPOWER_PHASES; k++) inverse[k] = 1 / y[k];
    for (int k = 0; k < 2 + LLMPOWER_PHASES; k++) {
        told[k] = k < 2 || y[k] > 0 ? 1 : 0;
        inverse[k] = k < 2 || y[k] > 0 ? inverse[k] : 0;
    }
    *sums++ += 1;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) *sums++ += row->lengths[k];
    for (int k = 0; k < 2; k++) {
        *sums++ += inverse[k] * inverse[k];
        *sums++ += inverse[k];
        *sums++ += y[k];
        *sums++ += y[k] * y[k];
    }
    *sums++ += isnan(variance) ? 0 : variance;
    for (int k = 2; k < 2 + LLMPOWER_PHASES; k++) {
        *sums++ += told[k];
        *sums++ += inverse[k] * inverse[k];
        *sums++ += inverse[k];
    }
}

/* Rows of a block that have joules: what they are, and where they go. */
struct block {
    size_t n;
    uint32_t row[BLOCK], model[BLOCK];
    struct llmpower_judged rows[BLOCK];
    double lengths[BLOCK][LLMPOWER_LENGTHS], variance[BLOCK];
    uint64_t hash[BLOCK], number[BLOCK];
};

/* A column's values for the block's rows; a step goes through all rows at once, so that the processor waits for the
 * memory of many. */
static void read_reals(const struct block *b, const double *column, double *to) {
    const size_t step = sizeof(struct llmpower_judged) / sizeof *to;
    for (size_t k = 0; k < b->n; k++) to[k * step] = column ? column[b->row[k]] : NAN;
}

static void read_column(const struct block *b, const struct llmpower_column *column, double *to) {
    const size_t step = sizeof(struct llmpower_judged) / sizeof *to;
    if (!column->wholes) {
        read_reals(b, column->reals, to);
        return;
    }
    for (size_t k = 0; k < b->n; k++) to[k * step] = (double)column->wholes[b->row[k]];
}

static void read_rows(struct block *b, const struct strata *strata, const struct llmpower_rows *rows) {
    struct llmpower_judged *first = b->rows;
    read_reals(b, rows->energy_j, &first->energy_j);
    read_reals(b, rows->runtime_s, &first->runtime_s);
    read_column(b, &rows->input_tokens, first->lengths);
    read_column(b, &rows->output_tokens, first->lengths + 1);
    read_column(b, &rows->batch_size, first->lengths + 2);
    read_column(b, &rows->concurrency, first->lengths + 3);
    for (int k = 0; k < LLMPOWER_PHASES - 1; k++) read_reals(b, rows->phases[k], first->phases + k);
    for (size_t k = 0; k < b->n; k++) {
        struct llmpower_judged *row = b->rows + k;
        double *l = row->lengths, s = rows->std_j ? rows->std_j[b->row[k]] / row->energy_j : NAN;
        /* What is added turns a zero below zero into one above. */
        l[0] += 0.0;
        l[1] += 0.0;
        l[2] = l[2] >= 1 ? l[2] : 1;
        l[3] = l[3] >= 1 ? l[2] * l[3] : l[2];
        row->phases[3] = row->runtime_s - row->phases[2];
        b->variance[k] = s * s;
        row->certainty = class_of(b->variance[k]);
        memcpy(b->lengths[k], l, sizeof row->lengths);
    }
    for (size_t k = 0; k < b->n; k++)
        b->hash[k] = strata_hash(strata, b->model[k], b->lengths[k], (int32_t)first[k].certainty);
    for (size_t k = 0; k < b->n; k++) b->number[k] = judged_number(first + k);
}

/* Which of the models are of the part; NULL where there is not enough memory. */
static uint8_t *own_models(const struct llmpower_rows *rows, size_t n_models) {
    uint8_t *own = malloc(n_models + 1);
    for (size_t m = 0; own && m < n_models; m++) own[m] = rows->parts < 2 || m % rows->parts == rows->part;
    return own;
}

/* The next rows of the part that have joules, as many as a block holds; where to go on from. */
static size_t choose(struct llmpower_tally *tally, const struct llmpower_rows *rows, const uint8_t *own, size_t i,
                     struct block *b) {
    for (b->n = 0; i < rows->n && b->n < BLOCK; i++) {
        uint32_t model = rows->model[i];
        b->row[b->n] = (uint32_t)i;
        b->model[b->n] = model;
        b->n += own[model] & (rows->energy_j[i] > 0);
        tally->models[model].counts.below += own[model] & (rows->energy_j[i] <= 0);
    }
    return i;
}

static int take_in(struct llmpower_tally *tally, const struct block *b, const struct llmpower_rows *rows) {
    struct strata *strata = &tally->strata;
    for (size_t k = 0; k < b->n; k++) {
        struct model *model = tally->models + b->model[k];
        int32_t certainty = (int32_t)b->rows[k].certainty;
        uint32_t found = strata_find(strata, b->model[k], b->lengths[k], certainty, b->hash[k]);
        add(strata->strata[found].sums, b->rows + k, b->variance[k]);
        count(&model->counts, b->rows + k);
        model->counts.allocated += rows->allocated && rows->allocated[b->row[k]];
        model->counts.modelled += rows->modelled && rows->modelled[b->row[k]];
        if (judged_offer(&model->judged, b->rows + k, b->number[k], tally->most_judged)) return -1;
    }
    return 0;
}

int llmpower_tally_rows(struct llmpower_tally *tally, const struct llmpower_rows *rows, size_t n_models) {
    struct strata *strata = &tally->strata;
    struct block b;
    int status = 0;
    if (make_models(tally, n_models)) return -1;
    uint8_t *own = own_models(rows, n_models);
    if (!own) return -1;
    for (size_t i = 0; i < rows->n && !status;) {
        i = choose(tally, rows, own, i, &b);
        status = strata_reserve(strata, BLOCK);
        if (status) break;
        read_rows(&b, strata, rows);
        for (size_t k = 0; k < b.n; k++) strata_fetch(strata, b.hash[k]);
        status = take_in(tally, &b, rows);
    }
    free(own);
    if (status) return -1;
    return n_models ? strata_settle(strata, 0, LLMPOWER_EXACT) : 0;
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
        if (judged_offer(&tally->models[model].judged, judged + i, judged_number(judged + i), tally->most_judged))
            return -1;
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
