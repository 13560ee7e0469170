/* normal.c - normal equations of a form's size: their solutions, with bounds or without.
 *
 * Forms have some five terms, and a choice between them solves hundreds of problems of that size. A call of LAPACK
 * takes longer to check its arguments than these take to be solved, by what every textbook has: elimination with the
 * greatest pivot of a column, Jacobi's rotations for eigenvalues (Golub and Van Loan, Matrix Computations, 3.4
 * and 8.5), active sets for bounds (Lawson and Hanson, Solving Least Squares Problems, 23.3, here on the normal
 * equations). */
#include "normal.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { SQUARE = LLMPOWER_TERMS * LLMPOWER_TERMS, SWEEPS = 30, STEPS = 30 };

/* D and D⁻¹GD⁻¹; -1 where the diagonal has a number that is not above 0. */
static int scale_out(size_t n, const double *gram, const double *scale, double *D, double *scaled) {
    for (size_t k = 0; k < n; k++) {
        if (!(scale[k * n + k] > 0)) return -1;
        D[k] = sqrt(scale[k * n + k]);
    }
    for (size_t j = 0; j < n; j++)
        for (size_t k = 0; k < n; k++) scaled[j * n + k] = gram[j * n + k] / (D[j] * D[k]);
    return 0;
}

static void swap(size_t n, double *a, double *b) {
    for (size_t k = 0; k < n; k++) {
        double kept = a[k];
        a[k] = b[k], b[k] = kept;
    }
}

/* A·X = B for B of n_right columns, in place; A is used up. */
static int eliminate(size_t n, double *A, size_t n_right, double *B) {
    for (size_t j = 0; j < n; j++) {
        size_t pivot = j;
        for (size_t i = j + 1; i < n; i++)
            if (fabs(A[i * n + j]) > fabs(A[pivot * n + j])) pivot = i;
        if (A[pivot * n + j] == 0) return -1;
        if (pivot != j) swap(n, A + j * n, A + pivot * n), swap(n_right, B + j * n_right, B + pivot * n_right);
        for (size_t i = j + 1; i < n; i++) {
            double times = A[i * n + j] / A[j * n + j];
            for (size_t k = j; k < n; k++) A[i * n + k] -= times * A[j * n + k];
            for (size_t k = 0; k < n_right; k++) B[i * n_right + k] -= times * B[j * n_right + k];
        }
    }
    for (size_t i = n; i-- > 0;)
        for (size_t k = 0; k < n_right; k++) {
            double sum = B[i * n_right + k];
            for (size_t j = i + 1; j < n; j++) sum -= A[i * n + j] * B[j * n_right + k];
            B[i * n_right + k] = sum / A[i * n + i];
        }
    return 0;
}

/* z of A·z = b on the terms that are free, 0 on the others. */
static int solve_free(size_t n, const double *A, const double *b, const unsigned char *is_free, double *z) {
    double part[SQUARE], right[LLMPOWER_TERMS];
    size_t places[LLMPOWER_TERMS], p = 0;
    for (size_t k = 0; k < n; k++)
        if (is_free[k]) places[p++] = k;
    for (size_t i = 0; i < p; i++) {
        right[i] = b[places[i]];
        for (size_t j = 0; j < p; j++) part[i * p + j] = A[places[i] * n + places[j]];
    }
    if (eliminate(p, part, 1, right)) return -1;
    for (size_t k = 0; k < n; k++) z[k] = 0;
    for (size_t i = 0; i < p; i++) z[places[i]] = right[i];
    return 0;
}

/* The term at zero along which the objective falls most, beyond what rounding makes of it; n where there is none. */
static size_t steepest(size_t n, const double *A, const double *b, const double *x, const unsigned char *is_free,
                       const unsigned char *refused) {
    size_t found = n;
    double most = 0;
    for (size_t k = 0; k < n; k++) {
        double gradient = b[k], size = fabs(b[k]);
        for (size_t j = 0; j < n; j++) {
            gradient -= A[k * n + j] * x[j];
            size += fabs(A[k * n + j] * x[j]);
        }
        if (is_free[k] || refused[k] || gradient <= 10 * (double)n * DBL_EPSILON * size) continue;
        if (found == n || gradient > most) found = k, most = gradient;
    }
    return found;
}

/* From x towards z as far as all terms stay above zero; those that come to it are held there. */
static void move(size_t n, const double *z, double *x, unsigned char *is_free) {
    double far = 1;
    size_t first = n;
    for (size_t k = 0; k < n; k++)
        if (is_free[k] && z[k] <= 0 && x[k] <= far * (x[k] - z[k])) far = x[k] / (x[k] - z[k]), first = k;
    for (size_t k = 0; k < n; k++) {
        if (!is_free[k]) continue;
        x[k] += far * (z[k] - x[k]);
        if (k == first || x[k] <= 0) x[k] = 0, is_free[k] = 0;
    }
}

