/* routing.h - what routing asks of C: passes over all cells at given prices, and the exchange that ends on the optimum.
 *
 * Plain declarations: C includes this file, cffi reads it. Arrays belong to the caller; matrices are row-major, a row a
 * cell and a column a model. A cost of INFINITY forbids the pair. Nothing here allocates but llmpower_exchange, nothing
 * keeps state between calls, and nothing knows Python. csrc/build.py and llmpower/routing/kernels.py know the rest. */
#ifndef LLMPOWER_ROUTING_H
#define LLMPOWER_ROUTING_H

#include <stddef.h>
#include <stdint.h>

enum llmpower_exchange_status {
    LLMPOWER_EXCHANGE_DONE = 0,
    LLMPOWER_EXCHANGE_STUCK = 1,     /* no path leads from where there is too much to where there is too little */
    LLMPOWER_EXCHANGE_NO_MEMORY = 2, /* the arrays are left in between */
};

/* Each cell's model of least cost + price, the first of equals, into choice; the second best into runner_up, and by how
 * much it is dearer into margin (INFINITY where there is none); the queries on each model into loads. */
void llmpower_price(const double *costs, const int64_t *count, size_t n_cells, size_t n_models, const double *prices,
                    uint16_t *choice, uint16_t *runner_up, double *margin, int64_t *loads);

/* Σ x·(cost + price − the cell's least of it) into regret, Σ x·|cost| into paid, both over x = assigned > 0. */
void llmpower_regret(const double *costs, const int64_t *assigned, size_t n_cells, size_t n_models,
                     const double *prices, double *regret, double *paid);

/* Moves queries between models until every load is within low..high, at least cost; see exchange.c. assigned and prices
 * (n_models of them) are the start and are overwritten with the end. The start must be optimal for its own loads: no
 * cell has a cheaper model at these prices than those it is assigned to. */
int llmpower_exchange(const double *costs, size_t n_cells, size_t n_models, const int64_t *low, const int64_t *high,
                      int64_t *assigned, double *prices);

#endif
