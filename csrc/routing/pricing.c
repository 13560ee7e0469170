/* pricing.c - passes over all cells: who is cheapest at these prices, and what an assignment pays above that.
 *
 * They read the costs once, in order, and are as fast as memory. Sums are taken over cells in their order, so that
 * equal inputs give equal bits. */
#include <math.h>

#include "routing.h"

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
