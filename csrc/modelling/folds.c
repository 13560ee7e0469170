/* folds.c - one pass over the cells for each thing that is computed of a form.
 *
 * A form of five terms over some thousand cells is little arithmetic, and many arrays where each step makes one. Here
 * two cells beside each other, the vector that every processor has, go from the first step to the last. The formulas
 * are those of llmpower/modelling/regressing/folds.py: with r = Σwy − W·xβ and h = W·xᵀG⁻¹x a fold is
 * β − G⁻¹x·r/(1 − h), by Sherman and Morrison. */
#include "folds.h"

#include <math.h>
#include <string.h>

#include "lanes.h"
#include "normal.h"

/* Two cells; what is beyond the last weighs nothing. */
struct pair {
    lanes x[LLMPOWER_TERMS], w, wy;
};

/* As the next, part of each loop that calls it: a call takes as long as two numbers. */
static inline __attribute__((always_inline)) void load(lanes *to, const double *from, size_t there) {
    if (there >= LANES) {
        memcpy(to, from, sizeof *to);
    } else {
        *to = (lanes){0};
        memcpy(to, from, there * sizeof *from);
    }
}

static inline __attribute__((always_inline)) void take(const struct llmpower_cells *cells, size_t c, struct pair *of) {
    for (size_t k = 0; k < cells->n_terms; k++) load(&of->x[k], cells->design + k * cells->m + c, cells->m - c);
    load(&of->w, cells->w + c, cells->m - c);
    load(&of->wy, cells->wy + c, cells->m - c);
}

static double sum(const lanes *of) {
    const lanes a = *of;
    return a[0] + a[1];
}

static int any(const whole_lanes *of) {
    const whole_lanes a = *of;
    return (a[0] | a[1]) != 0;
}

void llmpower_gram(const struct llmpower_cells *cells, double *gram, double *moment, double *ends) {
    size_t n = cells->n_terms;
    lanes G[LLMPOWER_TERMS * LLMPOWER_TERMS], g[LLMPOWER_TERMS];
    struct pair of;
    for (size_t k = 0; k < n * n; k++) G[k] = (lanes){0};
    for (size_t k = 0; k < n; k++) g[k] = (lanes){0};
    for (size_t c = 0; c < cells->m; c += LANES) {
        take(cells, c, &of);
        for (size_t j = 0; j < n; j++) {
            lanes wx = of.w * of.x[j];
            for (size_t k = 0; k <= j; k++) G[j * n + k] += wx * of.x[k];
            g[j] += of.wy * of.x[j];
        }
    }
    for (size_t j = 0; j < n; j++) {
        for (size_t k = 0; k <= j; k++) gram[j * n + k] = gram[k * n + j] = sum(&G[j * n + k]);
        moment[j] = sum(&g[j]);
    }
    llmpower_eigenvalues(n, gram, gram, ends);
}

/* G⁻¹x of two cells into H, and the leverage of each into h. */
static void influence(const struct pair *of, size_t n, const double *inverse, lanes *H, lanes *h) {
    *h = (lanes){0};
    for (size_t j = 0; j < n; j++) {
        lanes found = {0};
        for (size_t k = 0; k < n; k++) found += inverse[j * n + k] * of->x[k];
        H[j] = found;
        *h += found * of->x[j];
    }
    *h *= of->w;
}

/* Whether no cell pulls the fit so far towards itself that the others do not determine it. */
static int all_spared(const struct llmpower_cells *cells, const double *inverse, double singular) {
    struct pair of;
    lanes H[LLMPOWER_TERMS], h;
    whole_lanes too_far = {0};
    for (size_t c = 0; c < cells->m; c += LANES) {
        take(cells, c, &of);
        influence(&of, cells->n_terms, inverse, H, &h);
        too_far |= h > 1 - singular;
    }
    return !any(&too_far);
}

/* The inverse on the terms that are free, with zeros for the others; -1 where there is none. */
static int inverse_of(size_t n, const double *gram, const unsigned char *is_free, double *inverse) {
    double part[LLMPOWER_TERMS * LLMPOWER_TERMS] = {0}, inverted[LLMPOWER_TERMS * LLMPOWER_TERMS];
    size_t places[LLMPOWER_TERMS], p = 0;
    for (size_t k = 0; k < n; k++)
        if (is_free[k]) places[p++] = k;
    for (size_t i = 0; i < p; i++)
        for (size_t j = 0; j < p; j++) part[i * p + j] = gram[places[i] * n + places[j]];
    if (llmpower_inverse(p, part, inverted)) return -1;
    for (size_t k = 0; k < n * n; k++) inverse[k] = 0;
    for (size_t i = 0; i < p; i++)
        for (size_t j = 0; j < p; j++) inverse[places[i] * n + places[j]] = inverted[i * p + j];
    return 0;
}