static int bounded(size_t n, const double *A, const double *b, double *x) {
    unsigned char is_free[LLMPOWER_TERMS] = {0}, refused[LLMPOWER_TERMS] = {0};
    double z[LLMPOWER_TERMS];
    for (size_t k = 0; k < n; k++) x[k] = 0;
    for (size_t step = 0; step < STEPS * n; step++) {
        size_t next = steepest(n, A, b, x, is_free, refused);
        if (next == n) return 0;
        is_free[next] = 1;
        if (solve_free(n, A, b, is_free, z)) return -1;
        if (z[next] <= 0) { /* its gradient was rounding */
            is_free[next] = 0, refused[next] = 1;
            continue;
        }
        memset(refused, 0, sizeof refused);
        for (;;) {
            size_t below = 0;
            for (size_t k = 0; k < n; k++) below += is_free[k] && z[k] <= 0;
            if (!below) break;
            move(n, z, x, is_free);
            if (solve_free(n, A, b, is_free, z)) return -1;
        }
        memcpy(x, z, n * sizeof *x);
    }
    return 0;
}

static int solve(size_t n, const double *gram, const double *moment, int non_negative, double *coefficients) {
    double D[LLMPOWER_TERMS], target[LLMPOWER_TERMS], scaled[SQUARE], used[SQUARE];
    if (scale_out(n, gram, gram, D, scaled)) return -1;
    for (size_t k = 0; k < n; k++) coefficients[k] = target[k] = moment[k] / D[k];
    memcpy(used, scaled, n * n * sizeof *used);
    if (eliminate(n, used, 1, coefficients)) return -1;
    int below = 0;
    for (size_t k = 0; k < n; k++) below |= coefficients[k] < 0;
    if (non_negative && below && bounded(n, scaled, target, coefficients)) return -1;
    for (size_t k = 0; k < n; k++) coefficients[k] /= D[k];
    return 0;
}

int llmpower_solve(size_t n, size_t n_terms, const double *gram, const double *moment, int non_negative,
                   double *coefficients) {
    for (size_t i = 0; i < n; i++) {
        const double *G = gram + i * n_terms * n_terms, *g = moment + i * n_terms;
        if (solve(n_terms, G, g, non_negative, coefficients + i * n_terms)) return -1;
    }
    return 0;
}

int llmpower_inverse(size_t n, const double *gram, double *inverse) {
    double D[LLMPOWER_TERMS], scaled[SQUARE];
    if (scale_out(n, gram, gram, D, scaled)) return -1;
    for (size_t j = 0; j < n; j++)
        for (size_t k = 0; k < n; k++) inverse[j * n + k] = j == k;
    if (eliminate(n, scaled, n, inverse)) return -1;
    for (size_t j = 0; j < n; j++)
        for (size_t k = 0; k < n; k++) inverse[j * n + k] /= D[j] * D[k];
    return 0;
}

/* A ← JᵀAJ, whose element (p, q) is zero. */
static void rotate(size_t n, double *A, size_t p, size_t q) {
    double cot = (A[q * n + q] - A[p * n + p]) / (2 * A[p * n + q]);
    double t = (cot < 0 ? -1 : 1) / (fabs(cot) + sqrt(1 + cot * cot)), c = 1 / sqrt(1 + t * t), s = t * c;
    for (size_t k = 0; k < n; k++) {
        double a = A[k * n + p], b = A[k * n + q];
        A[k * n + p] = c * a - s * b, A[k * n + q] = s * a + c * b;
    }
    for (size_t k = 0; k < n; k++) {
        double a = A[p * n + k], b = A[q * n + k];
        A[p * n + k] = c * a - s * b, A[q * n + k] = s * a + c * b;
    }
    A[p * n + q] = A[q * n + p] = 0;
}

void llmpower_eigenvalues(size_t n, const double *gram, const double *scale, double *ends) {
    double D[LLMPOWER_TERMS], A[SQUARE];
    ends[0] = ends[1] = 0;
    if (scale_out(n, gram, scale, D, A)) return;
    for (int sweep = 0, turned = 1; turned && sweep < SWEEPS; sweep++) {
        turned = 0;
        for (size_t p = 0; p < n; p++)
            for (size_t q = p + 1; q < n; q++) {
                double size = sqrt(fabs(A[p * n + p] * A[q * n + q]));
                if (fabs(A[p * n + q]) <= DBL_EPSILON / 4 * size || fabs(A[p * n + q]) < DBL_MIN) continue;
                rotate(n, A, p, q);
                turned = 1;
            }
    }
    for (size_t k = 0; k < n; k++) {
        if (!k || A[k * n + k] < ends[0]) ends[0] = A[k * n + k];
        if (!k || A[k * n + k] > ends[1]) ends[1] = A[k * n + k];
    }
}
