/* models.c - the models of a tally: made, taken out as arrays, taken in from another's, and freed. */
#include "models.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static_assert(sizeof(struct llmpower_judged) == LLMPOWER_JUDGED * sizeof(double), "a judged row is its values");

struct llmpower_tally *llmpower_tally_new(size_t most_cells, size_t most_judged) {
    struct llmpower_tally *tally = calloc(1, sizeof *tally);
    if (!tally) return NULL;
    tally->most_cells = most_cells;
    tally->most_judged = most_judged;
    return tally;
}

void llmpower_tally_free(struct llmpower_tally *tally) {
    if (!tally) return;
    for (size_t m = 0; m < tally->n_models; m++) {
        judged_free(&tally->models[m].judged);
        strata_free(&tally->models[m].strata);
    }
    free(tally->models);
    free(tally->stretch);
    free(tally);
}

int tally_models(struct llmpower_tally *tally, size_t n_models) {
    if (n_models <= tally->n_models) return 0;
    struct model *models = realloc(tally->models, n_models * sizeof *models);
    if (!models) return -1;
    tally->models = models;
    while (tally->n_models < n_models) {
        struct model *model = memset(models + tally->n_models++, 0, sizeof *model);
        for (int k = 0; k < LLMPOWER_SPANNED; k++) model->counts.low[k] = INFINITY, model->counts.high[k] = -INFINITY;
        if (strata_init(&model->strata, tally->most_cells)) return -1;
    }
    return 0;
}

void llmpower_tally_sizes(struct llmpower_tally *tally, size_t model, struct llmpower_sizes *sizes,
                          struct llmpower_counts *counts) {
    struct model *own = tally->models + model;
    judged_settle(&own->judged, tally->most_judged);
    *counts = own->counts;
    *sizes = (struct llmpower_sizes){own->strata.n_cells, own->strata.n, own->judged.n, own->strata.digits};
}

/* A cell by what it is sorted by. */
struct place {
    double lengths[LLMPOWER_LENGTHS];
    uint32_t cell;
};

static int by_lengths(const void *a, const void *b) {
    const struct place *one = a, *other = b;
    for (int k = 0; k < LLMPOWER_LENGTHS; k++)
        if (one->lengths[k] != other->lengths[k]) return one->lengths[k] < other->lengths[k] ? -1 : 1;
    return 0;
}

/* The stratum of a cell that is next in certainty after those below a bound; STRATA_NONE after the last. */
static uint32_t next_certain(const struct strata *s, const struct cell *cell, int32_t bound) {
    uint32_t least = STRATA_NONE;
    for (uint32_t i = cell->first; i != STRATA_NONE; i = s->strata[i].next)
        if (s->strata[i].certainty >= bound &&
            (least == STRATA_NONE || s->strata[i].certainty < s->strata[least].certainty))
            least = i;
    return least;
}

/* Cells and strata in their order; where each stratum went. */
static void take_out_strata(const struct strata *s, const struct place *sorted, const struct llmpower_arrays *to,
                            uint32_t *number) {
    size_t n = 0;
    for (size_t c = 0; c < s->n_cells; c++) {
        const struct cell *cell = s->cells + sorted[c].cell;
        for (size_t k = 0; k < LLMPOWER_LENGTHS; k++) to->lengths[k * s->n_cells + c] = cell->lengths[k];
        for (size_t k = 0; k < LLMPOWER_SUMS; k++) to->sums[k * s->n_cells + c] = cell->sums[k];
        int32_t bound = INT32_MIN;
        for (uint32_t i; (i = next_certain(s, cell, bound)) != STRATA_NONE; n++) {
            for (size_t k = 0; k < LLMPOWER_SURE_SUMS; k++) to->sure_sums[k * s->n + n] = s->strata[i].sums[k];
            to->certainty[n] = s->strata[i].certainty;
            to->cells[n] = (int64_t)c;
            number[i] = (uint32_t)n;
            bound = s->strata[i].certainty + 1;
        }
    }
}

