/* test_stretch.c - rows one stretch after another, those of a model together and in their order. */
#include <math.h>
#include <stdlib.h>

#include "../modelling/stretch.h"
#include "check.h"

enum { ROWS = 3 * STRETCH, MOST_MODELS = 2 * STRETCH };

static uint32_t model_of[ROWS];
static double energy[ROWS], number[ROWS];
static uint8_t own[MOST_MODELS];
static size_t end_of[MOST_MODELS]; /* after the last of its rows that was seen */

/* Of this many models every third is another's, and some rows have no joules, or none that are known. */
static void test_rows_of_a_model_are_together_and_in_order(uint32_t n_models) {
    struct model *models = calloc(n_models, sizeof *models);
    struct stretch *s = malloc(sizeof *s);
    size_t n_own = 0, n = 0, below = 0, n_below = 0;
    CHECK(models && s);
    for (uint32_t m = 0; m < n_models; m++) own[m] = m % 3 != 2, end_of[m] = 0;
    for (size_t i = 0; i < ROWS; i++) {
        model_of[i] = (uint32_t)(i * 2654435761u >> 7) % n_models;
        energy[i] = i % 7 == 0 ? NAN : i % 5 == 0 ? 0 : 1;
        number[i] = (double)i;
        n_own += own[model_of[i]] && energy[i] > 0;
        n_below += own[model_of[i]] && energy[i] <= 0;
    }
    const struct llmpower_rows rows = {.n = ROWS,
                                       .model = model_of,
                                       .input_tokens = {number, NULL},
                                       .output_tokens = {number, NULL},
                                       .energy_j = energy,
                                       .runtime_s = number,
                                       .own = own};
    for (size_t i = 0, end; i < ROWS; i = end) {
        uint32_t together = 0;
        end = stretch_fill(s, models, &rows, i);
        CHECK(end > i && (s->n == STRETCH || end == ROWS));
        for (size_t k = 0; k < s->n; k++) {
            uint32_t model = s->entries[k].model;
            size_t row = (size_t)s->entries[k].row.runtime_s;
            CHECK(row >= i && row < end && row >= end_of[model]);
            CHECK(model_of[row] == model && own[model] && energy[row] > 0);
            end_of[model] = row + 1;
            together += !k || model != s->entries[k - 1].model;
        }
        CHECK(together == s->n_models);
        n += s->n;
    }
    for (uint32_t m = 0; m < n_models; m++) {
        CHECK(!models[m].place);
        below += models[m].counts.below;
    }
    CHECK(n == n_own && below == n_below);
    free(models);
    free(s);
}

int main(void) {
    test_rows_of_a_model_are_together_and_in_order(1);
    test_rows_of_a_model_are_together_and_in_order(20);
    test_rows_of_a_model_are_together_and_in_order(MOST_MODELS);
    puts("stretch: ok");
    return 0;
}
