/* test_sensor.c - the simulated sensor and counter against their specification in closed form; no clock is asked. */
#include <math.h>

#include "../sim/load.h"
#include "../sim/preset.h"
#include "../sim/sensor.h"
#include "check.h"

static const int64_t SECOND = 1000000000, MS = 1000000;
static const char *const keys[] = {"v100", "a100", "rtx4090", "h100", "h100-sxm", "h200", "b200"};
enum { KEYS = sizeof keys / sizeof *keys };

static struct sensor sensor; /* too large for the stack of some systems */

static struct load *open_or_die(const char *text) {
    char error[256];
    struct load *load = load_open(text, 0, 0, 0, error, sizeof error);
    CHECK(load);
    return load;
}

/* Lag tau and window W, long after the edge before: the mean over [u - W, u] of P1 - (P1 - P0) e^(-t / tau), u seconds
 * behind a step from P0 to P1. */
static double step_response_w(double before_w, double after_w, double u, double window_s, double rise_s) {
    double from = u > window_s ? u - window_s : 0;
    double lagged_j = after_w * (u - from) - (after_w - before_w) * rise_s * (exp(-from / rise_s) - exp(-u / rise_s));
    return (lagged_j + before_w * (window_s - (u - from))) / window_s;
}

/* Every update over two minutes of steps, each a little more than ten seconds after the one before, so that updates
 * come anywhere after a step: some fall into the rise. */
static void test_step_response(const struct preset *preset) {
    const double apart_s = 10.035;
    struct load *load = open_or_die("square:100,300,20.07");
    struct sensor_options options = {.seed = 7, .gain = 1.05, .offset_w = 3};
    sensor_init(&sensor, preset, load, &options, 9 * SECOND);
    int rising = 0, rising_average = 0;
    uint64_t seen = sensor.update_count;
    for (int64_t t = 9 * SECOND; t < 130 * SECOND; t += MS) {
        sensor_advance(&sensor, t);
        const struct sensor_update *update = sensor_showing(&sensor, 0);
        CHECK(update->time_ns <= t); /* held, and for no longer than the period and its jitter */
        CHECK((double)(t - update->time_ns) * 1e-9 < preset->update_period_s + 12 * preset->update_jitter_s + 2e-3);
        if (sensor.update_count == seen) continue;
        seen = sensor.update_count;
        double time_s = (double)update->time_ns * 1e-9, u = fmod(time_s, apart_s);
        double after_w = fmod(time_s, 2 * apart_s) < apart_s ? 300 : 100, before_w = 400 - after_w;
        double instant_w = step_response_w(before_w, after_w, u, preset->window_s, preset->rise_s);
        double average_w = step_response_w(before_w, after_w, u, 1, preset->rise_s);
        /* Between milliseconds the lag is taken as a line, which is worth a tenth of a watt. */
        CHECK(fabs(update->instant_w - (1.05 * instant_w + 3)) < 0.1);
        CHECK(fabs(update->average_w - (1.05 * average_w + 3)) < 0.01);
        rising += fabs(instant_w - after_w) > 2;
        rising_average += fabs(average_w - after_w) > 2;
    }
    CHECK(rising >= 4 && rising_average >= 100);
    load_close(load);
}

static void test_ticks(double period_s, double jitter_s, double skip_share) {
    enum { TICKS = 20000 };
    struct ticks ticks = {.seed = 3, .period_s = period_s, .jitter_s = jitter_s, .skip_share = skip_share};
    double sum = 0, squares = 0;
    int singles = 0, doubles = 0, count = 0;
    int64_t number = ticks_latest(&ticks, 5000 * SECOND), before_ns = ticks_moment_ns(&ticks, number);
    CHECK(before_ns <= 5000 * SECOND && ticks_moment_ns(&ticks, ticks_after(&ticks, number)) > 5000 * SECOND);
    for (; count < TICKS; count++) {
        int64_t next = ticks_after(&ticks, number), next_ns = ticks_moment_ns(&ticks, next);
        CHECK(next_ns > before_ns);
        CHECK(ticks_latest(&ticks, next_ns) == next && ticks_latest(&ticks, next_ns - 1) == number);
        double gap_s = (double)(next_ns - before_ns) * 1e-9;
        if (next == number + 1) {
            singles++;
            sum += gap_s;
            squares += (gap_s - period_s) * (gap_s - period_s);
        }
        doubles += next == number + 2;
        number = next;
        before_ns = next_ns;
    }
    CHECK(fabs(sum / singles - period_s) < 0.1 * jitter_s);
    CHECK(fabs(sqrt(squares / singles) / (sqrt(2) * jitter_s) - 1) < 0.05); /* two ends of one gap */
    CHECK(fabs((double)singles / count - (1 - skip_share)) < 0.02);
    CHECK(fabs((double)doubles / count - skip_share * (1 - skip_share)) < 0.02);
}