/* Judged rows in blocks, as rows are taken in; their strata are all there. */
static void take_out_judged(struct model *model, const uint32_t *number, const struct llmpower_arrays *to) {
    struct strata *s = &model->strata;
    double kept[BLOCK][LLMPOWER_LENGTHS];
    uint64_t hash[BLOCK];
    uint32_t likely[BLOCK];
    for (size_t start = 0; start < model->judged.n; start += BLOCK) {
        const struct llmpower_judged *rows = model->judged.rows + start;
        size_t n = start + BLOCK < model->judged.n ? BLOCK : model->judged.n - start;
        for (size_t k = 0; k < n; k++) {
            memcpy(kept[k], rows[k].lengths, sizeof kept[k]);
            hash[k] = strata_hash(s, kept[k]);
            strata_ask(s, (int32_t)rows[k].certainty, hash[k]);
        }
        for (size_t k = 0; k < n; k++) likely[k] = strata_fetch(s, (int32_t)rows[k].certainty, hash[k]);
        for (size_t v = 0; v < LLMPOWER_JUDGED; v++)
            for (size_t k = 0; k < n; k++)
                to->judged[v * model->judged.n + start + k] = ((const double *)(rows + k))[v];
        for (size_t k = 0; k < n; k++) {
            uint32_t found;
            (void)strata_find(s, kept[k], (int32_t)rows[k].certainty, hash[k], likely[k], &found);
            to->judged_strata[start + k] = number[found];
        }
    }
}

int llmpower_tally_model(struct llmpower_tally *tally, size_t model, const struct llmpower_arrays *arrays) {
    struct model *own = tally->models + model;
    const struct strata *s = &own->strata;
    /* Both need memory even where there are none. */
    uint32_t *number = malloc((s->n + 1) * sizeof *number);
    struct place *sorted = malloc((s->n_cells + 1) * sizeof *sorted);
    if (number && sorted) {
        for (uint32_t c = 0; c < s->n_cells; c++) {
            memcpy(sorted[c].lengths, s->cells[c].lengths, sizeof sorted->lengths);
            sorted[c].cell = c;
        }
        qsort(sorted, s->n_cells, sizeof *sorted, by_lengths);
        take_out_strata(s, sorted, arrays, number);
        take_out_judged(own, number, arrays);
    }
    int status = number && sorted ? 0 : -1;
    free(number);
    free(sorted);
    return status;
}

static void merge_counts(struct llmpower_counts *own, const struct llmpower_counts *theirs) {
    own->rows += theirs->rows;
    own->below += theirs->below;
    own->allocated += theirs->allocated;
    own->modelled += theirs->modelled;
    for (int k = 0; k < LLMPOWER_SPANNED; k++) {
        own->low[k] = fmin(own->low[k], theirs->low[k]);
        own->high[k] = fmax(own->high[k], theirs->high[k]);
    }
}

int llmpower_tally_merge(struct llmpower_tally *tally, size_t model, const struct llmpower_counts *counts,
                         const struct llmpower_sizes *sizes, const struct llmpower_arrays *arrays) {
    if (tally_models(tally, model + 1)) return -1;
    struct model *own = tally->models + model;
    struct strata *s = &own->strata;
    merge_counts(&own->counts, counts);
    if (strata_round(s, sizes->digits)) return -1;
    double lengths[LLMPOWER_LENGTHS];
    uint32_t found;
    for (size_t c = 0; c < sizes->cells; c++) {
        for (size_t k = 0; k < LLMPOWER_LENGTHS; k++) lengths[k] = arrays->lengths[k * sizes->cells + c];
        if (strata_cell(s, lengths, strata_hash(s, lengths), &found)) return -1;
        for (size_t k = 0; k < LLMPOWER_SUMS; k++) s->cells[found].sums[k] += arrays->sums[k * sizes->cells + c];
    }
    for (size_t i = 0; i < sizes->strata; i++) {
        int32_t certainty = (int32_t)arrays->certainty[i];
        for (size_t k = 0; k < LLMPOWER_LENGTHS; k++)
            lengths[k] = arrays->lengths[k * sizes->cells + (size_t)arrays->cells[i]];
        if (strata_find(s, lengths, certainty, strata_hash(s, lengths), STRATA_NONE, &found)) return -1;
        for (size_t k = 0; k < LLMPOWER_SURE_SUMS; k++)
            s->strata[found].sums[k] += arrays->sure_sums[k * sizes->strata + i];
    }
    for (size_t i = 0; i < sizes->judged; i++) {
        struct llmpower_judged row;
        for (size_t v = 0; v < LLMPOWER_JUDGED; v++) ((double *)&row)[v] = arrays->judged[v * sizes->judged + i];
        if (judged_offer(&own->judged, &row, judged_number(&row), tally->most_judged)) return -1;
    }
    return 0;
}
