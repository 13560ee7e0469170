/* routing.h - what routing asks of C: rows to cells and back, passes over all cells at given prices, sums of what is
 * assigned, and the exchange that ends on the optimum.
 *
 * Plain declarations: C includes this file, cffi reads it. Arrays belong to the caller; matrices are row-major, one
 * row per cell and one column per model. A cost of INFINITY forbids the pair. Nothing here allocates but
 * llmpower_exchange, nothing keeps state between calls, and nothing knows Python. csrc/build.py and
 * llmpower/routing/pointers.py know the rest. */
#ifndef LLMPOWER_ROUTING_H
#define LLMPOWER_ROUTING_H

#include <stddef.h>
#include <stdint.h>

enum llmpower_exchange_status {
    LLMPOWER_EXCHANGE_DONE = 0,
    LLMPOWER_EXCHANGE_STUCK = 1,     /* no path leads from where there is too much to where there is too little */
    LLMPOWER_EXCHANGE_NO_MEMORY = 2, /* the arrays are left in between */
};

/* Sets in bits, which are 0 at first, the bit (τin·n_out + τout)·n_classes + class of each row; query_class is NULL
 * where there is one class. Rows may be divided among threads. */
void llmpower_mark(const int64_t *input_tokens, const int64_t *output_tokens, const int64_t *query_class, size_t n_rows,
                   uint64_t n_out, uint64_t n_classes, uint64_t *bits);

/* Counts in ranks the bits of the words before each. Returns how many bits are set: the cells. */
size_t llmpower_rank(const uint64_t *bits, size_t n_words, uint32_t *ranks);

/* The cells, in ascending order, without queries yet; cell_class is NULL where query_class was. */
void llmpower_cells(const uint64_t *bits, size_t n_words, uint64_t n_out, uint64_t n_classes, int64_t *cell_input,
                    int64_t *cell_output, int64_t *cell_class, int64_t *count);

/* Adds the queries of these rows to the count of their cells, and says the cell of each row. row_counts is NULL where
 * each row is one query. Rows may be divided among threads. */
void llmpower_number(const int64_t *input_tokens, const int64_t *output_tokens, const int64_t *query_class,
                     const int64_t *row_counts, size_t n_rows, uint64_t n_out, uint64_t n_classes, const uint64_t *bits,
                     const uint32_t *ranks, int64_t *count, uint32_t *row_cells);

/* Round robin: query i, in the order of the rows, is added to model i mod n_models of its cell. Each row is one, and no
 * cell has as many as 65,536. */
void llmpower_turns(const uint32_t *row_cells, size_t n_rows, size_t n_models, uint16_t *assigned);

/* Of each cell the last model that has queries of it, and how many models have some. */
void llmpower_models(const int64_t *assigned, size_t n_cells, size_t n_models, uint16_t *model, uint16_t *models);

/* Each row's cell's number. */
void llmpower_read_back(const uint16_t *of_cell, const uint32_t *row_cells, size_t n_rows, uint16_t *of_row);

/* All of each cell's queries on its choice, and none elsewhere. */
void llmpower_assign(const uint16_t *choice, const int64_t *count, size_t n_cells, size_t n_models, int64_t *assigned);

/* Adds Σ x·value of each model to sums (n_models), a cell after the other, so that parts make the same bits. Values are
 * finite. */
void llmpower_add(const int64_t *assigned, const double *values, size_t n_cells, size_t n_models, double *sums);

/* What all whole queries of each cell come to on its choice: Σ whole and Σ whole·tokens as llmpower_count has them, and
 * Σ whole·value of each model, added to joules and seconds (n_models). */
void llmpower_sum_choices(const uint16_t *choice, const int64_t *whole, const int64_t *tokens,
                          const int64_t *cell_class, const double *joule_values, const double *second_values,
                          size_t n_cells, size_t n_models, int64_t *queries, int64_t *of_tokens, double *joules,
                          double *seconds);

/* The same of an assignment to many choices. */
void llmpower_sum_turns(const uint16_t *assigned, const int64_t *tokens, const int64_t *cell_class,
                        const double *joule_values, const double *second_values, size_t n_cells, size_t n_models,
                        int64_t *queries, int64_t *of_tokens, double *joules, double *seconds);

/* Adds Σ x and Σ x·tokens of each class and model to queries and of_tokens (n_classes × n_models); cell_class is NULL
 * where there is one class. */
void llmpower_count(const int64_t *assigned, const int64_t *tokens, const int64_t *cell_class, size_t n_cells,
                    size_t n_models, int64_t *queries, int64_t *of_tokens);

/* Adds count·value of each cell to the row of sums (keys × n_models) that its key names. */
void llmpower_tally(const int64_t *keys, const int64_t *count, const double *values, size_t n_cells, size_t n_models,
                    double *sums);

/* Joules and accuracy as one cost: joules·a_joule − w·accuracy·an_accuracy of each cell and model, where a query's w is
 * its tokens, or 1 where these are NULL. A row of accuracy (classes × n_models) is a class; cell_class is NULL where
 * there is one. */
void llmpower_weigh(const double *joules, double a_joule, const int64_t *input_tokens, const int64_t *output_tokens,
                    const double *accuracy, const int64_t *cell_class, double an_accuracy, size_t n_cells,
                    size_t n_models, double *costs);

/* Each cell's model of least cost + price, the first of equals, into choice; the second best into runner_up, and by how
 * much it is costlier into margin (INFINITY where there is none); the queries on each model into loads. */
void llmpower_price(const double *costs, const int64_t *count, size_t n_cells, size_t n_models, const double *prices,
                    uint16_t *choice, uint16_t *runner_up, double *margin, int64_t *loads);

/* The margins of the cells of each pair of best and second best model, at best·n_models + second best, one pair after
 * the other; where each pair's end in margins (n_cells), and how many queries each has. */
void llmpower_by_pair(const uint16_t *choice, const uint16_t *runner_up, const double *margin, const int64_t *count,
                      size_t n_cells, size_t n_models, int64_t *ends, int64_t *queries, double *margins);

/* The cells whose margin is at most the limit of their pair, in ascending order, into cells, which has room for all of
 * them. Returns how many they are. */
size_t llmpower_border(const uint16_t *choice, const uint16_t *runner_up, const double *margin, size_t n_cells,
                       size_t n_models, const double *limits, int64_t *cells);

/* Σ x·(cost + price − the cell's least of it) into regret, Σ x·|cost| into paid, both over x = assigned > 0. */
void llmpower_regret(const double *costs, const int64_t *assigned, size_t n_cells, size_t n_models,
                     const double *prices, double *regret, double *paid);

/* The same of all whole queries of each cell on its choice. */
void llmpower_regret_of_choices(const double *costs, const uint16_t *choice, const int64_t *whole, size_t n_cells,
                                size_t n_models, const double *prices, double *regret, double *paid);

/* Moves queries between models until every load is within low..high, at least cost; see exchange.c. assigned and prices
 * (n_models of them) are the start and are overwritten with the end. The start must be optimal for its own loads: no
 * cell has a cheaper model at these prices than those it is assigned to. */
int llmpower_exchange(const double *costs, size_t n_cells, size_t n_models, const int64_t *low, const int64_t *high,
                      int64_t *assigned, double *prices);

#endif
