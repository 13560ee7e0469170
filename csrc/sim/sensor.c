/* sensor.c - see sensor.h. */
#include "sensor.h"

#include <math.h>

static const int64_t STEP_NS = 1000000;
static const int64_t AVERAGE_NS = 1000000000;
/* Readings begin this long before they are first asked for, so that the buffer of updates is full on every card. */
static const int64_t LOOKBACK_NS = 14000000000;
static const uint64_t COUNTER_SEED = 0xC0FFEE;

static int64_t to_ns(double seconds) { return (int64_t)llround(seconds * 1e9); }

/* --- The reading ------------------------------------------------------------------------------------------------ */

/* Integral of the lagged power up to time_ns, which lies within the kept history. */
static double lagged_energy_j(const struct sensor *sensor, int64_t time_ns) {
    double back = (double)(sensor->stepped_to_ns - time_ns) / (double)STEP_NS;
    uint64_t oldest = sensor->steps > SENSOR_HISTORY ? sensor->steps - SENSOR_HISTORY : 0;
    double at = (double)(sensor->steps - 1) - back; /* in steps, fractional */
    if (at <= (double)oldest) at = (double)oldest;
    uint64_t whole = (uint64_t)at;
    double low = sensor->lagged_j[whole % SENSOR_HISTORY];
    if (whole + 1 >= sensor->steps) return low;
    return low + (at - (double)whole) * (sensor->lagged_j[(whole + 1) % SENSOR_HISTORY] - low);
}

static double window_mean_w(const struct sensor *sensor, int64_t end_ns, int64_t window_ns) {
    return (lagged_energy_j(sensor, end_ns) - lagged_energy_j(sensor, end_ns - window_ns)) / ((double)window_ns * 1e-9);
}

static double shown_w(const struct sensor *sensor, double power_w) {
    double value = sensor->options.gain * power_w + sensor->options.offset_w;
    return value > 0 ? value : 0;
}

const struct sensor_update *sensor_showing(const struct sensor *sensor, uint64_t back) {
    return &sensor->updates[(sensor->update_count - 1 - back) % SENSOR_UPDATES];
}

uint64_t sensor_buffered(const struct sensor *sensor) {
    return sensor->update_count < SENSOR_BUFFER ? sensor->update_count : SENSOR_BUFFER;
}

/* The integral of the held reading at time_ns, which an update at or before it has shown. */
static double held_energy_j(const struct sensor *sensor, int64_t time_ns) {
    uint64_t last = sensor->update_count < SENSOR_UPDATES ? sensor->update_count : SENSOR_UPDATES;
    uint64_t back = 0;
    while (back + 1 < last && sensor_showing(sensor, back)->time_ns > time_ns) back++;
    const struct sensor_update *update = sensor_showing(sensor, back);
    return update->held_j + update->instant_w * (double)(time_ns - update->time_ns) * 1e-9;
}

/* What the counter would have from CLOCK_MONOTONIC zero to time_ns with a full integrator. */
static double full_energy_j(const struct sensor *sensor, int64_t time_ns) {
    double energy_j;
    int64_t known_ns = load_known_since(sensor->load); /* before it, what was showing then */
    if (time_ns < known_ns) time_ns = known_ns;
    if (!load_energy_j(sensor->load, time_ns, &energy_j)) return 0;
    return sensor->options.gain * energy_j + sensor->options.offset_w * (double)time_ns * 1e-9;
}

/* Show new values from the tick that is due, and find the next one. */
static void show(struct sensor *sensor, double instant_w, double average_w) {
    double held_j =
        sensor->update_count ? held_energy_j(sensor, sensor->tick_ns) : full_energy_j(sensor, sensor->tick_ns);
    sensor->updates[sensor->update_count++ % SENSOR_UPDATES] =
        (struct sensor_update){sensor->tick_ns, shown_w(sensor, instant_w), shown_w(sensor, average_w), held_j};
    sensor->tick = ticks_after(&sensor->power, sensor->tick);
    sensor->tick_ns = ticks_moment_ns(&sensor->power, sensor->tick);
}

/* Follow a constant power for one step: the lag's differential equation and its integral are solved exactly. */
static void step(struct sensor *sensor, double power_w) {
    const double step_s = (double)STEP_NS * 1e-9, rise_s = sensor->preset->rise_s;
    const double followed = -expm1(-step_s / rise_s);
    double before_j = sensor->steps ? sensor->lagged_j[(sensor->steps - 1) % SENSOR_HISTORY] : 0;
    double behind_w = sensor->lagged_w - power_w;
    sensor->lagged_j[sensor->steps++ % SENSOR_HISTORY] = before_j + power_w * step_s + behind_w * rise_s * followed;
    sensor->lagged_w -= behind_w * followed;
    sensor->stepped_to_ns += STEP_NS;
}

