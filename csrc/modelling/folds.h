/* folds.h - least squares over the cells of a model: its sums, what it would be without each of them, and how far off.
 *
 * C includes this file and cffi reads it, as tally.h. Arrays are the caller's, a matrix its rows one after another but
 * for designs: those are columns of m numbers, one a term. No function allocates. */
#ifndef LLMPOWER_FOLDS_H
#define LLMPOWER_FOLDS_H

#include <stddef.h>
#include <stdint.h>

/* Cells with their design rows x, and W = Σw and Σwy over the rows of each. */
struct llmpower_cells {
    size_t m, n_terms;
    const double *design, *w, *wy;
};

/* Of all cells together: G = Σ W·xxᵀ, g = Σ x·Σwy, and β that solves Gβ = g, each ≥ 0 where non_negative; parts need
 * no β. */
struct llmpower_whole {
    const double *gram, *moment, *coefficients;
    int non_negative;
};

/* What may be left of a cell's 1 − h, or of the smallest eigenvalue without a part, before the rest is taken not to
 * determine the form; and how steep the objective may rise with a term at zero. */
struct llmpower_limits {
    double singular, steep;
};

/* Rows' errors in all: how many there are, how many are predicted at or below zero, Σŷ, Σy, and Σ and the greatest of
 * |ŷ − y|/y. */
struct llmpower_missed {
    size_t n, negative;
    double predicted, measured, errors, greatest;
};

/* G (n_terms × n_terms), g (n_terms), and the least and the greatest eigenvalue of G, its columns of unit length. */
void llmpower_gram(const struct llmpower_cells *cells, double *gram, double *moment, double *ends);

/* β without each cell into folds (m × n_terms); 1 where all can be spared, and 0 where one cannot. */
int llmpower_folds(const struct llmpower_cells *cells, const struct llmpower_whole *whole,
                   const struct llmpower_limits *limits, double *folds);

/* β without the cells of each part into folds (n_parts × n_terms), NaN where the others do not determine it; ``part``
 * numbers that of each cell. gram (n_parts × n_terms × n_terms) and moment (n_parts × n_terms) come as zeros, and leave
 * as those of the rest. */
void llmpower_parts(const struct llmpower_cells *cells, const struct llmpower_whole *whole,
                    const struct llmpower_limits *limits, const int64_t *part, size_t n_parts, double *gram,
                    double *moment, double *folds);

/* φ·β of each cell by its own β. */
void llmpower_predict(size_t m, size_t n_terms, const double *design, const double *coefficients, double *predicted);

/* n rows ``y``, each with its cell and its design row, a column of n numbers for each term. */
struct llmpower_sample {
    size_t n, n_terms;
    const double *const *design;
    const int64_t *cells;
    const double *y;
};

/* |ŷ − y|/y of rows with ŷ = φ·β by the coefficients (m × n_terms) of their cells; where there is no design, ŷ is their
 * cells' one coefficient. Rows whose ŷ is NaN are left out. 0, or -1 where a row's cell is not one of the m. */
int llmpower_judge(const struct llmpower_sample *rows, const double *coefficients, size_t m, double *errors,
                   struct llmpower_missed *missed);

#endif
