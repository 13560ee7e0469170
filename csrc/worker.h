/* worker.h - one thread that reads one power source, and everything that it says about itself.
 *
 * Each source has a worker of its own: a driver call that hangs then stops its source and no other. */
#ifndef LLMPOWER_WORKER_H
#define LLMPOWER_WORKER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "budget.h"
#include "llmpower.h"
#include "phase.h"
#include "ring.h"
#include "source.h"
#include "statistics.h"

/* One (device, field) pair. */
struct channel {
    uint32_t source_device; /* where to read */
    uint32_t device, field; /* what it is to the caller */
    uint32_t kind;          /* enum llmpower_kind */
    int64_t requested_interval_ns;
    int64_t deadline_ns;
    int64_t fastest_ns; /* read so far */
    uint32_t failures;  /* in a row */
    uint32_t epoch;     /* that the latest good read belonged to */
    bool follows;       /* its updates are looked for */
    bool shown;         /* a power to look at, since a counter gives the energy */
    struct phase phase;
    /* Written by the thread, read by whoever asks for statistics: single values, no order between them matters. */
    _Atomic int64_t interval_ns, latency_ns;
    _Atomic uint64_t reads, errors;
    _Atomic int32_t status, locked;
    _Atomic int64_t period_ns, jitter_ns, edge_width_ns;
    _Atomic int64_t last_read_ns, in_call_since_ns;
};

struct worker {
    struct power_source source;
    struct channel channels[LLMPOWER_MAX_CHANNELS];
    uint32_t channel_count;
    struct budget budget;         /* of time inside reads */
    _Atomic bool resting, replan; /* fewer reads will do; the plan of reads is to be rebuilt at once */
    int64_t fastest_sum_ns;       /* of all channels: what one round of reads costs at least */
    int64_t clock_offset_ns;      /* CLOCK_BOOTTIME less CLOCK_MONOTONIC; INT64_MIN before the first look */
    uint32_t suspends;
    struct ring ring;

    pthread_t thread;
    bool running;
    pthread_mutex_t mutex; /* for waiting on wake */
    pthread_cond_t wake;
    _Atomic bool stop;
    _Atomic clockid_t cpu_clock; /* of the thread while it runs */

    struct statistics statistics;
};

/* Single values that the thread writes and others read: no order between them matters. */
static inline int64_t worker_get(const _Atomic int64_t *value) {
    return atomic_load_explicit(value, memory_order_relaxed);
}
static inline void worker_set(_Atomic int64_t *value, int64_t to) {
    atomic_store_explicit(value, to, memory_order_relaxed);
}

/* Ready to be given channels; source is the worker's from here on. False when memory is short. */
bool worker_init(struct worker *worker, const struct power_source *source, uint32_t ring_capacity,
                 double max_read_share);

/* Free what init took, close the source. The thread must have ended; in a forked child it never existed. */
void worker_free(struct worker *worker, bool forked);

/* Poll one more field; device is its index for the caller. */
void worker_add(struct worker *worker, uint32_t source_device, uint32_t device, uint32_t field, int64_t interval_ns);

/* Start the thread if there is anything to read. 0 or an enum llmpower_failure. */
int worker_start(struct worker *worker);

/* Stopping takes two steps, so that several can end at the same time. False when the thread has not ended by limit
 * (CLOCK_REALTIME): then it was left behind and nothing that it uses may be freed. */
void worker_tell_to_stop(struct worker *worker);
bool worker_join(struct worker *worker, const struct timespec *limit);

/* Whether fewer reads will do for now. When they no longer do, everything is read at once and the plan rebuilt. */
void worker_rest(struct worker *worker, bool resting);

/* Take note of CLOCK_BOOTTIME less CLOCK_MONOTONIC. When the machine has slept since the last note, counters may have
 * gone on or started over: every channel enters a new epoch. */
void worker_note_clocks(struct worker *worker, int64_t offset_ns);

/* One read of one channel now, as the thread makes it. */
void worker_read(struct worker *worker, struct channel *channel);

/* Add how this worker has done to out; say how one of its channels does. Neither ever waits. */
void worker_add_statistics(const struct worker *worker, struct llmpower_statistics *out);
void worker_describe_channel(const struct worker *worker, const struct channel *channel, struct llmpower_channel *out);

#endif
