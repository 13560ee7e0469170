/* normal.h - normal equations of a form's size: their solutions, with bounds or without.
 *
 * C includes this file and cffi reads it, as tally.h. Matrices are symmetric, of n_terms × n_terms, their rows one
 * after another; columns may be of any scale, D = diag(G)^½ takes it out. No function allocates. */
#ifndef LLMPOWER_NORMAL_H
#define LLMPOWER_NORMAL_H

#include <stddef.h>

enum { LLMPOWER_TERMS = 16 }; /* that a form may have */

/* β of Gβ = g for each of n problems, and with non_negative the β ≥ 0 that comes closest: the least of βᵀGβ − 2βᵀg.
 * 0, or -1 where a matrix is singular. */
int llmpower_solve(size_t n, size_t n_terms, const double *gram, const double *moment, int non_negative,
                   double *coefficients);

/* G⁻¹; 0, or -1 where there is none. */
int llmpower_inverse(size_t n_terms, const double *gram, double *inverse);

/* The least and the greatest eigenvalue of D⁻¹GD⁻¹, where D² is the diagonal of scale; both 0 where that has a number
 * that is not above 0. */
void llmpower_eigenvalues(size_t n_terms, const double *gram, const double *scale, double *ends);

#endif
