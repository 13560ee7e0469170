/* worker.c - the sampling thread of one source: absolute deadlines, one channel after the other.
 *
 * The thread sleeps until the earliest deadline (deadlines.h says when each channel is read), reads, pushes what it got
 * with the times before and after the call. It holds no lock while reading and never touches Python. */
#include "worker.h"

#include "deadlines.h"
#include "punctual.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

enum { NO_CLOCK = CLOCK_REALTIME }; /* zero, and never that of a thread */

static const int64_t SECOND_NS = 1000000000;
static const int64_t SUSPENDED_NS = 500000000;   /* clocks that part by more have been parted by sleep */
static const int64_t HANGING_NS = 10000000;      /* the slowest calls of a sound driver take 7 ms */
static const int64_t CLOCKS_READ_NS = 100000000; /* two clocks read further apart than this say nothing */

int64_t llmpower_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

/* --- One read --------------------------------------------------------------------------------------------------- */

/* What a read takes, by which the next ones are planned. One that hung says nothing of them, or hardly any would be
 * made for hours; its cost is the budget's to pay back. Where one after the other takes long, that counts soon. */
static int64_t smoothed_ns(const struct channel *channel, int64_t took_ns) {
    int64_t before_ns = worker_get(&channel->latency_ns);
    int64_t most_ns = 4 * before_ns > HANGING_NS ? 4 * before_ns : HANGING_NS;
    if (took_ns > most_ns) took_ns = most_ns;
    return channel->reads ? before_ns + (took_ns - before_ns) / 16 : took_ns;
}

static void note_latency(struct worker *worker, struct channel *channel, int64_t took_ns) {
    worker_set(&channel->latency_ns, smoothed_ns(channel, took_ns));
    if (!channel->reads || took_ns < channel->fastest_ns) {
        worker->fastest_sum_ns += took_ns - channel->fastest_ns;
        channel->fastest_ns = took_ns;
    }
    atomic_fetch_add_explicit(&channel->reads, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&worker->statistics.read_ns, took_ns, memory_order_relaxed);
}

/* Push a good read, and before it a mark when it cannot be compared with the one before. A mark that found no room is
 * tried again with the next read; what comes before it is dropped as well, or it would pass for comparable. */
static bool push_good(struct worker *worker, struct channel *channel, const struct llmpower_sample *sample) {
    uint32_t epoch = worker->source.epochs[channel->source_device] + worker->suspends;
    if (epoch != channel->epoch) {
        struct llmpower_sample mark = *sample;
        mark.after_ns = mark.before_ns;
        mark.value = 0;
        mark.status = LLMPOWER_EPOCH;
        if (!ring_push(&worker->ring, &mark)) return false;
        channel->epoch = epoch;
        phase_restart(&channel->phase);
    }
    if (channel->follows) phase_take(&channel->phase, sample->before_ns, sample->after_ns, sample->value);
    return ring_push(&worker->ring, sample);
}

void worker_read(struct worker *worker, struct channel *channel) {
    struct power_source *source = &worker->source;
    struct llmpower_sample sample = {.device = (uint16_t)channel->device, .field = (uint8_t)channel->field};

    sample.before_ns = llmpower_monotonic_ns();
    worker_set(&channel->in_call_since_ns, sample.before_ns);
    sample.status = source->read(source->state, channel->source_device, channel->field, &sample.value);
    sample.after_ns = llmpower_monotonic_ns();
    worker_set(&channel->in_call_since_ns, 0);
    worker_set(&channel->last_read_ns, sample.after_ns);

    note_latency(worker, channel, sample.after_ns - sample.before_ns);
    atomic_store_explicit(&channel->status, sample.status, memory_order_relaxed);
    bool kept;
    if (sample.status) {
        channel->failures++;
        atomic_fetch_add_explicit(&channel->errors, 1, memory_order_relaxed);
        /* Counted as well as kept, so that a full ring hides none. */
        statistics_count_error(&worker->statistics, channel->kind, sample.status);
        kept = ring_push(&worker->ring, &sample);
    } else {
        channel->failures = 0;
        kept = push_good(worker, channel, &sample);
    }
    if (kept) atomic_fetch_add_explicit(&worker->statistics.samples, 1, memory_order_relaxed);
}

