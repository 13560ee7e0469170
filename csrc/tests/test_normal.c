/* Normal equations against what defines their solutions, under the sanitizers: no residual, or no way down. */
#include "../modelling/normal.h"

#include <math.h>

#include "check.h"

enum { MOST = LLMPOWER_TERMS, ROWS = 40, PROBLEMS = 400 };

static unsigned long long state = 1;

/* Between -1 and 1. */
static double chance(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(state >> 11) / (double)(1ull << 52) - 1;
}

/* G and g of random rows; columns differ by powers of ten. */
static void problem(size_t n, double *G, double *g) {
    double x[MOST], scale[MOST];
    for (size_t k = 0; k < n; k++) scale[k] = pow(10, 3 * chance());
    for (size_t k = 0; k < n * n; k++) G[k] = 0;
    for (size_t k = 0; k < n; k++) g[k] = 0;
    for (int row = 0; row < ROWS; row++) {
        double y = chance();
        for (size_t k = 0; k < n; k++) x[k] = scale[k] * (chance() + 0.5);
        for (size_t j = 0; j < n; j++) {
            for (size_t k = 0; k < n; k++) G[j * n + k] += x[j] * x[k];
            g[j] += x[j] * y;
        }
    }
}

static double gradient(size_t n, const double *G, const double *g, const double *b, size_t k) {
    double sum = g[k];
    for (size_t j = 0; j < n; j++) sum -= G[k * n + j] * b[j];
    return sum / sqrt(G[k * n + k]);
}

static void solutions(void) {
    double G[MOST * MOST], g[MOST], b[MOST];
    int held = 0;
    for (int i = 0; i < PROBLEMS; i++) {
        size_t n = 1 + (size_t)i % MOST;
        problem(n, G, g);
        CHECK(!llmpower_solve(1, n, G, g, 0, b));
        for (size_t k = 0; k < n; k++) CHECK(fabs(gradient(n, G, g, b, k)) < 1e-10);
        CHECK(!llmpower_solve(1, n, G, g, 1, b));
        for (size_t k = 0; k < n; k++) {
            double rise = gradient(n, G, g, b, k);
            CHECK(b[k] >= 0 && rise < 1e-10 && (b[k] == 0 || rise > -1e-10));
            held += b[k] == 0;
        }
    }
    CHECK(held > PROBLEMS);
}

static void inverses(void) {
    double G[MOST * MOST], g[MOST], inverse[MOST * MOST];
    for (size_t n = 1; n <= MOST; n++) {
        problem(n, G, g);
        CHECK(!llmpower_inverse(n, G, inverse));
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                double sum = 0;
                for (size_t k = 0; k < n; k++) sum += G[i * n + k] * inverse[k * n + j];
                CHECK(fabs(sum * sqrt(G[j * n + j] / G[i * n + i]) - (i == j)) < 1e-9);
            }
    }
}

int main(void) {
    solutions();
    inverses();
    /* Of [[4, 1], [1, 1]] with columns of unit length: 1 ± ½. */
    const double G[] = {4, 1, 1, 1}, flat[] = {1, 2, 2, 4}, empty[] = {0, 0, 0, 1}, g[] = {1, 1};
    double ends[2], b[2], inverse[4];
    llmpower_eigenvalues(2, G, G, ends);
    CHECK(fabs(ends[0] - 0.5) < 1e-15 && fabs(ends[1] - 1.5) < 1e-15);
    llmpower_eigenvalues(2, flat, flat, ends);
    CHECK(fabs(ends[0]) < 1e-15 && fabs(ends[1] - 2) < 1e-15);
    llmpower_eigenvalues(2, empty, empty, ends);
    CHECK(ends[0] == 0 && ends[1] == 0);
    CHECK(llmpower_solve(1, 2, flat, g, 0, b) == -1 && llmpower_inverse(2, flat, inverse) == -1);
    CHECK(llmpower_solve(1, 2, empty, g, 1, b) == -1 && llmpower_inverse(2, empty, inverse) == -1);
    return 0;
}
