/* sensor.h - what the card shows of its true power: lag, window, sample-and-hold, gain; and its energy counter.
 *
 * true P(t) -> first-order rise (tau) -> mean over the last W -> held for T, with jitter -> gain and offset.
 * The counter moves on a grid of its own and integrates fully, whatever the power reading misses. */
#ifndef LLMPOWER_SIM_SENSOR_H
#define LLMPOWER_SIM_SENSOR_H

#include <stdint.h>

#include "load.h"
#include "preset.h"

enum { SENSOR_HISTORY = 4096 }; /* steps of one millisecond; more than the one-second mean needs */

struct sensor {
    const struct preset *preset;
    struct load *load;
    uint64_t seed;
    double gain, offset_w;

    int64_t stepped_to_ns;           /* the lag has been followed up to here */
    double lagged_w;                 /* power after the first-order rise */
    double lagged_j[SENSOR_HISTORY]; /* its integral at the end of each recent step */
    uint64_t steps;
    int64_t update; /* number of the power update that is showing */
    int64_t next_update_ns;
    double instant_w, average_w; /* as shown, before rounding to mW */
};

void sensor_init(struct sensor *sensor, const struct preset *preset, struct load *load, uint64_t seed, double gain,
                 double offset_w, int64_t now_ns);

/* Bring the power readings up to time_ns (which load_known_until has returned). */
void sensor_advance(struct sensor *sensor, int64_t time_ns);

/* The counter's value at time_ns: millijoules, whole, since CLOCK_MONOTONIC was zero. */
uint64_t sensor_counter_mj(const struct sensor *sensor, int64_t time_ns);

#endif