void worker_note_clocks(struct worker *worker, int64_t offset_ns) {
    if (worker->clock_offset_ns != INT64_MIN && offset_ns - worker->clock_offset_ns > SUSPENDED_NS) worker->suspends++;
    worker->clock_offset_ns = offset_ns;
}

/* --- The thread ------------------------------------------------------------------------------------------------- */

/* Sleep until deadline_ns, or until the plan is to be rebuilt. False when the worker is to stop, which ends the sleep
 * at once. */
static bool sleep_until(struct worker *worker, int64_t deadline_ns) {
    /* A thread that is late takes no lock: taking it again at once, time after time, it would keep out whoever wants
     * to stop it, and asking the kernel to wait for the past costs as much as a read. */
    if (atomic_load_explicit(&worker->stop, memory_order_relaxed)) return false;
    if (deadline_ns <= llmpower_monotonic_ns()) return true;
    struct timespec deadline = {.tv_sec = deadline_ns / SECOND_NS, .tv_nsec = deadline_ns % SECOND_NS};
    pthread_mutex_lock(&worker->mutex);
    int code = 0;
    while (!worker->stop && !worker->replan && code != ETIMEDOUT)
        code = pthread_cond_timedwait(&worker->wake, &worker->mutex, &deadline);
    bool go_on = !worker->stop;
    pthread_mutex_unlock(&worker->mutex);
    return go_on;
}

/* 0 where the clock cannot be read. */
static int64_t clock_ns(clockid_t clock) {
    struct timespec time;
    if (clock_gettime(clock, &time)) return 0;
    return time.tv_sec * SECOND_NS + time.tv_nsec;
}

static void look_at_clocks(struct worker *worker, int64_t before_ns) {
    int64_t boot_ns = clock_ns(CLOCK_BOOTTIME), after_ns = llmpower_monotonic_ns();
    if (after_ns - before_ns < CLOCKS_READ_NS) worker_note_clocks(worker, boot_ns - after_ns);
}

static void *run(void *argument) {
    struct worker *worker = argument;
    punctual();
    pthread_setname_np(pthread_self(), "llmpower-sample");
    clockid_t cpu_clock;
    if (!pthread_getcpuclockid(pthread_self(), &cpu_clock)) atomic_store(&worker->cpu_clock, cpu_clock);
    int64_t throttled_ns = llmpower_monotonic_ns();
    budget_pause(&worker->budget, throttled_ns); /* the time until now passed without a thread */
    for (;;) {
        struct channel *channel = deadlines_earliest(worker);
        if (!sleep_until(worker, channel->deadline_ns)) break;
        int64_t now_ns = llmpower_monotonic_ns();
        if (atomic_exchange_explicit(&worker->replan, false, memory_order_relaxed)) {
            deadlines_throttle(worker, now_ns);
            throttled_ns = now_ns;
            for (uint32_t i = 0; i < worker->channel_count; i++)
                if (worker->channels[i].deadline_ns > now_ns) worker->channels[i].deadline_ns = now_ns;
            continue;
        }
        statistics_count_tick(&worker->statistics, now_ns - channel->deadline_ns);
        look_at_clocks(worker, now_ns);
        worker_read(worker, channel);
        now_ns = llmpower_monotonic_ns();
        deadlines_advance(worker, channel, now_ns);
        if (now_ns - throttled_ns >= SECOND_NS) {
            deadlines_throttle(worker, now_ns);
            throttled_ns = now_ns;
        }
    }
    /* By itself, because nobody can ask for the time of a thread that has ended. */
    atomic_store(&worker->cpu_clock, NO_CLOCK);
    atomic_fetch_add(&worker->statistics.ended_cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID));
    return NULL;
}

/* --- From outside ----------------------------------------------------------------------------------------------- */

bool worker_init(struct worker *worker, const struct power_source *source, uint32_t ring_capacity,
                 double max_read_share) {
    if (!ring_init(&worker->ring, ring_capacity)) return false;
    worker->source = *source;
    budget_init(&worker->budget, max_read_share, 0);
    worker->clock_offset_ns = INT64_MIN;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* deadlines must not move when the clock is set */
    pthread_cond_init(&worker->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&worker->mutex, NULL);
    return true;
}

