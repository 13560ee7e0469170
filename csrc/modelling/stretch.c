/* stretch.c - rows are chosen, read column by column, and put where the others of their model are. */
#include "stretch.h"

#include <math.h>
#include <string.h>

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

/* Which rows they are, and how many of each model; without a branch, because no processor can tell what row is own. */
static size_t choose(struct stretch *s, struct model *models, const struct llmpower_rows *rows, size_t i) {
    for (s->n = s->n_models = 0; i < rows->n && s->n < STRETCH; i++) {
        struct model *model = models + rows->model[i];
        size_t own = rows->own ? rows->own[rows->model[i]] : 1, has_joules = own & (rows->energy_j[i] > 0);
        model->counts.below += own & (rows->energy_j[i] <= 0); /* not where it is unknown */
        s->models[s->n_models] = rows->model[i];
        s->n_models += has_joules & !model->place;
        model->place += has_joules;
        s->rows[s->n] = i;
        s->n += has_joules;
    }
    return i;
}

/* Where the first of each model goes. */
static void begin(const struct stretch *s, struct model *models) {
    size_t place = 0;
    for (size_t k = 0; k < s->n_models; k++) {
        size_t n = models[s->models[k]].place;
        models[s->models[k]].place = place;
        place += n;
    }
}

/* A column's values for some rows, one of every entry's. */
static void read_reals(const size_t *row, size_t n, const double *column, double *to) {
    const size_t step = sizeof(struct entry) / sizeof *to;
    for (size_t k = 0; k < n; k++) to[k * step] = column ? column[row[k]] : NAN;
}

static void read_column(const size_t *row, size_t n, const struct llmpower_column *column, double *to) {
    const size_t step = sizeof(struct entry) / sizeof *to;
    if (!column->wholes) {
        read_reals(row, n, column->reals, to);
        return;
    }
    for (size_t k = 0; k < n; k++) to[k * step] = (double)column->wholes[row[k]];
}

static void read_entries(const size_t *row, size_t n, const struct llmpower_rows *rows, struct entry *entries) {
    struct llmpower_judged *first = &entries->row;
    read_reals(row, n, rows->energy_j, &first->energy_j);
    read_reals(row, n, rows->runtime_s, &first->runtime_s);
    read_column(row, n, &rows->input_tokens, first->lengths);
    read_column(row, n, &rows->output_tokens, first->lengths + 1);
    read_column(row, n, &rows->batch_size, first->lengths + 2);
    read_column(row, n, &rows->concurrency, first->lengths + 3);
    for (int k = 0; k < LLMPOWER_PHASES - 1; k++) read_reals(row, n, rows->phases[k], first->phases + k);
    for (size_t k = 0; k < n; k++) {
        struct entry *entry = entries + k;
        double *l = entry->row.lengths, s = rows->std_j ? rows->std_j[row[k]] / entry->row.energy_j : NAN;
        l[0] += 0.0; /* a zero below zero is one above it */
        l[1] += 0.0;
        l[2] = l[2] >= 1 ? l[2] : 1;
        l[3] = l[3] >= 1 ? l[2] * l[3] : l[2];
        entry->row.phases[3] = entry->row.runtime_s - entry->row.phases[2];
        entry->variance = s * s;
        entry->row.certainty = class_of(entry->variance);
        entry->model = rows->model[row[k]];
        entry->allocated = rows->allocated && rows->allocated[row[k]];
        entry->modelled = rows->modelled && rows->modelled[row[k]];
    }
}

size_t stretch_fill(struct stretch *s, struct model *models, const struct llmpower_rows *rows, size_t i) {
    struct entry entries[BLOCK];
    i = choose(s, models, rows, i);
    begin(s, models);
    for (size_t start = 0; start < s->n; start += BLOCK) {
        size_t n = start + BLOCK < s->n ? BLOCK : s->n - start;
        read_entries(s->rows + start, n, rows, entries);
        for (size_t k = 0; k < n; k++) s->entries[models[entries[k].model].place++] = entries[k];
    }
    for (size_t k = 0; k < s->n_models; k++) models[s->models[k]].place = 0;
    return i;
}
