/* cells.c - queries of equal lengths become one cell, and what is decided for a cell goes back to its queries.
 *
 * Which lengths occur is a bitmap with a bit for every pair that could, and a cell's number is how many bits are set
 * before its own: those of the words before, which are added up once, and those of its own word. Looking a row up
 * touches a bit a possible pair where a table would touch an entry, so millions of rows are looked up in what a
 * processor's cache holds (Jacobson, "Space-efficient static trees and graphs", 1989, calls this rank). */
#include "routing.h"

enum { WORD = 64, AHEAD = 16, BLOCK = 64 };

struct lengths {
    const int64_t *input_tokens, *output_tokens, *query_class;
    uint64_t n_out, n_classes;
};

static uint64_t key(const struct lengths *l, size_t row) {
    uint64_t pair = (uint64_t)l->input_tokens[row] * l->n_out + (uint64_t)l->output_tokens[row];
    return l->query_class ? pair * l->n_classes + (uint64_t)l->query_class[row] : pair;
}

/* Bits set in a word, summed in parallel: in pairs, in fours, in bytes. No instruction for it is taken for granted. */
static uint32_t ones(uint64_t word) {
    word -= (word >> 1) & 0x5555555555555555u;
    word = (word & 0x3333333333333333u) + ((word >> 2) & 0x3333333333333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (uint32_t)((word * 0x0101010101010101u) >> 56);
}

/* Rows are taken a block at a time, first their places and then what is done there: an operation that other threads see
 * whole lets nothing pass it, so that memory must have been asked for before. */

void llmpower_mark(const int64_t *input_tokens, const int64_t *output_tokens, const int64_t *query_class, size_t n_rows,
                   uint64_t n_out, uint64_t n_classes, uint64_t *bits) {
    struct lengths l = {input_tokens, output_tokens, query_class, n_out, n_classes};
    for (size_t start = 0; start < n_rows; start += BLOCK) {
        uint64_t keys[BLOCK];
        size_t n = n_rows - start < BLOCK ? n_rows - start : BLOCK;
        for (size_t i = 0; i < n; i++) {
            keys[i] = key(&l, start + i);
            __builtin_prefetch(bits + keys[i] / WORD, 1);
        }
        for (size_t i = 0; i < n; i++) {
            uint64_t *word = bits + keys[i] / WORD, bit = (uint64_t)1 << (keys[i] % WORD);
            /* Most are set already. Bits only ever come, and who needs them waits for all threads: no order to keep. */
            if (!(__atomic_load_n(word, __ATOMIC_RELAXED) & bit)) __atomic_fetch_or(word, bit, __ATOMIC_RELAXED);
        }
    }
}

size_t llmpower_rank(const uint64_t *bits, size_t n_words, uint32_t *ranks) {
    uint32_t rank = 0;
    for (size_t word = 0; word < n_words; word++) {
        ranks[word] = rank;
        rank += ones(bits[word]);
    }
    return rank;
}

void llmpower_cells(const uint64_t *bits, size_t n_words, uint64_t n_out, uint64_t n_classes, int64_t *cell_input,
                    int64_t *cell_output, int64_t *cell_class, int64_t *count) {
    size_t cell = 0;
    for (size_t word = 0; word < n_words; word++)
        for (uint64_t left = bits[word]; left; left &= left - 1, cell++) {
            /* The lowest bit that is set has as many zeros below it as its predecessor has ones. */
            uint64_t k = (uint64_t)word * WORD + ones((left & -left) - 1), pair = k / n_classes;
            if (cell_class) cell_class[cell] = (int64_t)(k % n_classes);
            cell_input[cell] = (int64_t)(pair / n_out);
            cell_output[cell] = (int64_t)(pair % n_out);
            count[cell] = 0;
        }
}

void llmpower_number(const int64_t *input_tokens, const int64_t *output_tokens, const int64_t *query_class,
                     const int64_t *row_counts, size_t n_rows, uint64_t n_out, uint64_t n_classes, const uint64_t *bits,
                     const uint32_t *ranks, int64_t *count, uint32_t *row_cells) {
    struct lengths l = {input_tokens, output_tokens, query_class, n_out, n_classes};
    for (size_t start = 0; start < n_rows; start += BLOCK) {
        uint64_t keys[BLOCK];
        size_t end = n_rows - start < BLOCK ? n_rows : start + BLOCK;
        for (size_t row = start; row < end; row++) {
            uint64_t k = keys[row - start] = key(&l, row);
            __builtin_prefetch(bits + k / WORD);
            __builtin_prefetch(ranks + k / WORD);
        }
        for (size_t row = start; row < end; row++) {
            uint64_t k = keys[row - start], below = ((uint64_t)1 << (k % WORD)) - 1;
            row_cells[row] = ranks[k / WORD] + ones(bits[k / WORD] & below);
            __builtin_prefetch(count + row_cells[row], 1);
        }
        for (size_t row = start; row < end; row++)
            __atomic_fetch_add(count + row_cells[row], row_counts ? row_counts[row] : 1, __ATOMIC_RELAXED);
    }
}

void llmpower_turns(const uint32_t *row_cells, size_t n_rows, size_t n_models, uint16_t *assigned) {
    size_t model = 0;
    for (size_t row = 0; row < n_rows; row++) {
        /* The processor waits for memory here; told early, it waits for many rows at once. */
        if (row + AHEAD < n_rows) __builtin_prefetch(assigned + row_cells[row + AHEAD] * n_models, 1);
        assigned[row_cells[row] * n_models + model]++;
        if (++model == n_models) model = 0;
    }
}

void llmpower_models(const int64_t *assigned, size_t n_cells, size_t n_models, uint16_t *model, uint16_t *models) {
    for (size_t c = 0; c < n_cells; c++) {
        const int64_t *x = assigned + c * n_models;
        uint16_t last = 0, number = 0;
        for (size_t k = 0; k < n_models; k++)
            if (x[k] > 0) {
                last = (uint16_t)k;
                number++;
            }
        model[c] = last;
        models[c] = number;
    }
}

void llmpower_read_back(const uint16_t *of_cell, const uint32_t *row_cells, size_t n_rows, uint16_t *of_row) {
    for (size_t row = 0; row < n_rows; row++) of_row[row] = of_cell[row_cells[row]];
}

void llmpower_assign(const uint16_t *choice, const int64_t *count, size_t n_cells, size_t n_models, int64_t *assigned) {
    for (size_t c = 0; c < n_cells; c++)
        for (size_t k = 0; k < n_models; k++) assigned[c * n_models + k] = k == choice[c] ? count[c] : 0;
}
