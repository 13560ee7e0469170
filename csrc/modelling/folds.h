/* folds.h - least squares over the cells of a model: its sums, and what it would be without each of them.
 *
 * C includes this file and cffi reads it, as tally.h. Arrays are the caller's, a matrix its rows one after another but
 * for designs: those are columns of m numbers, one a term. No function fails, or allocates. */
#ifndef LLMPOWER_FOLDS_H
#define LLMPOWER_FOLDS_H

#include <stddef.h>
#include <stdint.h>

enum { LLMPOWER_TERMS = 16 }; /* that a form may have */

/* Cells with their design rows x, and W = Σw and Σwy over the rows of each. */
struct llmpower_cells {
    size_t m, n_terms;
    const double *design, *w, *wy;
};

/* G = Σ W·xxᵀ and g = Σ x·Σwy of the cells of each part; ``part`` numbers that of each cell, or is NULL where there is
 * one. Adds to what is in gram (parts × n_terms × n_terms) and moment (parts × n_terms). */
void llmpower_gram(const struct llmpower_cells *cells, const int64_t *part, double *gram, double *moment);

/* The greatest W·xᵀG⁻¹x, what a cell pulls the fit towards itself. */
double llmpower_leverage(const struct llmpower_cells *cells, const double *inverse);

/* Coefficients without each cell into folds (m × n_terms); the greatest leverage is returned. A term that is held at
 * zero has zeros in the inverse and a rise that its gradient may not exceed, others have one of infinity; rise is NULL
 * where signs do not matter. ``left`` says where gradient or sign shows that other terms would be held without the
 * cell: these folds are to be solved for. */
double llmpower_folds(const struct llmpower_cells *cells, const double *gram, const double *moment,
                      const double *inverse, const double *coefficients, const double *rise, double *folds,
                      uint8_t *left);

/* φ·β of n rows, each by the coefficients of its cell. */
void llmpower_predict(size_t n, size_t n_terms, const double *design, const int64_t *cells, const double *coefficients,
                      double *predicted);

#endif
