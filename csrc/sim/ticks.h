/* ticks.h - when a card updates something: a grid with a phase of its own and jitter, now and then a tick left out.
 *
 * Tick k comes at k T + phase(seed) + jitter(seed, k), whoever asks and however often. */
#ifndef LLMPOWER_SIM_TICKS_H
#define LLMPOWER_SIM_TICKS_H

#include <stdbool.h>
#include <stdint.h>

struct ticks {
    uint64_t seed;
    double period_s;
    double jitter_s;   /* standard deviation; less than a twelfth of the period, so that ticks keep their order */
    double skip_share; /* of the ticks that do not come, below 1 */
};

int64_t ticks_moment_ns(const struct ticks *ticks, int64_t number);

/* The number of the latest tick that came at or before time_ns, and of the first that comes after tick number. */
int64_t ticks_latest(const struct ticks *ticks, int64_t time_ns);
int64_t ticks_after(const struct ticks *ticks, int64_t number);

#endif
