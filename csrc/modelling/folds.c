/* folds.c - one pass over the cells for each thing that a form is asked.
 *
 * A form of five terms over some thousand cells is little arithmetic, and many arrays where each step makes one. Here a
 * cell's row stays in registers from the first step to the last. The formulas are those of llmpower/modelling/folds.py:
 * with r = Σwy − W·xβ and h = W·xᵀG⁻¹x a fold is β − G⁻¹x·r/(1 − h), by Sherman and Morrison. */
#include "folds.h"

#include <math.h>

static void row_of(const struct llmpower_cells *cells, size_t c, double *x) {
    for (size_t k = 0; k < cells->n_terms; k++) x[k] = cells->design[k * cells->m + c];
}

static double dot(size_t n, const double *a, const double *b) {
    double sum = 0;
    for (size_t k = 0; k < n; k++) sum += a[k] * b[k];
    return sum;
}

static void times(size_t n, const double *matrix, const double *x, double *product) {
    for (size_t k = 0; k < n; k++) product[k] = dot(n, matrix + k * n, x);
}

void llmpower_gram(const struct llmpower_cells *cells, const int64_t *part, double *gram, double *moment) {
    size_t n = cells->n_terms;
    for (size_t c = 0; c < cells->m; c++) {
        double x[LLMPOWER_TERMS], w = cells->w[c], wy = cells->wy[c];
        double *G = gram + (part ? (size_t)part[c] * n * n : 0), *g = moment + (part ? (size_t)part[c] * n : 0);
        row_of(cells, c, x);
        for (size_t j = 0; j < n; j++) {
            double wx = w * x[j];
            for (size_t k = 0; k < n; k++) G[j * n + k] += wx * x[k];
            g[j] += wy * x[j];
        }
    }
}

double llmpower_leverage(const struct llmpower_cells *cells, const double *inverse) {
    double greatest = 0, x[LLMPOWER_TERMS], H[LLMPOWER_TERMS];
    for (size_t c = 0; c < cells->m; c++) {
        row_of(cells, c, x);
        times(cells->n_terms, inverse, x, H);
        double h = cells->w[c] * dot(cells->n_terms, H, x);
        if (h > greatest) greatest = h;
    }
    return greatest;
}

double llmpower_folds(const struct llmpower_cells *cells, const double *gram, const double *moment,
                      const double *inverse, const double *coefficients, const double *rise, double *folds,
                      uint8_t *left) {
    size_t n = cells->n_terms;
    double greatest = 0, x[LLMPOWER_TERMS], H[LLMPOWER_TERMS];
    for (size_t c = 0; c < cells->m; c++) {
        double *fold = folds + c * n, w = cells->w[c], wy = cells->wy[c];
        row_of(cells, c, x);
        times(n, inverse, x, H);
        double h = w * dot(n, H, x), step = (wy - w * dot(n, x, coefficients)) / (1 - h);
        if (h > greatest) greatest = h;
        for (size_t k = 0; k < n; k++) fold[k] = coefficients[k] - H[k] * step;
        left[c] = 0;
        if (!rise) continue;
        /* Optimal is what has β ≥ 0 and no gradient on terms at zero (Karush, Kuhn and Tucker). */
        double missed = wy - w * dot(n, x, fold);
        for (size_t k = 0; k < n; k++) {
            int held = rise[k] < HUGE_VAL;
            left[c] |= held ? moment[k] - dot(n, gram + k * n, fold) - x[k] * missed > rise[k] : fold[k] < 0;
        }
    }
    return greatest;
}

void llmpower_predict(size_t n, size_t n_terms, const double *design, const int64_t *cells, const double *coefficients,
                      double *predicted) {
    for (size_t i = 0; i < n; i++) {
        const double *own = coefficients + (size_t)cells[i] * n_terms;
        double sum = 0;
        for (size_t k = 0; k < n_terms; k++) sum += design[k * n + i] * own[k];
        predicted[i] = sum;
    }
}
