/* test_exchange.c - the exchange against every assignment there is, what has no answer, and which cells it is given. */
#include <math.h>
#include <string.h>

#include "../routing/routing.h"
#include "check.h"

enum { CELLS = 6, MODELS = 3 };

/* A 64-bit linear congruential generator (Knuth's MMIX constants): the same instances everywhere. */
static uint64_t state = 1;
static uint32_t chance(uint32_t end) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % end;
}

/* Least cost over all assignments of one query per cell whose loads are within the limits; INFINITY if there is none.
 * */
static double least(const double *costs, const int64_t *low, const int64_t *high) {
    double best = INFINITY;
    for (int code = 0; code < 729; code++) {
        int64_t loads[MODELS] = {0};
        double cost = 0;
        for (int c = 0, rest = code; c < CELLS; c++, rest /= MODELS) {
            loads[rest % MODELS]++;
            cost += costs[c * MODELS + rest % MODELS];
        }
        for (int k = 0; k < MODELS; k++)
            if (loads[k] < low[k] || loads[k] > high[k]) cost = INFINITY;
        best = fmin(best, cost);
    }
    return best;
}

static void test_small_instances_against_all_assignments(void) {
    int met = 0, stuck = 0;
    for (int trial = 0; trial < 3000; trial++) {
        double costs[CELLS * MODELS], prices[MODELS] = {0}, margin[CELLS], regret, paid;
        int64_t count[CELLS], low[MODELS], high[MODELS], loads[MODELS], assigned[CELLS * MODELS] = {0};
        uint16_t choice[CELLS], runner_up[CELLS];
        for (int i = 0; i < CELLS * MODELS; i++) costs[i] = (double)chance(trial % 2 ? 4 : 1000000) - 2;
        for (int c = 0; c < CELLS; c++) {
            count[c] = 1;
            for (int k = 0; k < MODELS - 1; k++) /* one is left */
                if (trial % 3 == 0 && chance(2)) costs[c * MODELS + k] = INFINITY;
        }
        for (int k = 0; k < MODELS; k++) {
            low[k] = chance(4);
            high[k] = low[k] + chance(3);
        }
        llmpower_price(costs, count, CELLS, MODELS, prices, choice, runner_up, margin, loads);
        for (int c = 0; c < CELLS; c++) assigned[c * MODELS + choice[c]] = 1;
        int status = llmpower_exchange(costs, CELLS, MODELS, low, high, assigned, prices);
        double best = least(costs, low, high), cost = 0;
        if (status == LLMPOWER_EXCHANGE_STUCK) {
            CHECK(isinf(best));
            stuck++;
            continue;
        }
        CHECK(status == LLMPOWER_EXCHANGE_DONE);
        memset(loads, 0, sizeof loads);
        for (int c = 0; c < CELLS; c++)
            for (int k = 0; k < MODELS; k++) {
                loads[k] += assigned[c * MODELS + k];
                if (assigned[c * MODELS + k]) cost += costs[c * MODELS + k];
            }
        for (int k = 0; k < MODELS; k++) CHECK(low[k] <= loads[k] && loads[k] <= high[k]);
        CHECK(cost == best); /* sums of whole numbers */
        llmpower_regret(costs, assigned, CELLS, MODELS, prices, &regret, &paid);
        CHECK(regret == 0 && paid >= fabs(cost));
        met++;
    }
    CHECK(met > 500 && stuck > 500);
}

static void test_margins_by_pair_and_the_border(void) {
    double costs[CELLS * MODELS], prices[MODELS] = {0}, margin[CELLS], margins[CELLS], limits[MODELS * MODELS];
    int64_t count[CELLS], loads[MODELS], ends[MODELS * MODELS], queries[MODELS * MODELS], cells[CELLS];
    uint16_t choice[CELLS], runner_up[CELLS];
    for (int c = 0; c < CELLS; c++) count[c] = 1 + chance(3);
    for (int i = 0; i < CELLS * MODELS; i++) costs[i] = chance(100);
    llmpower_price(costs, count, CELLS, MODELS, prices, choice, runner_up, margin, loads);
    llmpower_by_pair(choice, runner_up, margin, count, CELLS, MODELS, ends, queries, margins);
    CHECK(ends[MODELS * MODELS - 1] == CELLS);
    for (int k = 0; k < MODELS; k++) {
        int64_t of_model = 0;
        for (int l = 0; l < MODELS; l++) of_model += queries[k * MODELS + l];
        CHECK(of_model == loads[k]);
    }
    for (int pair = 0; pair < MODELS * MODELS; pair++) limits[pair] = INFINITY;
    CHECK(llmpower_border(choice, runner_up, margin, CELLS, MODELS, limits, cells) == CELLS);
    for (int pair = 0; pair < MODELS * MODELS; pair++) limits[pair] = -1;
    CHECK(llmpower_border(choice, runner_up, margin, CELLS, MODELS, limits, cells) == 0);
}

int main(void) {
    test_margins_by_pair_and_the_border();
    test_small_instances_against_all_assignments();
    puts("exchange: ok");
    return 0;
}