/* How far the gradient of each term at zero may rise, relative to the lengths of its column √W·x and of √W·z. */
static void rises(const struct llmpower_cells *cells, const double *gram, double steep, double *rise) {
    double length = 0;
    for (size_t c = 0; c < cells->m; c++)
        if (cells->w[c] > 0) length += cells->wy[c] * (cells->wy[c] / cells->w[c]);
    for (size_t k = 0; k < cells->n_terms; k++) rise[k] = steep * sqrt(gram[k * cells->n_terms + k] * length);
}

/* A fold that other terms are held in. */
static int solve_without(const struct llmpower_cells *cells, const struct llmpower_whole *whole, size_t c,
                         double *fold) {
    size_t n = cells->n_terms;
    double G[LLMPOWER_TERMS * LLMPOWER_TERMS], g[LLMPOWER_TERMS], x[LLMPOWER_TERMS];
    for (size_t k = 0; k < n; k++) x[k] = cells->design[k * cells->m + c];
    for (size_t j = 0; j < n; j++) {
        for (size_t k = 0; k < n; k++) G[j * n + k] = whole->gram[j * n + k] - cells->w[c] * (x[j] * x[k]);
        g[j] = whole->moment[j] - cells->wy[c] * x[j];
    }
    return llmpower_solve(1, n, G, g, 1, fold);
}

/* Optimal is what has β ≥ 0 and no gradient on terms at zero (Karush, Kuhn and Tucker): which of two folds are not. */
static void not_optimal(const struct pair *of, const struct llmpower_whole *whole, size_t n,
                        const unsigned char *is_free, const double *rise, const lanes *fold, whole_lanes *left) {
    lanes found = {0};
    for (size_t k = 0; k < n; k++) found += of->x[k] * fold[k];
    lanes missed = of->wy - of->w * found;
    *left = (whole_lanes){0};
    for (size_t k = 0; k < n; k++) {
        if (is_free[k]) {
            *left |= fold[k] < 0;
            continue;
        }
        lanes gradient = whole->moment[k] - of->x[k] * missed;
        for (size_t j = 0; j < n; j++) gradient -= whole->gram[k * n + j] * fold[j];
        *left |= gradient > rise[k];
    }
}

/* Columns of two cells as a row of each. */
static void put(const lanes *columns, size_t n, size_t there, double *rows) {
    for (size_t k = 0; k < n; k++)
        for (size_t l = 0; l < LANES && l < there; l++) rows[l * n + k] = columns[k][l];
}

int llmpower_folds(const struct llmpower_cells *cells, const struct llmpower_whole *whole,
                   const struct llmpower_limits *limits, double *folds) {
    size_t n = cells->n_terms, n_free = 0;
    const double *beta = whole->coefficients;
    double inverse[LLMPOWER_TERMS * LLMPOWER_TERMS], rise[LLMPOWER_TERMS];
    unsigned char is_free[LLMPOWER_TERMS];
    whole_lanes left = {0}, too_far = {0};
    for (size_t k = 0; k < n; k++) n_free += is_free[k] = !whole->non_negative || beta[k] > 0;
    if (n_free < n) {
        if (llmpower_inverse(n, whole->gram, inverse)) return 0;
        if (!all_spared(cells, inverse, limits->singular)) return 0;
    }
    if (inverse_of(n, whole->gram, is_free, inverse)) return 0;
    rises(cells, whole->gram, limits->steep, rise);
    for (size_t c = 0; c < cells->m; c += LANES) {
        struct pair of;
        lanes H[LLMPOWER_TERMS], fold[LLMPOWER_TERMS], h, found = {0};
        take(cells, c, &of);
        influence(&of, n, inverse, H, &h);
        for (size_t k = 0; k < n; k++) found += beta[k] * of.x[k];
        too_far |= h > 1 - limits->singular;
        lanes step = (of.wy - of.w * found) / (1 - h);
        for (size_t k = 0; k < n; k++) fold[k] = beta[k] - H[k] * step;
        if (whole->non_negative) not_optimal(&of, whole, n, is_free, rise, fold, &left);
        put(fold, n, cells->m - c, folds + c * n);
        if (!any(&left) || any(&too_far)) continue;
        for (size_t l = 0; l < LANES && c + l < cells->m; l++)
            if (left[l] && solve_without(cells, whole, c + l, folds + (c + l) * n)) return 0;
    }
    return !any(&too_far);
}