/* Start over at from_ns as if the power had long been what it is there. Steps lie on whole milliseconds, where two
 * processes agree on them. */
static void settle(struct sensor *sensor, int64_t from_ns) {
    int64_t start_ns = (from_ns + STEP_NS - 1) / STEP_NS * STEP_NS;
    double before_j, after_j, power_w = sensor->preset->idle_w;
    if (load_energy_j(sensor->load, start_ns, &before_j) && load_energy_j(sensor->load, start_ns + STEP_NS, &after_j))
        power_w = (after_j - before_j) / ((double)STEP_NS * 1e-9);
    sensor->lagged_w = power_w;
    sensor->steps = 0;
    sensor->stepped_to_ns = start_ns - 2 * AVERAGE_NS;
    while (sensor->stepped_to_ns < start_ns) step(sensor, power_w);
    sensor->tick = ticks_latest(&sensor->power, start_ns);
    sensor->tick_ns = ticks_moment_ns(&sensor->power, sensor->tick);
    show(sensor, power_w, power_w);
}

void sensor_init(struct sensor *sensor, const struct preset *preset, struct load *load,
                 const struct sensor_options *options, int64_t now_ns) {
    *sensor = (struct sensor){.preset = preset, .load = load, .options = *options};
    sensor->power =
        (struct ticks){options->seed, preset->update_period_s, preset->update_jitter_s, options->skip_share};
    sensor->counter = (struct ticks){options->seed ^ COUNTER_SEED, preset->counter_period_s, preset->counter_jitter_s,
                                     options->skip_share};
    int64_t start_ns = now_ns - LOOKBACK_NS, since_ns = load_known_since(load);
    settle(sensor, start_ns > since_ns ? start_ns : since_ns);
    sensor_advance(sensor, now_ns);
}

void sensor_advance(struct sensor *sensor, int64_t time_ns) {
    int64_t since_ns = load_known_since(sensor->load);
    /* What lies further back than the buffer no longer shows, except in a part-time counter. */
    bool unseen = !sensor->options.part_time && time_ns - sensor->stepped_to_ns > LOOKBACK_NS + AVERAGE_NS;
    if (unseen || sensor->stepped_to_ns < since_ns) {
        int64_t start_ns = time_ns - LOOKBACK_NS;
        settle(sensor, start_ns > since_ns ? start_ns : since_ns);
    }
    double before_j, after_j;
    if (!load_energy_j(sensor->load, sensor->stepped_to_ns, &before_j)) return;
    while (sensor->stepped_to_ns + STEP_NS <= time_ns) {
        if (!load_energy_j(sensor->load, sensor->stepped_to_ns + STEP_NS, &after_j)) return;
        step(sensor, (after_j - before_j) / ((double)STEP_NS * 1e-9));
        before_j = after_j;
        while (sensor->tick_ns <= sensor->stepped_to_ns)
            show(sensor, window_mean_w(sensor, sensor->tick_ns, to_ns(sensor->preset->window_s)),
                 window_mean_w(sensor, sensor->tick_ns, AVERAGE_NS));
    }
}

/* --- The counter ------------------------------------------------------------------------------------------------ */

static double counted_j(const struct sensor *sensor, int64_t time_ns) {
    return sensor->options.part_time ? held_energy_j(sensor, time_ns) : full_energy_j(sensor, time_ns);
}

uint64_t sensor_counter_mj(struct sensor *sensor, int64_t time_ns, int64_t since_ns) {
    if (since_ns > time_ns) return 0;
    if (sensor->options.part_time) {
        sensor_advance(sensor, time_ns);
        /* A reading that is due within the unfinished step would change what has been counted already. */
        if (time_ns > sensor->stepped_to_ns) time_ns = sensor->stepped_to_ns;
    }
    if (since_ns != sensor->since_ns) {
        sensor->since_ns = since_ns;
        sensor->since_j = since_ns ? counted_j(sensor, since_ns) : 0;
    }
    int64_t tick_ns = ticks_moment_ns(&sensor->counter, ticks_latest(&sensor->counter, time_ns));
    double shown_j = tick_ns > since_ns ? counted_j(sensor, tick_ns) - sensor->since_j : 0;
    return shown_j > 0 ? (uint64_t)floor(shown_j * 1e3) : 0;
}
