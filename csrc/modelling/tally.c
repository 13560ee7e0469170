/* tally.c - rows are read once, and go into their cell's and stratum's sums, among their model's judged rows, and into
 * its counts.
 *
 * A block of rows goes through each step before the next one is taken, so that the processor waits for the memory of
 * many rows at once. */
#include "tally.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Σ1/y², Σ1/y and Σ1/y² times each of some lengths; what follows them. */
static double *add_relative(double *sums, double inverse, const double *lengths, int n_lengths) {
    const double w = inverse * inverse;
    *sums++ += w;
    *sums++ += inverse;
    for (int k = 0; k < n_lengths; k++) *sums++ += w * lengths[k];
    return sums;
}

/* Of a cell Σ1, Σ of each length, Σ of the squares of input and output tokens; Σ1/y², Σ1/y, Σy and Σy² of energy; of
 * runtime the same, with Σ1/y² times both tokens; and Σ1, Σ1/y² and Σ1/y of each phase, of the rows that tell it, with
 * Σ1/y² times the tokens that it depends on, which are the prompt's for a prefill. Of a stratum Σ1, Σ(s/y)², and of
 * energy Σ1/y², Σ1/y and Σ1/y² times both. All quotients are there before the first is added: a processor divides some
 * at once, and a zero is as good as no sum. */
static void add(double *sums, double *sure_sums, const struct llmpower_judged *row, double variance) {
    double y[2 + LLMPOWER_PHASES], inverse[2 + LLMPOWER_PHASES], told[2 + LLMPOWER_PHASES];
    y[0] = row->energy_j, y[1] = row->runtime_s;
    memcpy(y + 2, row->phases, sizeof row->phases);
    for (int k = 0; k < 2 + LLMPOWER_PHASES; k++) inverse[k] = 1 / y[k];
    for (int k = 0; k < 2 + LLMPOWER_PHASES; k++) {
        told[k] = k < 2 || y[k] > 0 ? 1 : 0;
        inverse[k] = k < 2 || y[k] > 0 ? inverse[k] : 0;
    }
    *sure_sums++ += 1;
    *sure_sums++ += isnan(variance) ? 0 : variance;
    add_relative(sure_sums, inverse[0], row->lengths, 2);
    *sums++ += 1;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++) *sums++ += row->lengths[k];
    for (int k = 0; k < 2; k++) *sums++ += row->lengths[k] * row->lengths[k];
    for (int k = 0; k < 2; k++) {
        sums = add_relative(sums, inverse[k], row->lengths, k == 0 ? 0 : 2);
        *sums++ += y[k];
        *sums++ += y[k] * y[k];
    }
    for (int k = 2; k < 2 + LLMPOWER_PHASES; k++) {
        *sums++ += told[k];
        sums = add_relative(sums, inverse[k], row->lengths, k % 2 == 0 ? 1 : 2);
    }
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
