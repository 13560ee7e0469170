/* test_deadlines.c - when channels are read next: the grid that late reads do not shift, what failures and rest make of
 * it, and who reads less where reads would cost too much. No thread, no clock. */
#include "../deadlines.h"

#include "check.h"

#include <math.h>
#include <string.h>

static const int64_t MS = 1000000;
static struct worker worker;

static struct channel *add(int64_t interval_ns, int64_t latency_ns) {
    struct channel *channel = &worker.channels[worker.channel_count++];
    channel->requested_interval_ns = interval_ns;
    phase_init(&channel->phase);
    worker_set(&channel->interval_ns, interval_ns);
    worker_set(&channel->latency_ns, latency_ns);
    return channel;
}

static void set_up(void) {
    memset(&worker, 0, sizeof worker);
    budget_init(&worker.budget, 0.02, 0);
}

static void test_a_late_read_does_not_shift_the_grid(void) {
    set_up();
    struct channel *channel = add(10 * MS, 0);
    deadlines_advance(&worker, channel, 3 * MS);
    CHECK(channel->deadline_ns == 10 * MS && worker.statistics.missed_ticks == 0);
    deadlines_advance(&worker, channel, 47 * MS); /* late by whole intervals */
    CHECK(channel->deadline_ns == 50 * MS && worker.statistics.missed_ticks == 3);
}

static void test_the_earliest_channel_is_next(void) {
    set_up();
    add(10 * MS, 0)->deadline_ns = 7 * MS;
    struct channel *first = add(10 * MS, 0);
    first->deadline_ns = 2 * MS;
    add(10 * MS, 0)->deadline_ns = 2 * MS;
    CHECK(deadlines_earliest(&worker) == first);
}

static void test_a_device_that_keeps_failing_is_asked_once_a_second(void) {
    set_up();
    struct channel *channel = add(10 * MS, 0);
    channel->failures = 1; /* alone it is no reason to wait */
    deadlines_advance(&worker, channel, 0);
    CHECK(channel->deadline_ns == 10 * MS);
    channel->failures = 4;
    deadlines_advance(&worker, channel, 10 * MS);
    CHECK(channel->deadline_ns == 90 * MS);
    channel->failures = UINT32_MAX;
    deadlines_advance(&worker, channel, 90 * MS);
    CHECK(channel->deadline_ns == 1090 * MS);
}

static void test_at_rest_a_counter_is_read_less_and_a_power_only_looked_at(void) {
    set_up();
    struct channel *counter = add(10 * MS, 0), *power = add(10 * MS, 0);
    power->shown = true;
    CHECK(deadlines_asked_ns(&worker, counter) == 10.0 * MS && deadlines_asked_ns(&worker, power) == 10.0 * MS);
    worker.resting = true;
    CHECK(deadlines_asked_ns(&worker, counter) == 40.0 * MS && deadlines_asked_ns(&worker, power) == 250.0 * MS);
    deadlines_throttle(&worker, 1000 * MS);
    CHECK(counter->interval_ns == 40 * MS && power->interval_ns == 250 * MS);
    worker.resting = false;
    deadlines_throttle(&worker, 2000 * MS);
    CHECK(counter->interval_ns == 10 * MS && power->interval_ns == 10 * MS);
}

static void test_a_value_that_moves_fast_is_read_up_to_twice_as_often(void) {
    set_up();
    struct channel *fast = add(10 * MS, 0), *faster = add(10 * MS, 0);
    fast->phase.period_ns = 21.0 * MS;
    faster->phase.period_ns = 1.0 * MS;
    deadlines_throttle(&worker, 1000 * MS);
    CHECK(fast->interval_ns == 6 * MS && faster->interval_ns == 5 * MS);
}

static void test_slow_reads_become_fewer_and_cheap_ones_do_not_pay_for_them(void) {
    set_up();
    struct channel *cheap = add(10 * MS, 10000), *costly = add(10 * MS, 5 * MS); /* 0.1 and 50 % of wall time */
    deadlines_throttle(&worker, 1000 * MS);
    CHECK(cheap->interval_ns == 10 * MS);
    double load = 10000.0 / (double)cheap->interval_ns + 5.0 * (double)MS / (double)costly->interval_ns;
    CHECK(fabs(load - 0.02) < 0.0025); /* the budget keeps a tenth of its share back */
}

static void test_slow_reads_cost_less_at_rest_as_well(void) {
    set_up();
    struct channel *costly = add(10 * MS, 3 * MS);
    deadlines_throttle(&worker, 1000 * MS);
    int64_t busy_ns = costly->interval_ns;
    worker.resting = true;
    deadlines_throttle(&worker, 2000 * MS);
    CHECK(llabs(costly->interval_ns - 4 * busy_ns) < MS);
    worker.resting = false;
    deadlines_throttle(&worker, 3000 * MS);
    CHECK(costly->interval_ns == busy_ns);
}

int main(void) {
    test_a_late_read_does_not_shift_the_grid();
    test_the_earliest_channel_is_next();
    test_a_device_that_keeps_failing_is_asked_once_a_second();
    test_at_rest_a_counter_is_read_less_and_a_power_only_looked_at();
    test_a_value_that_moves_fast_is_read_up_to_twice_as_often();
    test_slow_reads_become_fewer_and_cheap_ones_do_not_pay_for_them();
    test_slow_reads_cost_less_at_rest_as_well();
    puts("deadlines: ok");
    return 0;
}
