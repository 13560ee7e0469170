/* test_phase.c - where the polling looks, against counters whose every update is known. No thread, no clock. */
#include <math.h>
#include <stdlib.h>

#include "../phase.h"
#include "check.h"

static const int64_t MS = 1000000;

/* A value that moves every period, each time off the grid by some of the jitter. */
struct card {
    int64_t period_ns, jitter_ns;
    int64_t frozen_from_ns, frozen_to_ns; /* nothing moves in between */
    int64_t slower_from_ns;               /* from here on the period is twice as long */
    int64_t skip;                         /* every this many updates one is left out; 0 for none */
};

struct outcome {
    int reads, edges, midway; /* midway: reads far from any update */
    int64_t widths_ns[20000];
    bool locked; /* at the end */
};

static int64_t noise(int64_t index, int64_t size_ns) {
    uint64_t mixed = (uint64_t)(index + 1) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed ^= mixed >> 31;
    /* Triangular, twice the size wide to either side at most. */
    return size_ns ? (int64_t)(mixed % (uint64_t)(2 * size_ns)) + (int64_t)((mixed >> 32) % (uint64_t)(2 * size_ns)) -
                         2 * size_ns
                   : 0;
}

static int64_t shown(const struct card *card, int64_t time_ns) {
    if (time_ns >= card->frozen_from_ns && time_ns < card->frozen_to_ns) time_ns = card->frozen_from_ns - 1;
    int64_t period_ns = card->period_ns;
    if (card->slower_from_ns && time_ns >= card->slower_from_ns) period_ns *= 2;
    int64_t number = time_ns / period_ns + 1;
    while (number * period_ns + noise(number, card->jitter_ns) > time_ns) number--;
    if (card->skip && number % card->skip == 0) number--;
    return number * period_ns; /* the same for the same moment whatever the period is */
}

/* Poll as the sampler does for a while; edges count from from_ns on. */
static void watch(const struct card *card, int64_t interval_ns, int64_t call_ns, int64_t from_ns, int64_t until_ns,
                  struct phase *phase, struct outcome *outcome) {
    *outcome = (struct outcome){0};
    int64_t time_ns = 1000 * MS, last_before_ns = 0, last_value = -1;
    from_ns += time_ns, until_ns += time_ns;
    phase_init(phase);
    while (time_ns < until_ns) {
        int64_t before_ns = time_ns, after_ns = time_ns + call_ns, value = shown(card, time_ns + call_ns / 2);
        if (before_ns >= from_ns) {
            outcome->reads++;
            int64_t into_ns = before_ns % card->period_ns; /* updates lie at multiples */
            outcome->midway += into_ns > 20 * MS && into_ns < 80 * MS;
            if (value != last_value && last_value >= 0 && outcome->edges < 20000)
                outcome->widths_ns[outcome->edges++] = after_ns - last_before_ns;
        }
        last_before_ns = before_ns, last_value = value;
        phase_take(phase, before_ns, after_ns, value);
        int64_t search_ns = 10 * call_ns > 5 * MS ? 10 * call_ns : interval_ns / 4 < 5 * MS ? interval_ns / 4 : 5 * MS;
        int64_t next_ns = phase_next(phase, after_ns, interval_ns, search_ns);
        if (next_ns) CHECK(next_ns >= after_ns);
        time_ns = next_ns ? next_ns : after_ns + interval_ns;
    }
    outcome->locked = phase->locked;
}

