/* statistics.h - how a worker has done: counted by its thread, added up by whoever asks, without a lock. */
#ifndef LLMPOWER_STATISTICS_H
#define LLMPOWER_STATISTICS_H

#include <stdatomic.h>
#include <stdint.h>

#include "llmpower.h"

enum { STATISTICS_ERROR_SLOTS = LLMPOWER_ERROR_SLOTS / 2 }; /* two sources share what the caller has room for */

struct error_slot {
    _Atomic uint32_t kind;
    _Atomic int32_t status;
    _Atomic uint64_t count;
};

struct statistics {
    _Atomic uint64_t samples, ticks, missed_ticks;
    _Atomic int64_t read_ns, lateness_sum_ns;
    _Atomic int64_t ended_cpu_ns; /* CPU time of earlier threads, for one that has been stopped */
    _Atomic uint64_t lateness[LLMPOWER_LATENESS_BUCKETS];
    _Atomic uint32_t error_count;
    struct error_slot errors[STATISTICS_ERROR_SLOTS];
};

/* One wake-up, so late. Counting is for the one thread. */
void statistics_count_tick(struct statistics *statistics, int64_t late_ns);

/* One failed read. Codes beyond the slots are added to the last one. */
void statistics_count_error(struct statistics *statistics, uint32_t kind, int32_t status);

void statistics_add(const struct statistics *statistics, struct llmpower_statistics *out);

#endif
