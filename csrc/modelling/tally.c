/* tally.c - rows are read once, and go into their cell's and stratum's sums, among their model's judged rows, and into
 * its counts.
 *
 * A block of rows goes through each step before the next one is taken, so that the processor waits for the memory of
 * many rows at once. */
#include "tally.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "lanes.h"
#include "models.h"

/* Classes of certainty beside exponents of two: the variance is 0, or not known. */
enum { CERTAIN = -1999, UNKNOWN = -2000 };

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

/* What lengths go from and to. */
static void span(struct llmpower_counts *counts, const double *l) {
    const double spanned[] = {l[0], l[1], l[2], l[3], l[0] / l[2], l[1] / l[2]};
    for (int k = 0; k < LLMPOWER_SPANNED; k++) {
        counts->low[k] = spanned[k] < counts->low[k] ? spanned[k] : counts->low[k];
        counts->high[k] = spanned[k] > counts->high[k] ? spanned[k] : counts->high[k];
    }
}

/* Sums as they are added: of energy and runtime, of input and output tokens, or of prefill and decode. */
typedef lanes two __attribute__((may_alias));

static_assert(offsetof(struct cell, sums) % sizeof(two) == 0, "sums begin where two of them may be added as one");

/* Of a cell Σ of each length, and of the squares of both tokens; of energy and runtime Σ1/y², Σ1/y, Σy and Σy²; of
 * runtime Σ1/y² times both tokens; of prefill and decode, their joules and then their seconds, of the rows that tell
 * them, Σ1, Σ1/y², Σ1/y and Σ1/y² times input tokens; of both decodes Σ1/y² times output tokens, which no prefill
 * depends on; and Σ1. Of a stratum Σ1, Σ(s/y)², and of energy Σ1/y², Σ1/y and Σ1/y² times both. */
static void add(double *cell, double *stratum, const struct llmpower_judged *row, double variance) {
    const two tokens = {row->lengths[0], row->lengths[1]}, requests = {row->lengths[2], row->lengths[3]};
    const two y = {row->energy_j, row->runtime_s}, one = {1, 1};
    const two inverse = one / y, w = inverse * inverse;
    two *sums = (two *)cell, *sure_sums = (two *)stratum, decodes = {0};
    *sums++ += tokens;
    *sums++ += requests;
    *sums++ += tokens * tokens;
    *sums++ += w;
    *sums++ += inverse;
    *sums++ += y;
    *sums++ += y * y;
    *sums++ += w[1] * tokens;
    for (int k = 0; k < LLMPOWER_PHASES; k += 2) {
        const two part = {row->phases[k], row->phases[k + 1]};
        const whole_lanes told = part > 0; /* what is so is -1 */
        const two inverse_part = (two)((whole_lanes)(one / part) & told), w_part = inverse_part * inverse_part;
        *sums++ += (two)((whole_lanes)one & told);
        *sums++ += w_part;
        *sums++ += inverse_part;
        *sums++ += w_part * tokens[0];
        decodes[k / 2] = w_part[1];
    }
    *sums++ += decodes * tokens[1];
    *(double *)sums += 1;
    *sure_sums++ += (two){1, isnan(variance) ? 0 : variance};
    *sure_sums++ += (two){w[0], inverse[0]};
    *sure_sums += w[0] * tokens;
}

/* Rows of a block that have joules: what they are, and where they go. */
struct block {
    size_t n;
    uint32_t row[BLOCK], model[BLOCK], likely[BLOCK]; /* the last one its stratum, when that was fetched */
    struct llmpower_judged rows[BLOCK];
    double lengths[BLOCK][LLMPOWER_LENGTHS], variance[BLOCK];
    uint64_t hash[BLOCK], number[BLOCK];
    int digits[BLOCK]; /* that lengths were kept to when they were hashed */
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

static void read_rows(struct block *b, const struct llmpower_tally *tally, const struct llmpower_rows *rows) {
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
        double requests = l[2] >= 1 ? l[2] : 1, sharing = l[3] >= 1 ? requests * l[3] : requests;
        /* What is added turns a zero below zero into one above. Written twice, because two numbers that were just
         * written one by one cannot be read as a pair at once. */
        double lengths[] = {l[0] + 0.0, l[1] + 0.0, requests, sharing};
        memcpy(l, lengths, sizeof lengths);
        memcpy(b->lengths[k], lengths, sizeof lengths);
        row->phases[3] = row->runtime_s - row->phases[2];
        b->variance[k] = s * s;
        row->certainty = class_of(b->variance[k]);
    }
    for (size_t k = 0; k < b->n; k++) {
        const struct strata *strata = &tally->models[b->model[k]].strata;
        b->digits[k] = strata->digits;
        b->hash[k] = strata_hash(strata, b->lengths[k]);
        strata_ask(strata, (int32_t)first[k].certainty, b->hash[k]);
    }
    for (size_t k = 0; k < b->n; k++) b->number[k] = judged_number(first + k);
}

/* The next rows of own models that have joules, as many as a block holds; where to go on from. */
static size_t choose(struct llmpower_tally *tally, const struct llmpower_rows *rows, size_t i, struct block *b) {
    for (b->n = 0; i < rows->n && b->n < BLOCK; i++) {
        uint32_t model = rows->model[i];
        int own = rows->own ? rows->own[model] : 1;
        b->row[b->n] = (uint32_t)i;
        b->model[b->n] = model;
        b->n += own & (rows->energy_j[i] > 0);
        tally->models[model].counts.below += own & (rows->energy_j[i] <= 0);
    }
    return i;
}

static int take_in(struct llmpower_tally *tally, struct block *b, const struct llmpower_rows *rows) {
    for (size_t k = 0; k < b->n; k++) {
        struct model *model = tally->models + b->model[k];
        struct strata *strata = &model->strata;
        int32_t certainty = (int32_t)b->rows[k].certainty;
        size_t n = strata->n;
        uint32_t found;
        /* A row before it may have had the model's lengths rounded. */
        if (strata->digits < b->digits[k]) b->hash[k] = strata_hash(strata, b->lengths[k]);
        if (strata_find(strata, b->lengths[k], certainty, b->hash[k], b->likely[k], &found)) return -1;
        struct stratum *stratum = strata->strata + found;
        add(strata->cells[stratum->cell].sums, stratum->sums, b->rows + k, b->variance[k]);
        model->counts.rows++;
        /* A stratum of before has had these lengths, unless it has been rounded. */
        if (strata->n > n || strata->digits < LLMPOWER_EXACT) span(&model->counts, b->rows[k].lengths);
        model->counts.allocated += rows->allocated && rows->allocated[b->row[k]];
        model->counts.modelled += rows->modelled && rows->modelled[b->row[k]];
        if (judged_may_stay(&model->judged, b->number[k]) &&
            judged_offer(&model->judged, b->rows + k, b->number[k], tally->most_judged))
            return -1;
    }
    return 0;
}

int llmpower_tally_rows(struct llmpower_tally *tally, const struct llmpower_rows *rows, size_t n_models) {
    struct block b;
    int status = 0;
    if (tally_models(tally, n_models)) return -1;
    for (size_t i = 0; i < rows->n && !status;) {
        i = choose(tally, rows, i, &b);
        read_rows(&b, tally, rows);
        for (size_t k = 0; k < b.n; k++)
            b.likely[k] = strata_fetch(&tally->models[b.model[k]].strata, (int32_t)b.rows[k].certainty, b.hash[k]);
        status = take_in(tally, &b, rows);
    }
    return status;
}
