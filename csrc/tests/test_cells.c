/* test_cells.c - cells against the rows that they are made of, and sums against the rows that they are sums of. */
#include <string.h>

#include "../routing/routing.h"
#include "check.h"

enum { ROWS = 40, MODELS = 3, N_IN = 5, N_OUT = 30, CLASSES = 2, WORDS = (N_IN * N_OUT * CLASSES + 63) / 64 };

/* A 64-bit linear congruential generator (Knuth's MMIX constants): the same instances everywhere. */
static uint64_t state = 1;
static int64_t chance(uint32_t end) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((uint32_t)(state >> 33) % end);
}

static void test_rows_become_cells_and_back(void) {
    for (int trial = 0; trial < 500; trial++) {
        int64_t in[ROWS], out[ROWS], class[ROWS], counts[ROWS], cell_in[ROWS], cell_out[ROWS], cell_class[ROWS];
        int64_t count[ROWS], expected[ROWS] = {0};
        uint64_t bits[WORDS] = {0};
        uint32_t ranks[WORDS], row_cells[ROWS];
        for (int row = 0; row < ROWS; row++) {
            in[row] = chance(N_IN);
            out[row] = row ? chance(N_OUT) : N_OUT - 1;
            class[row] = chance(CLASSES);
            counts[row] = 1 + chance(3);
        }
        const int64_t *classes = trial % 2 ? class : NULL, *row_counts = trial % 3 ? counts : NULL;
        uint64_t n_classes = classes ? CLASSES : 1;
        /* In two parts, as threads do it. */
        int ends[] = {0, (int)chance(ROWS + 1), ROWS};
        for (int part = 0; part < 2; part++) {
            int at = ends[part];
            llmpower_mark(in + at, out + at, classes ? classes + at : NULL, (size_t)(ends[part + 1] - at), N_OUT,
                          n_classes, bits);
        }
        size_t n = llmpower_rank(bits, WORDS, ranks);
        llmpower_cells(bits, WORDS, N_OUT, n_classes, cell_in, cell_out, classes ? cell_class : NULL, count);
        for (int part = 0; part < 2; part++) {
            int at = ends[part];
            llmpower_number(in + at, out + at, classes ? classes + at : NULL, row_counts ? row_counts + at : NULL,
                            (size_t)(ends[part + 1] - at), N_OUT, n_classes, bits, ranks, count, row_cells + at);
        }
        CHECK(n > 0 && n <= ROWS);
        for (int row = 0; row < ROWS; row++) {
            uint32_t cell = row_cells[row];
            CHECK(cell < n);
            CHECK(cell_in[cell] == in[row] && cell_out[cell] == out[row]);
            CHECK(!classes || cell_class[cell] == class[row]);
            expected[cell] += row_counts ? counts[row] : 1;
        }
        for (size_t cell = 0; cell < n; cell++) {
            CHECK(count[cell] == expected[cell] && count[cell] > 0);
            if (!cell) continue;
            int64_t before = (cell_in[cell - 1] * N_OUT + cell_out[cell - 1]) * CLASSES;
            int64_t here = (cell_in[cell] * N_OUT + cell_out[cell]) * CLASSES;
            CHECK(before < here || (before == here && classes && cell_class[cell - 1] < cell_class[cell]));
        }
    }
}

static void test_sums_and_turns(void) {
    uint32_t row_cells[] = {1, 0, 1, 1, 0};
    uint16_t in_turn[2 * MODELS] = {0};
    int64_t turns[2 * MODELS], expected[2 * MODELS] = {0, 2, 0, 2, 0, 1}, tokens[] = {10, 7}, classes[] = {0, 1};
    llmpower_turns(row_cells, 5, MODELS, in_turn);
    for (int i = 0; i < 2 * MODELS; i++) turns[i] = in_turn[i];
    CHECK(!memcmp(turns, expected, sizeof turns));

    double values[2 * MODELS] = {1, 2, 3, 4, 5, 6}, sums[MODELS] = {100, 0, 0}, tallied[2 * MODELS] = {0};
    llmpower_add(turns, values, 2, MODELS, sums);
    CHECK(sums[0] == 108 && sums[1] == 4 && sums[2] == 6);

    int64_t queries[2 * MODELS] = {0}, of_tokens[2 * MODELS] = {0}, all[MODELS] = {0}, all_tokens[MODELS] = {0};
    llmpower_count(turns, tokens, classes, 2, MODELS, queries, of_tokens);
    CHECK(!memcmp(queries, expected, sizeof queries));
    CHECK(of_tokens[1] == 20 && of_tokens[3] == 14 && of_tokens[5] == 7);
    llmpower_count(turns, tokens, NULL, 2, MODELS, all, all_tokens);
    CHECK(all[0] == 2 && all[1] == 2 && all[2] == 1 && all_tokens[1] == 20);

    int64_t keys[] = {1, 1}, count[] = {2, 3};
    llmpower_tally(keys, count, values, 2, MODELS, tallied);
    CHECK(tallied[0] == 0 && tallied[3] == 2 * 1 + 3 * 4 && tallied[5] == 2 * 3 + 3 * 6);
}

