/* sensor.h - what the card shows of its true power: lag, window, sample-and-hold, gain; and its energy counter.
 *
 * true P(t) -> first-order rise (tau) -> mean over the last W -> held for T, with jitter -> gain and offset.
 * The counter moves on a grid of its own. Its integrator is full: the true energy up to the tick, whatever the power
 * reading misses. Or it is part-time: the integral of the held reading, blind to what happens between two windows. */
#ifndef LLMPOWER_SIM_SENSOR_H
#define LLMPOWER_SIM_SENSOR_H

#include <stdbool.h>
#include <stdint.h>

#include "load.h"
#include "preset.h"
#include "ticks.h"

enum {
    SENSOR_HISTORY = 4096, /* steps of one millisecond; more than the one-second mean needs */
    SENSOR_UPDATES = 1024, /* that a part-time counter can be asked about: 20 s on a V100 */
    SENSOR_BUFFER = 120    /* of these nvmlDeviceGetSamples tells */
};

struct sensor_options {
    uint64_t seed;
    double gain, offset_w;
    double skip_share; /* of the updates of the reading, and of the counter, that do not come */
    bool part_time;    /* the integrator */
};

struct sensor_update {
    int64_t time_ns;
    double instant_w, average_w; /* as shown, before rounding to mW */
    double held_j;               /* integral of the instant reading up to time_ns */
};

struct sensor {
    const struct preset *preset;
    struct load *load;
    struct sensor_options options;
    struct ticks power, counter;

    int64_t stepped_to_ns;           /* the lag has been followed up to here */
    double lagged_w;                 /* power after the first-order rise */
    double lagged_j[SENSOR_HISTORY]; /* its integral at the end of each recent step */
    uint64_t steps;

    struct sensor_update updates[SENSOR_UPDATES];
    uint64_t update_count;
    int64_t tick, tick_ns; /* the next update of the reading */

    int64_t since_ns; /* sensor_counter_mj was last asked to count from here ... */
    double since_j;   /* ... when the integrator had this much */
};

void sensor_init(struct sensor *sensor, const struct preset *preset, struct load *load,
                 const struct sensor_options *options, int64_t now_ns);

/* Bring the power readings up to time_ns (which load_known_until has returned). Time that has passed stays passed. */
void sensor_advance(struct sensor *sensor, int64_t time_ns);

/* The update that is showing, and the one this many before it. */
const struct sensor_update *sensor_showing(const struct sensor *sensor, uint64_t back);

/* How many updates nvmlDeviceGetSamples can return: back is below this. */
uint64_t sensor_buffered(const struct sensor *sensor);

/* The counter's value at time_ns: whole millijoules since since_ns, 0 being CLOCK_MONOTONIC's own. */
uint64_t sensor_counter_mj(struct sensor *sensor, int64_t time_ns, int64_t since_ns);

#endif
