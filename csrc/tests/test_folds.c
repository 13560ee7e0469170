/* Folds of a form of two terms against refits without each cell, under the sanitizers. */
#include "../modelling/folds.h"

#include <math.h>

#include "check.h"

enum { CELLS = 7, TERMS = 2 };

static const double design[] = {1, 1, 1, 1, 1, 1, 1, 8, 16, 64, 128, 256, 512, 900};
static const double w[] = {1, 2, 3, 1, 0.5, 2, 1};
static const double z[] = {20, 33, 140, 250, 530, 1020, 1790};

static int near(double a, double b) { return fabs(a - b) <= 1e-9 * (1 + fabs(b)); }

/* Coefficients of two normal equations, and the inverse of their matrix. */
static void solve(const double *G, const double *g, double *inverse, double *coefficients) {
    double determinant = G[0] * G[3] - G[1] * G[2];
    inverse[0] = G[3] / determinant;
    inverse[1] = inverse[2] = -G[1] / determinant;
    inverse[3] = G[0] / determinant;
    coefficients[0] = inverse[0] * g[0] + inverse[1] * g[1];
    coefficients[1] = inverse[2] * g[0] + inverse[3] * g[1];
}

int main(void) {
    double wy[CELLS], G[TERMS * TERMS] = {0}, g[TERMS] = {0}, inverse[TERMS * TERMS], coefficients[TERMS];
    double parts[CELLS * TERMS * TERMS] = {0}, moments[CELLS * TERMS] = {0}, folds[CELLS * TERMS], predicted[CELLS];
    int64_t own[CELLS];
    uint8_t left[CELLS];
    for (int c = 0; c < CELLS; c++) wy[c] = w[c] * z[c], own[c] = c;
    struct llmpower_cells cells = {CELLS, TERMS, design, w, wy};
    llmpower_gram(&cells, NULL, G, g);
    llmpower_gram(&cells, own, parts, moments);
    solve(G, g, inverse, coefficients);
    const double rise[] = {HUGE_VAL, HUGE_VAL};
    double leverage = llmpower_folds(&cells, G, g, inverse, coefficients, rise, folds, left);
    CHECK(leverage > 0 && leverage < 1 && near(leverage, llmpower_leverage(&cells, inverse)));
    for (int c = 0; c < CELLS; c++) {
        double less[TERMS * TERMS], right[TERMS], unused[TERMS * TERMS], refit[TERMS];
        for (int k = 0; k < TERMS * TERMS; k++) less[k] = G[k] - parts[c * TERMS * TERMS + k];
        for (int k = 0; k < TERMS; k++) right[k] = g[k] - moments[c * TERMS + k];
        solve(less, right, unused, refit);
        CHECK(near(folds[c * TERMS], refit[0]) && near(folds[c * TERMS + 1], refit[1]));
        CHECK(left[c] == (refit[0] < 0 || refit[1] < 0));
    }
    llmpower_predict(CELLS, TERMS, design, own, folds, predicted);
    for (int c = 0; c < CELLS; c++)
        CHECK(near(predicted[c], folds[c * TERMS] + folds[c * TERMS + 1] * design[CELLS + c]));
    return 0;
}