void worker_free(struct worker *worker, bool forked) {
    worker->source.close(worker->source.state, forked);
    if (!forked) {
        pthread_cond_destroy(&worker->wake);
        pthread_mutex_destroy(&worker->mutex);
    }
    ring_free(&worker->ring);
}

void worker_add(struct worker *worker, uint32_t source_device, uint32_t device, uint32_t field, int64_t interval_ns) {
    struct channel *channel = &worker->channels[worker->channel_count++];
    channel->source_device = source_device;
    channel->device = device;
    channel->field = field;
    channel->kind = (uint32_t)worker->source.devices[source_device].kind;
    channel->requested_interval_ns = interval_ns;
    channel->shown = field != LLMPOWER_ENERGY && worker->source.devices[source_device].fields & (1u << LLMPOWER_ENERGY);
    channel->follows = channel->kind == LLMPOWER_GPU; /* RAPL moves with every read */
    phase_init(&channel->phase);
    atomic_init(&channel->interval_ns, interval_ns);
}

int worker_start(struct worker *worker) {
    if (worker->running || !worker->channel_count) return 0;
    int64_t now_ns = llmpower_monotonic_ns();
    worker->stop = false;
    for (uint32_t i = 0; i < worker->channel_count; i++) worker->channels[i].deadline_ns = now_ns;

    /* Signals belong to the program, not to this thread: it inherits a mask that lets none through. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&worker->thread, NULL, run, worker);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) return LLMPOWER_THREAD;
    worker->running = true;
    return 0;
}

void worker_tell_to_stop(struct worker *worker) {
    if (!worker->running) return;
    atomic_store_explicit(&worker->stop, true, memory_order_relaxed); /* seen by a thread that never sleeps */
    pthread_mutex_lock(&worker->mutex);                               /* and not missed by one that is about to */
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->mutex);
}

void worker_rest(struct worker *worker, bool resting) {
    if (atomic_exchange_explicit(&worker->resting, resting, memory_order_relaxed) == resting) return;
    if (resting) return; /* seen when the plan is next looked at, within a second */
    pthread_mutex_lock(&worker->mutex);
    atomic_store_explicit(&worker->replan, true, memory_order_relaxed);
    pthread_cond_signal(&worker->wake);
    pthread_mutex_unlock(&worker->mutex);
}

bool worker_join(struct worker *worker, const struct timespec *limit) {
    if (!worker->running) return true;
    worker->running = false;
    if (pthread_timedjoin_np(worker->thread, NULL, limit)) {
        pthread_detach(worker->thread);
        return false;
    }
    return true;
}

void worker_add_statistics(const struct worker *worker, struct llmpower_statistics *out) {
    statistics_add(&worker->statistics, out);
    out->dropped += atomic_load_explicit(&worker->ring.dropped, memory_order_relaxed);
    clockid_t cpu_clock = atomic_load(&worker->cpu_clock);
    if (cpu_clock != NO_CLOCK) out->cpu_ns += clock_ns(cpu_clock);
}

void worker_describe_channel(const struct worker *worker, const struct channel *channel, struct llmpower_channel *out) {
    *out = (struct llmpower_channel){
        .device = channel->device,
        .field = channel->field,
        .requested_interval_ns = (int64_t)deadlines_asked_ns(worker, channel),
        .interval_ns = worker_get(&channel->interval_ns),
        .reads = atomic_load_explicit(&channel->reads, memory_order_relaxed),
        .errors = atomic_load_explicit(&channel->errors, memory_order_relaxed),
        .latency_ns = worker_get(&channel->latency_ns),
        .status = atomic_load_explicit(&channel->status, memory_order_relaxed),
        .locked = atomic_load_explicit(&channel->locked, memory_order_relaxed),
        .period_ns = worker_get(&channel->period_ns),
        .jitter_ns = worker_get(&channel->jitter_ns),
        .edge_width_ns = worker_get(&channel->edge_width_ns),
        .last_read_ns = worker_get(&channel->last_read_ns),
        .in_call_since_ns = worker_get(&channel->in_call_since_ns),
    };
}
