/* Folds of a form of two terms against refits without each cell or part, and their errors, under the sanitizers. */
#include "../modelling/folds.h"

#include <math.h>

#include "../modelling/normal.h"
#include "check.h"

enum { CELLS = 11, TERMS = 2, PARTS = 3, ROWS = 2 * CELLS };

static const double design[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 8, 16, 64, 128, 256, 512, 900, 950, 1000, 1100, 1200};
static const double w[] = {1, 2, 3, 1, 0.5, 2, 1, 1, 2, 1, 1};
static const struct llmpower_limits limits = {1e-8, 1e-9};

static int near(double a, double b) { return fabs(a - b) <= 1e-9 * (1 + fabs(b)); }

/* Coefficients without the cells whose number is the one given. */
static void refit(const double *wy, const int64_t *number, int64_t without, int non_negative, double *coefficients) {
    double G[TERMS * TERMS] = {0}, g[TERMS] = {0};
    for (int c = 0; c < CELLS; c++) {
        if (number[c] == without) continue;
        for (int j = 0; j < TERMS; j++) {
            for (int k = 0; k < TERMS; k++) G[j * TERMS + k] += w[c] * design[j * CELLS + c] * design[k * CELLS + c];
            g[j] += wy[c] * design[j * CELLS + c];
        }
    }
    CHECK(!llmpower_solve(1, TERMS, G, g, non_negative, coefficients));
}

static void check(const double *z, int non_negative) {
    double wy[CELLS], G[TERMS * TERMS], g[TERMS], ends[2], whole_fit[TERMS], expected[TERMS];
    double folds[CELLS * TERMS], of_parts[PARTS * TERMS];
    double parts[PARTS * TERMS * TERMS] = {0}, moments[PARTS * TERMS] = {0};
    int64_t own[CELLS], part[CELLS];
    for (int c = 0; c < CELLS; c++) wy[c] = w[c] * z[c], own[c] = c, part[c] = c % PARTS;
    struct llmpower_cells cells = {CELLS, TERMS, design, w, wy};
    llmpower_gram(&cells, G, g, ends);
    CHECK(ends[0] > 0 && ends[0] < ends[1] && near(ends[0] + ends[1], TERMS));
    CHECK(!llmpower_solve(1, TERMS, G, g, non_negative, whole_fit));
    refit(wy, own, CELLS, non_negative, expected);
    CHECK(near(whole_fit[0], expected[0]) && near(whole_fit[1], expected[1]));
    struct llmpower_whole whole = {G, g, whole_fit, non_negative};
    CHECK(llmpower_folds(&cells, &whole, &limits, folds) == 1);
    for (int c = 0; c < CELLS; c++) {
        refit(wy, own, c, non_negative, expected);
        CHECK(near(folds[c * TERMS], expected[0]) && near(folds[c * TERMS + 1], expected[1]));
    }
    llmpower_parts(&cells, &whole, &limits, part, PARTS, parts, moments, of_parts);
    for (int i = 0; i < PARTS; i++) {
        refit(wy, part, i, non_negative, expected);
        CHECK(near(of_parts[i * TERMS], expected[0]) && near(of_parts[i * TERMS + 1], expected[1]));
    }
}

/* Two cells are as many as terms: without one of them the other does not determine both. */
static void not_spared(void) {
    const double few[] = {1, 1, 8, 16}, weight[] = {1, 1}, wy[] = {10, 18};
    const int64_t part[] = {0, 1};
    double G[TERMS * TERMS], g[TERMS], ends[2], found[TERMS], folds[2 * TERMS];
    double parts[2 * TERMS * TERMS] = {0}, moments[2 * TERMS] = {0};
    struct llmpower_cells cells = {2, TERMS, few, weight, wy};
    struct llmpower_whole whole = {G, g, found, 1};
    llmpower_gram(&cells, G, g, ends);
    CHECK(!llmpower_solve(1, TERMS, G, g, 1, found));
    CHECK(llmpower_folds(&cells, &whole, &limits, folds) == 0);
    llmpower_parts(&cells, &whole, &limits, part, 2, parts, moments, folds);
    for (int k = 0; k < 2 * TERMS; k++) CHECK(isnan(folds[k]));
}

static void judged(void) {
    double coefficients[CELLS * TERMS], predicted[CELLS], rows[ROWS * TERMS], y[ROWS], errors[ROWS];
    int64_t cells[ROWS];
    struct llmpower_missed missed, same;
    const double *columns[] = {rows, rows + ROWS};
    const struct llmpower_sample by_rows = {ROWS, TERMS, columns, cells, y}, by_cells = {ROWS, 1, NULL, cells, y};
    for (int c = 0; c < CELLS; c++) coefficients[c * TERMS] = c - 1.5, coefficients[c * TERMS + 1] = 0.01 * c;
    llmpower_predict(CELLS, TERMS, design, coefficients, predicted);
    double all_errors = 0, greatest = 0, all_predicted = 0, all_y = 0;
    for (int i = 0; i < ROWS; i++) {
        int c = (7 * i) % CELLS;
        cells[i] = c, y[i] = 1 + i, rows[i] = design[c], rows[ROWS + i] = design[CELLS + c];
        CHECK(near(predicted[c], coefficients[c * TERMS] + coefficients[c * TERMS + 1] * design[CELLS + c]));
        double error = fabs(predicted[c] / y[i] - 1);
        all_errors += error, all_predicted += predicted[c], all_y += y[i];
        if (error > greatest) greatest = error;
    }
    CHECK(!llmpower_judge(&by_rows, coefficients, CELLS, errors, &missed));
    CHECK(missed.n == ROWS && near(missed.errors, all_errors) && near(missed.greatest, greatest));
    CHECK(missed.negative == 4 && near(missed.predicted, all_predicted) && near(missed.measured, all_y));
    for (int i = 0; i < ROWS; i++) CHECK(near(errors[i], fabs(predicted[cells[i]] / y[i] - 1)));
    predicted[3] = NAN; /* of two rows, which are not judged */
    CHECK(!llmpower_judge(&by_cells, predicted, CELLS, errors, &same));
    CHECK(same.n == ROWS - 2 && same.errors < missed.errors && same.negative == 4);
    cells[ROWS - 1] = CELLS;
    CHECK(llmpower_judge(&by_cells, predicted, CELLS, errors, &same) == -1);
    cells[ROWS - 1] = -1;
    CHECK(llmpower_judge(&by_rows, coefficients, CELLS, errors, &same) == -1);
}

int main(void) {
    const double straight[] = {20, 33, 140, 250, 530, 1020, 1790, 1900, 2050, 2190, 2400};
    const double through_zero[] = {14, 33, 126, 259, 509, 1030, 1790, 1910, 1990, 2210, 2400};
    for (int non_negative = 0; non_negative < 2; non_negative++) {
        check(straight, non_negative);
        check(through_zero, non_negative);
    }
    not_spared();
    judged();
    return 0;
}
