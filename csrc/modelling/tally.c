/* tally.c - rows go into their cell's and stratum's sums, among their model's judged rows, and into its counts.
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
#include "stretch.h"

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

/* A block of rows, each step for all of them. */
static int take_in(struct llmpower_tally *tally, const struct entry *entries, size_t n) {
    double lengths[BLOCK][LLMPOWER_LENGTHS];
    uint64_t hash[BLOCK], number[BLOCK];
    uint32_t likely[BLOCK]; /* its stratum, when that was fetched */
    int digits[BLOCK];      /* that lengths were kept to when they were hashed */
    for (size_t k = 0; k < n; k++) {
        const struct strata *strata = &tally->models[entries[k].model].strata;
        memcpy(lengths[k], entries[k].row.lengths, sizeof lengths[k]);
        digits[k] = strata->digits;
        hash[k] = strata_hash(strata, lengths[k]);
        strata_ask(strata, (int32_t)entries[k].row.certainty, hash[k]);
    }
    for (size_t k = 0; k < n; k++) number[k] = judged_number(&entries[k].row);
    for (size_t k = 0; k < n; k++)
        likely[k] = strata_fetch(&tally->models[entries[k].model].strata, (int32_t)entries[k].row.certainty, hash[k]);
    for (size_t k = 0; k < n; k++) {
        const struct entry *entry = entries + k;
        struct model *model = tally->models + entry->model;
        struct strata *strata = &model->strata;
        int32_t certainty = (int32_t)entry->row.certainty;
        size_t n_strata = strata->n;
        uint32_t found;
        /* A row before it may have had the model's lengths rounded. */
        if (strata->digits < digits[k]) hash[k] = strata_hash(strata, lengths[k]);
        if (strata_find(strata, lengths[k], certainty, hash[k], likely[k], &found)) return -1;
        struct stratum *stratum = strata->strata + found;
        add(strata->cells[stratum->cell].sums, stratum->sums, &entry->row, entry->variance);
        model->counts.rows++;
        /* A stratum of before has had these lengths, unless it has been rounded. */
        if (strata->n > n_strata || strata->digits < LLMPOWER_EXACT) span(&model->counts, entry->row.lengths);
        model->counts.allocated += entry->allocated;
        model->counts.modelled += entry->modelled;
        if (judged_may_stay(&model->judged, number[k]) &&
            judged_offer(&model->judged, &entry->row, number[k], tally->most_judged))
            return -1;
    }
    return 0;
}

int llmpower_tally_rows(struct llmpower_tally *tally, const struct llmpower_rows *rows, size_t n_models) {
    int status = 0;
    if (tally_models(tally, n_models)) return -1;
    if (!tally->stretch) tally->stretch = malloc(sizeof *tally->stretch);
    if (!tally->stretch) return -1;
    for (size_t i = 0; i < rows->n && !status;) {
        const struct stretch *stretch = tally->stretch;
        i = stretch_fill(tally->stretch, tally->models, rows, i);
        for (size_t k = 0; k < stretch->n && !status; k += BLOCK)
            status = take_in(tally, stretch->entries + k, k + BLOCK < stretch->n ? BLOCK : stretch->n - k);
    }
    return status;
}