static int by_size(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int64_t median_width_ns(struct outcome *outcome) {
    CHECK(outcome->edges > 0);
    qsort(outcome->widths_ns, (size_t)outcome->edges, sizeof *outcome->widths_ns, by_size);
    return outcome->widths_ns[outcome->edges / 2];
}

static struct phase phase;
static struct outcome outcome;

static void test_a_counter_of_100_ms_is_known_to_a_millisecond(void) {
    struct card card = {.period_ns = 100 * MS, .jitter_ns = 2 * MS};
    watch(&card, 10 * MS, 10000, 3000 * MS, 63000 * MS, &phase, &outcome);
    printf("100 ms at 100 Hz: %d reads, %d edges, width p50 %.2f ms\n", outcome.reads, outcome.edges,
           (double)median_width_ns(&outcome) / 1e6);
    CHECK(outcome.locked);
    CHECK(outcome.edges >= 590 && outcome.edges <= 610);
    CHECK(outcome.reads <= 6200); /* uniform polling: 6000 */
    CHECK(median_width_ns(&outcome) <= 2 * MS);
    CHECK(fabs(phase.period_ns - 100e6) < 0.5e6);
}

static void test_a_fast_counter_is_followed_with_a_few_reads_a_period(void) {
    struct card card = {.period_ns = 20 * MS, .jitter_ns = MS / 2};
    watch(&card, 6 * MS, 10000, 3000 * MS, 23000 * MS, &phase, &outcome);
    printf("20 ms at 167 Hz: %d reads, %d edges, width p50 %.2f ms\n", outcome.reads, outcome.edges,
           (double)median_width_ns(&outcome) / 1e6);
    CHECK(outcome.locked);
    CHECK(outcome.edges >= 980);
    CHECK(outcome.reads <= 3500);
    CHECK(median_width_ns(&outcome) <= 2 * MS);
}

static void test_of_slow_calls_nearly_each_shows_an_update(void) {
    /* 2.4 ms a call, stretched to one in 120 ms: fewer reads than updates. The search may go faster for a moment. */
    struct card card = {.period_ns = 100 * MS, .jitter_ns = MS};
    watch(&card, 120 * MS, 2400000, 10000 * MS, 130000 * MS, &phase, &outcome);
    qsort(outcome.widths_ns, (size_t)outcome.edges, sizeof *outcome.widths_ns, by_size);
    int close = 0;
    while (close < outcome.edges && outcome.widths_ns[close] < 30 * MS) close++;
    printf("slow calls: %d reads, %d midway, %d edges, %d of them close\n", outcome.reads, outcome.midway,
           outcome.edges, close);
    CHECK(outcome.locked);
    CHECK(outcome.reads >= 900 && outcome.reads <= 1100); /* 120 s at one read in 120 ms */
    CHECK(outcome.midway >= 750);
    CHECK(close >= 8); /* the grid stays known; uniform polling: none */
}

static void test_cheap_calls_that_are_few_see_edges_closely(void) {
    struct card card = {.period_ns = 100 * MS, .jitter_ns = MS};
    watch(&card, 120 * MS, 10000, 10000 * MS, 130000 * MS, &phase, &outcome);
    qsort(outcome.widths_ns, (size_t)outcome.edges, sizeof *outcome.widths_ns, by_size);
    CHECK(outcome.locked && outcome.edges >= 200);
    CHECK(outcome.widths_ns[200] < 30 * MS);
}

static void test_a_freeze_costs_the_lock_and_not_the_period(void) {
    struct card card = {
        .period_ns = 100 * MS, .jitter_ns = 2 * MS, .frozen_from_ns = 11020 * MS, .frozen_to_ns = 11880 * MS};
    watch(&card, 10 * MS, 10000, 10300 * MS, 10860 * MS, &phase, &outcome);
    CHECK(!outcome.locked && phase.period_ns > 0);
    CHECK(outcome.edges == 0);
    watch(&card, 10 * MS, 10000, 11500 * MS, 21500 * MS, &phase, &outcome);
    CHECK(outcome.locked);
    CHECK(median_width_ns(&outcome) <= 2 * MS);
}

static void test_a_skipped_update_is_taken_in_stride(void) {
    struct card card = {.period_ns = 100 * MS, .jitter_ns = 2 * MS, .skip = 10};
    watch(&card, 10 * MS, 10000, 3000 * MS, 33000 * MS, &phase, &outcome);
    CHECK(outcome.locked);
    CHECK(fabs(phase.period_ns - 100e6) < 1e6);
    CHECK(median_width_ns(&outcome) <= 2 * MS);
}

static void test_another_period_is_learnt(void) {
    struct card card = {.period_ns = 50 * MS, .jitter_ns = MS / 2, .slower_from_ns = 20000 * MS};
    watch(&card, 10 * MS, 10000, 60000 * MS, 90000 * MS, &phase, &outcome);
    CHECK(outcome.locked);
    CHECK(fabs(phase.period_ns - 100e6) < 1e6);
    CHECK(median_width_ns(&outcome) <= 2 * MS);
}

static void test_without_a_grid_there_is_no_opinion(void) {
    struct card still = {.period_ns = 1000000 * MS}, fine = {.period_ns = MS};
    watch(&still, 10 * MS, 10000, 0, 20000 * MS, &phase, &outcome);
    CHECK(!outcome.locked && outcome.edges == 0);
    CHECK(outcome.reads >= 1990); /* as often as asked for, and a burst at the start */
    watch(&fine, 10 * MS, 10000, 0, 20000 * MS, &phase, &outcome);
    CHECK(!outcome.locked && phase.period_ns == 0);
    /* Who polls every millisecond anyway needs no lock. */
    struct card card = {.period_ns = 100 * MS, .jitter_ns = MS};
    watch(&card, MS, 10000, 3000 * MS, 13000 * MS, &phase, &outcome);
    CHECK(outcome.reads >= 9800);
}

static void test_after_a_restart_one_edge_is_enough(void) {
    struct card card = {.period_ns = 100 * MS, .jitter_ns = MS};
    watch(&card, 10 * MS, 10000, 3000 * MS, 5000 * MS, &phase, &outcome);
    CHECK(phase.locked);
    phase_restart(&phase);
    CHECK(!phase.locked && phase_next(&phase, 9000 * MS, 10 * MS, 10 * MS) == 0);
    phase_take(&phase, 9000 * MS, 9000 * MS, 1);
    CHECK(!phase.locked); /* the first value after it is no edge */
    phase_take(&phase, 9010 * MS, 9010 * MS, 2);
    CHECK(phase.locked && phase_next(&phase, 9010 * MS, 10 * MS, 10 * MS) > 9010 * MS);
}

int main(void) {
    test_a_counter_of_100_ms_is_known_to_a_millisecond();
    test_a_fast_counter_is_followed_with_a_few_reads_a_period();
    test_of_slow_calls_nearly_each_shows_an_update();
    test_cheap_calls_that_are_few_see_edges_closely();
    test_a_freeze_costs_the_lock_and_not_the_period();
    test_a_skipped_update_is_taken_in_stride();
    test_another_period_is_learnt();
    test_without_a_grid_there_is_no_opinion();
    test_after_a_restart_one_edge_is_enough();
    puts("phase: ok");
    return 0;
}
