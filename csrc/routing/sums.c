/* sums.c - what an assignment comes to: for every model, over the cells in their order, so that equal inputs give
 * equal bits.
 *
 * Nearly every cell is on one model, but which one is anybody's guess: adding zeros is quicker than asking for them. */
#include "routing.h"

void llmpower_add(const int64_t *assigned, const double *values, size_t n_cells, size_t n_models, double *sums) {
    for (size_t c = 0; c < n_cells; c++) {
        const int64_t *x = assigned + c * n_models;
        const double *value = values + c * n_models;
        for (size_t k = 0; k < n_models; k++) sums[k] += (double)x[k] * value[k];
    }
}

void llmpower_count(const int64_t *assigned, const int64_t *tokens, const int64_t *cell_class, size_t n_cells,
                    size_t n_models, int64_t *queries, int64_t *of_tokens) {
    for (size_t c = 0; c < n_cells; c++) {
        const int64_t *x = assigned + c * n_models;
        size_t row = cell_class ? (size_t)cell_class[c] * n_models : 0;
        for (size_t k = 0; k < n_models; k++) {
            queries[row + k] += x[k];
            of_tokens[row + k] += x[k] * tokens[c];
        }
    }
}

void llmpower_sum_choices(const uint16_t *choice, const int64_t *whole, const int64_t *tokens,
                          const int64_t *cell_class, const double *joule_values, const double *second_values,
                          size_t n_cells, size_t n_models, int64_t *queries, int64_t *of_tokens, double *joules,
                          double *seconds) {
    for (size_t c = 0; c < n_cells; c++) {
        size_t k = choice[c], row = cell_class ? (size_t)cell_class[c] * n_models : 0;
        double n = (double)whole[c];
        queries[row + k] += whole[c];
        of_tokens[row + k] += whole[c] * tokens[c];
        joules[k] += n * joule_values[c * n_models + k];
        seconds[k] += n * second_values[c * n_models + k];
    }
}

void llmpower_sum_turns(const uint16_t *assigned, const int64_t *tokens, const int64_t *cell_class,
                        const double *joule_values, const double *second_values, size_t n_cells, size_t n_models,
                        int64_t *queries, int64_t *of_tokens, double *joules, double *seconds) {
    for (size_t c = 0; c < n_cells; c++) {
        const uint16_t *x = assigned + c * n_models;
        const double *joule = joule_values + c * n_models, *second = second_values + c * n_models;
        size_t row = cell_class ? (size_t)cell_class[c] * n_models : 0;
        for (size_t k = 0; k < n_models; k++) {
            joules[k] += (double)x[k] * joule[k];
            seconds[k] += (double)x[k] * second[k];
            queries[row + k] += x[k];
            of_tokens[row + k] += x[k] * tokens[c];
        }
    }
}

void llmpower_tally(const int64_t *keys, const int64_t *count, const double *values, size_t n_cells, size_t n_models,
                    double *sums) {
    for (size_t c = 0; c < n_cells; c++) {
        double n = (double)count[c], *sum = sums + (size_t)keys[c] * n_models;
        const double *value = values + c * n_models;
        for (size_t k = 0; k < n_models; k++) sum[k] += value[k] * n;
    }
}
