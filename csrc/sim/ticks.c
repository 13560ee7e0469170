/* ticks.c - see ticks.h. */
#include "ticks.h"

#include <math.h>

#include "chance.h"

static const uint64_t PHASE = 0x0FA5E, SKIP = 0x5C1B; /* seeds apart from that of the jitter */

int64_t ticks_moment_ns(const struct ticks *ticks, int64_t number) {
    double phase_s = ticks->period_s * chance_uniform(ticks->seed ^ PHASE, 0);
    double jitter_s = ticks->jitter_s * chance_deviate(ticks->seed, (uint64_t)number);
    return (int64_t)llround(((double)number * ticks->period_s + phase_s + jitter_s) * 1e9);
}

static bool is_skipped(const struct ticks *ticks, int64_t number) {
    return ticks->skip_share > 0 && chance_uniform(ticks->seed ^ SKIP, (uint64_t)number) < ticks->skip_share;
}

int64_t ticks_latest(const struct ticks *ticks, int64_t time_ns) {
    int64_t number = (int64_t)floor((double)time_ns * 1e-9 / ticks->period_s) + 1;
    while (is_skipped(ticks, number) || ticks_moment_ns(ticks, number) > time_ns) number--;
    return number;
}

int64_t ticks_after(const struct ticks *ticks, int64_t number) {
    do number++;
    while (is_skipped(ticks, number));
    return number;
}