/* The counter is the floor of the true millijoules at its own latest tick, whoever asks and when. */
static void test_full_counter(const struct preset *preset) {
    struct load *load = open_or_die("square:100,500,0.37");
    struct sensor_options options = {.seed = 7, .gain = 0.95, .offset_w = 2};
    sensor_init(&sensor, preset, load, &options, 20 * SECOND);
    double least_s = 10, most_s = 0;
    int64_t changed_ns = 0;
    uint64_t shown_mj = 0;
    int changes = 0;
    for (int64_t t = 20 * SECOND; t < 40 * SECOND; t += MS / 4) {
        uint64_t counter_mj = sensor_counter_mj(&sensor, t, 0);
        CHECK(counter_mj >= shown_mj);
        if (counter_mj == shown_mj) continue;
        int64_t tick_ns = ticks_moment_ns(&sensor.counter, ticks_latest(&sensor.counter, t));
        double true_j;
        CHECK(load_energy_j(load, tick_ns, &true_j));
        CHECK(counter_mj == (uint64_t)floor((0.95 * true_j + 2 * (double)tick_ns * 1e-9) * 1e3));
        if (changes++ > 1) {
            least_s = fmin(least_s, (double)(t - changed_ns) * 1e-9);
            most_s = fmax(most_s, (double)(t - changed_ns) * 1e-9);
        }
        changed_ns = t;
        shown_mj = counter_mj;
    }
    CHECK(fabs(changes * preset->counter_period_s - 20) < 3 * preset->counter_period_s);
    CHECK(least_s > preset->counter_period_s - 9 * preset->counter_jitter_s - 5e-4);
    CHECK(most_s < preset->counter_period_s + 9 * preset->counter_jitter_s + 5e-4 && most_s > least_s);
    load_close(load);
}

/* Joules from start to end as a counter shows them, and as they are. */
static double counted_j(const char *text, const struct preset *preset, bool part_time, double *true_j) {
    struct load *load = open_or_die(text);
    struct sensor_options options = {.seed = 7, .gain = 1, .part_time = part_time};
    sensor_init(&sensor, preset, load, &options, 20 * SECOND);
    double start_j, end_j;
    uint64_t start_mj = sensor_counter_mj(&sensor, 20 * SECOND, 0);
    uint64_t last_mj = start_mj, end_mj = start_mj;
    for (int64_t t = 20 * SECOND; t <= 80 * SECOND; t += MS) {
        end_mj = sensor_counter_mj(&sensor, t, 0);
        CHECK(end_mj >= last_mj);
        last_mj = end_mj;
    }
    CHECK(load_energy_j(load, 20 * SECOND, &start_j) && load_energy_j(load, 80 * SECOND, &end_j));
    *true_j = end_j - start_j;
    load_close(load);
    return (double)(end_mj - start_mj) * 1e-3;
}

static void test_integrators(void) {
    const struct preset *a100 = preset_find("a100");
    double true_j, tick_j = 500 * 0.11;
    /* What does not move within a window, both see. */
    CHECK(fabs(counted_j("constant:300", a100, true, &true_j) - true_j) < tick_j);
    CHECK(fabs(counted_j("square:100,500,20", a100, true, &true_j) - true_j) < 2 * tick_j);
    CHECK(fabs(counted_j("square:100,500,0.101", a100, false, &true_j) - true_j) < tick_j);
    /* In step with the sensor's period, all windows fall into one phase, and the rest of the wave is never seen. */
    double missed_j = counted_j("square:100,500,0.101,0.2", a100, true, &true_j) - true_j;
    CHECK(fabs(missed_j) > 0.05 * true_j);
    /* A window as long as the period sees everything. */
    CHECK(fabs(counted_j("square:100,500,0.1,0.2", preset_find("rtx4090"), true, &true_j) - true_j) < 0.01 * true_j);
}

/* A part-time counter is the integral of the readings that were held, to the millijoule, with updates left out too. */
static void test_part_time_is_the_held_reading(uint64_t seed, double skip_share) {
    const struct preset *a100 = preset_find("a100"); /* its two periods differ: ticks of both kinds come close */
    struct load *load = open_or_die("square:100,500,0.73");
    struct sensor_options options = {.seed = seed, .gain = 1, .part_time = true, .skip_share = skip_share};
    sensor_init(&sensor, a100, load, &options, 20 * SECOND);
    int64_t from_ns = 25 * SECOND, integrated_to_ns = from_ns;
    double held_j = 0;
    uint64_t previous_mj = 0;
    for (int64_t t = 20 * SECOND; t <= 60 * SECOND; t += 3 * MS / 10) {
        uint64_t counter_mj = sensor_counter_mj(&sensor, t, t < from_ns ? 0 : from_ns);
        if (t < from_ns) continue;
        const struct sensor_update *now = sensor_showing(&sensor, 0), *before = sensor_showing(&sensor, 1);
        int64_t tick_ns = ticks_moment_ns(&sensor.counter, ticks_latest(&sensor.counter, t));
        if (counter_mj != previous_mj) {
            CHECK(tick_ns > integrated_to_ns); /* between two ticks it stands still */
            /* At most the readings of two ticks' time are still in the buffer; walk through them. */
            for (uint64_t back = 64; back-- > 0;) {
                const struct sensor_update *one = sensor_showing(&sensor, back);
                int64_t end_ns = back ? sensor_showing(&sensor, back - 1)->time_ns : tick_ns;
                if (end_ns > tick_ns) end_ns = tick_ns;
                int64_t start_ns = one->time_ns > integrated_to_ns ? one->time_ns : integrated_to_ns;
                if (end_ns > start_ns) held_j += one->instant_w * (double)(end_ns - start_ns) * 1e-9;
            }
            integrated_to_ns = tick_ns;
            CHECK(fabs((double)counter_mj - held_j * 1e3) < 2);
            previous_mj = counter_mj;
        }
        CHECK(now->time_ns > before->time_ns);
    }
    CHECK(held_j > 35 * 250 && held_j < 35 * 350);
    load_close(load);
}

