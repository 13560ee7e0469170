/* pricing.c - passes over all cells: what queries cost, who is cheapest at these prices, and what an assignment pays
 * above that.
 *
 * They read the costs once, in order, and are as fast as memory. Sums are taken over cells in their order, so that
 * equal inputs give equal bits. */
#include <math.h>

#include "routing.h"

void llmpower_weigh(const double *joules, double a_joule, const int64_t *input_tokens, const int64_t *output_tokens,
                    const double *accuracy, const int64_t *cell_class, double an_accuracy, size_t n_cells,
                    size_t n_models, double *costs) {
    for (size_t c = 0; c < n_cells; c++) {
        const double *joule = joules + c * n_models, *of_class = accuracy;
        double *cost = costs + c * n_models;
        double weight = input_tokens ? (double)(input_tokens[c] + output_tokens[c]) : 1;
        if (cell_class) of_class += (size_t)cell_class[c] * n_models;
        for (size_t k = 0; k < n_models; k++) cost[k] = joule[k] * a_joule - weight * of_class[k] * an_accuracy;
    }
}

void llmpower_price(const double *costs, const int64_t *count, size_t n_cells, size_t n_models, const double *prices,
                    uint16_t *choice, uint16_t *runner_up, double *margin, int64_t *loads) {
    for (size_t k = 0; k < n_models; k++) loads[k] = 0;
    for (size_t c = 0; c < n_cells; c++) {
        const double *cost = costs + c * n_models;
        double best = cost[0] + prices[0], second = INFINITY;
        size_t cheapest = 0, next = 0;
        for (size_t k = 1; k < n_models; k++) {
            double charged = cost[k] + prices[k];
            if (charged < best) {
                second = best;
                next = cheapest;
                best = charged;
                cheapest = k;
            } else if (charged < second) {
                second = charged;
                next = k;
            }
        }
        choice[c] = (uint16_t)cheapest;
        runner_up[c] = (uint16_t)next;
        margin[c] = second - best;
        loads[cheapest] += count[c];
    }
}

void llmpower_by_pair(const uint16_t *choice, const uint16_t *runner_up, const double *margin, const int64_t *count,
                      size_t n_cells, size_t n_models, int64_t *ends, int64_t *queries, double *margins) {
    size_t n_pairs = n_models * n_models;
    int64_t start = 0;
    for (size_t pair = 0; pair < n_pairs; pair++) ends[pair] = queries[pair] = 0;
    for (size_t c = 0; c < n_cells; c++) {
        size_t pair = choice[c] * n_models + runner_up[c];
        ends[pair]++;
        queries[pair] += count[c];
    }
    for (size_t pair = 0; pair < n_pairs; pair++) {
        int64_t length = ends[pair];
        ends[pair] = start;
        start += length;
    }
    for (size_t c = 0; c < n_cells; c++) margins[ends[choice[c] * n_models + runner_up[c]]++] = margin[c];
}

size_t llmpower_border(const uint16_t *choice, const uint16_t *runner_up, const double *margin, size_t n_cells,
                       size_t n_models, const double *limits, int64_t *cells) {
    size_t n = 0;
    /* Written in any case, as which cells are among them is anybody's guess: the next one writes over it. */
    for (size_t c = 0; c < n_cells; c++) {
        cells[n] = (int64_t)c;
        n += margin[c] <= limits[choice[c] * n_models + runner_up[c]];
    }
    return n;
}

void llmpower_regret(const double *costs, const int64_t *assigned, size_t n_cells, size_t n_models,
                     const double *prices, double *regret, double *paid) {
    double above = 0, total = 0;
    for (size_t c = 0; c < n_cells; c++) {
        const double *cost = costs + c * n_models;
        const int64_t *x = assigned + c * n_models;
        double best = INFINITY;
        for (size_t k = 0; k < n_models; k++) best = cost[k] + prices[k] < best ? cost[k] + prices[k] : best;
        for (size_t k = 0; k < n_models; k++) {
            if (x[k] == 0) continue;
            above += (double)x[k] * (cost[k] + prices[k] - best);
            total += (double)x[k] * fabs(cost[k]);
        }
    }
    *regret = above;
    *paid = total;
}

void llmpower_regret_of_choices(const double *costs, const uint16_t *choice, const int64_t *whole, size_t n_cells,
                                size_t n_models, const double *prices, double *regret, double *paid) {
    double above = 0, total = 0;
    for (size_t c = 0; c < n_cells; c++) {
        const double *cost = costs + c * n_models;
        double best = INFINITY, here = cost[choice[c]];
        if (whole[c] == 0) continue;
        for (size_t k = 0; k < n_models; k++) best = cost[k] + prices[k] < best ? cost[k] + prices[k] : best;
        above += (double)whole[c] * (here + prices[choice[c]] - best);
        total += (double)whole[c] * fabs(here);
    }
    *regret = above;
    *paid = total;
}