/* One pass over choices, or over turns, finds what the passes over the matrix of the same queries find. */
static void test_sums_in_one_pass(void) {
    int64_t matrix[] = {0, 4, 0, 0, 0, 3}, tokens[] = {10, 7}, classes[] = {0, 1}, whole[] = {4, 3};
    uint16_t choice[] = {1, 2}, in_turn[] = {0, 4, 0, 0, 0, 3};
    double joules[] = {1, 2, 3, 4, 5, 6}, seconds[] = {7, 8, 9, 10, 11, 12}, of_joules[MODELS] = {0};
    double of_seconds[MODELS] = {0};
    int64_t queries[2 * MODELS] = {0}, of_tokens[2 * MODELS] = {0};
    llmpower_count(matrix, tokens, classes, 2, MODELS, queries, of_tokens);
    llmpower_add(matrix, joules, 2, MODELS, of_joules);
    llmpower_add(matrix, seconds, 2, MODELS, of_seconds);
    for (int pass = 0; pass < 2; pass++) {
        double found_j[MODELS] = {0}, found_s[MODELS] = {0};
        int64_t found[2 * MODELS] = {0}, found_tokens[2 * MODELS] = {0};
        if (pass)
            llmpower_sum_turns(in_turn, tokens, classes, joules, seconds, 2, MODELS, found, found_tokens, found_j,
                               found_s);
        else
            llmpower_sum_choices(choice, whole, tokens, classes, joules, seconds, 2, MODELS, found, found_tokens,
                                 found_j, found_s);
        CHECK(!memcmp(found, queries, sizeof found) && !memcmp(found_tokens, of_tokens, sizeof found_tokens));
        for (int k = 0; k < MODELS; k++) CHECK(found_j[k] == of_joules[k] && found_s[k] == of_seconds[k]);
    }

    double prices[] = {0.5, 0, 0.25}, regret[2], paid[2];
    llmpower_regret(joules, matrix, 2, MODELS, prices, &regret[0], &paid[0]);
    llmpower_regret_of_choices(joules, choice, whole, 2, MODELS, prices, &regret[1], &paid[1]);
    CHECK(regret[0] == regret[1] && regret[0] == 4 * 0.5 + 3 * 1.75 && paid[0] == paid[1] && paid[0] == 26);
}

static void test_models_of_cells_and_rows(void) {
    int64_t assigned[] = {0, 4, 0, 2, 0, 1}, count[] = {4, 3};
    uint16_t model[2], models[2], of_row[3];
    uint32_t row_cells[] = {1, 0, 1};
    llmpower_models(assigned, 2, MODELS, model, models);
    CHECK(model[0] == 1 && models[0] == 1 && model[1] == 2 && models[1] == 2);
    llmpower_read_back(model, row_cells, 3, of_row);
    CHECK(of_row[0] == 2 && of_row[1] == 1 && of_row[2] == 2);
    llmpower_assign(model, count, 2, MODELS, assigned);
    int64_t expected[] = {0, 4, 0, 0, 0, 3};
    CHECK(!memcmp(assigned, expected, sizeof expected));
}

int main(void) {
    test_rows_become_cells_and_back();
    test_sums_and_turns();
    test_sums_in_one_pass();
    test_models_of_cells_and_rows();
    puts("cells: ok");
    return 0;
}