/* Counting from 0 again, as a reset asks for; and a view that stands still and then goes on, as a freeze does. */
static void test_reset_and_freeze(void) {
    const struct preset *v100 = preset_find("v100");
    struct load *load = open_or_die("constant:200");
    for (int part_time = 0; part_time < 2; part_time++) {
        struct sensor_options options = {.seed = 2, .gain = 1, .part_time = part_time};
        sensor_init(&sensor, v100, load, &options, 20 * SECOND);
        CHECK(sensor_counter_mj(&sensor, 30 * SECOND, 0) > 5900000);
        CHECK(sensor_counter_mj(&sensor, 30 * SECOND, 30 * SECOND) == 0);
        CHECK(sensor_counter_mj(&sensor, 30 * SECOND, 31 * SECOND) == 0);
        uint64_t second_mj = sensor_counter_mj(&sensor, 31 * SECOND, 30 * SECOND);
        CHECK(second_mj > 195000 && second_mj <= 200000);

        uint64_t frozen_mj = sensor_counter_mj(&sensor, 32 * SECOND, 30 * SECOND);
        sensor_advance(&sensor, 32 * SECOND);
        uint64_t updates = sensor.update_count;
        sensor_advance(&sensor, 32 * SECOND);
        CHECK(sensor.update_count == updates);
        CHECK(sensor_counter_mj(&sensor, 32 * SECOND, 30 * SECOND) == frozen_mj);
        uint64_t caught_up_mj = sensor_counter_mj(&sensor, 33 * SECOND, 30 * SECOND);
        CHECK(caught_up_mj - frozen_mj > 195000 && caught_up_mj - frozen_mj < 205000);
    }
    load_close(load);
}

/* Nobody has asked for a minute: the readings are those of somebody who always did, and the buffer is full. */
static void test_long_silence(void) {
    static struct sensor attentive;
    const struct preset *h100 = preset_find("h100");
    struct load *load = open_or_die("square:100,500,0.73");
    for (int part_time = 0; part_time < 2; part_time++) {
        struct sensor_options options = {.seed = 5, .gain = 1, .part_time = part_time};
        sensor_init(&sensor, h100, load, &options, 20 * SECOND);
        sensor_init(&attentive, h100, load, &options, 20 * SECOND);
        for (int64_t t = 20 * SECOND; t <= 80 * SECOND; t += MS) sensor_advance(&attentive, t);
        sensor_advance(&sensor, 80 * SECOND);
        CHECK(sensor_buffered(&sensor) == SENSOR_BUFFER);
        for (uint64_t back = 0; back < SENSOR_BUFFER; back++) {
            const struct sensor_update *one = sensor_showing(&sensor, back), *other = sensor_showing(&attentive, back);
            CHECK(one->time_ns == other->time_ns && fabs(one->instant_w - other->instant_w) < 1e-3);
        }
        CHECK(sensor_counter_mj(&sensor, 80 * SECOND, 0) == sensor_counter_mj(&attentive, 80 * SECOND, 0));
    }
    load_close(load);
}

/* Cards of one machine have phases of their own, and a seed is one card for ever. */
static void test_seeds(void) {
    struct ticks one = {.seed = 8, .period_s = 0.1, .jitter_s = 0.001}, same = one, other = one;
    other.seed = 9;
    CHECK(ticks_moment_ns(&one, 1000) == ticks_moment_ns(&same, 1000));
    CHECK(llabs(ticks_moment_ns(&one, 1000) - ticks_moment_ns(&other, 1000)) > 10 * MS);
}

int main(void) {
    for (int i = 0; i < KEYS; i++) {
        const struct preset *preset = preset_find(keys[i]);
        CHECK(preset);
        test_step_response(preset);
        test_full_counter(preset);
        test_ticks(preset->update_period_s, preset->update_jitter_s, 0);
        test_ticks(preset->counter_period_s, preset->counter_jitter_s, 0.3);
    }
    test_integrators();
    for (uint64_t seed = 0; seed < 8; seed++) test_part_time_is_the_held_reading(seed, seed % 2 ? 0.3 : 0);
    test_reset_and_freeze();
    test_long_silence();
    test_seeds();
    puts("sensor: ok");
    return 0;
}