void llmpower_parts(const struct llmpower_cells *cells, const struct llmpower_whole *whole,
                    const struct llmpower_limits *limits, const int64_t *part, size_t n_parts, double *gram,
                    double *moment, double *folds) {
    size_t n = cells->n_terms;
    for (size_t c = 0; c < cells->m; c++) {
        double *G = gram + (size_t)part[c] * n * n, *g = moment + (size_t)part[c] * n, x[LLMPOWER_TERMS];
        for (size_t k = 0; k < n; k++) x[k] = cells->design[k * cells->m + c];
        for (size_t j = 0; j < n; j++) {
            for (size_t k = 0; k < n; k++) G[j * n + k] += cells->w[c] * x[j] * x[k];
            g[j] += cells->wy[c] * x[j];
        }
    }
    for (size_t i = 0; i < n_parts; i++) {
        double *G = gram + i * n * n, *g = moment + i * n, *fold = folds + i * n, ends[2];
        for (size_t k = 0; k < n * n; k++) G[k] = whole->gram[k] - G[k];
        for (size_t k = 0; k < n; k++) g[k] = whole->moment[k] - g[k];
        llmpower_eigenvalues(n, G, whole->gram, ends);
        if (!(ends[0] >= limits->singular) || llmpower_solve(1, n, G, g, whole->non_negative, fold))
            for (size_t k = 0; k < n; k++) fold[k] = NAN;
    }
}

void llmpower_predict(size_t m, size_t n_terms, const double *design, const double *coefficients, double *predicted) {
    for (size_t c = 0; c < m; c++) {
        predicted[c] = 0;
        for (size_t k = 0; k < n_terms; k++) predicted[c] += design[k * m + c] * coefficients[c * n_terms + k];
    }
}

/* What is summed of rows, two of them beside each other. */
struct pair_sums {
    lanes predicted, measured, errors, greatest;
    whole_lanes negative;
};

static void count_pair(struct pair_sums *sums, const lanes *predicted, const lanes *y, double *errors) {
    lanes error = *predicted / *y - 1;
    error = (lanes)((whole_lanes)error & INT64_MAX); /* without its sign */
    whole_lanes more = error > sums->greatest;
    sums->greatest = (lanes)(((whole_lanes)error & more) | ((whole_lanes)sums->greatest & ~more));
    sums->predicted += *predicted, sums->measured += *y, sums->errors += error;
    sums->negative -= *predicted <= 0; /* what is so is -1 */
    memcpy(errors, &error, sizeof error);
}

static void count_one(struct pair_sums *sums, size_t l, double predicted, double y, double *error) {
    *error = fabs(predicted / y - 1);
    if (*error > sums->greatest[l]) sums->greatest[l] = *error;
    sums->predicted[l] += predicted, sums->measured[l] += y, sums->errors[l] += *error;
    sums->negative[l] += predicted <= 0;
}

static inline double predicted_of(const struct llmpower_sample *rows, const double *coefficients, size_t i) {
    const double *own = coefficients + (size_t)rows->cells[i] * rows->n_terms;
    if (!rows->design) return *own;
    double found = 0;
    for (size_t k = 0; k < rows->n_terms; k++) found += rows->design[k][i] * own[k];
    return found;
}

int llmpower_judge(const struct llmpower_sample *rows, const double *coefficients, size_t m, double *errors,
                   struct llmpower_missed *missed) {
    struct pair_sums sums = {0};
    size_t n = rows->n, i = 0, kept = 0;
    for (size_t row = 0; row < n; row++)
        if ((size_t)rows->cells[row] >= m) return -1; /* what is below zero is great */
    for (; i + LANES <= n; i += LANES) {
        const lanes predicted = {predicted_of(rows, coefficients, i), predicted_of(rows, coefficients, i + 1)};
        lanes y;
        load(&y, rows->y + i, LANES);
        if (!isnan(sum(&predicted))) {
            count_pair(&sums, &predicted, &y, errors + kept);
            kept += LANES;
            continue;
        }
        for (size_t l = 0; l < LANES; l++)
            if (!isnan(predicted[l])) count_one(&sums, l, predicted[l], y[l], errors + kept++);
    }
    if (i < n) {
        double predicted = predicted_of(rows, coefficients, i);
        if (!isnan(predicted)) count_one(&sums, 0, predicted, rows->y[i], errors + kept++);
    }
    *missed = (struct llmpower_missed){.n = kept, .predicted = sum(&sums.predicted)};
    missed->measured = sum(&sums.measured), missed->errors = sum(&sums.errors);
    for (size_t l = 0; l < LANES; l++) {
        missed->negative += (size_t)sums.negative[l];
        if (sums.greatest[l] > missed->greatest) missed->greatest = sums.greatest[l];
    }
    return 0;
}
