/* worker.c - the sampling thread of one source: absolute deadlines, one channel after the other.
 *
 * A channel whose updates come on a grid is read when the next one is due (phase.h), any other one on a fixed grid of
 * deadlines: a late read never shifts that grid. The thread sleeps until the earliest deadline, reads, pushes what it
 * got with the times before and after the call. It holds no lock while reading and never touches Python.
 *
 * Reads cost driver time that the workload needs too, so the share of wall time spent in them is bounded: when the
 * channels together would pass the bound, the dearest ones are read less often (see throttle). */
#include "worker.h"

#include "punctual.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>

static const int64_t SECOND_NS = 1000000000;
static const int64_t MAX_BACKOFF_NS = 1000000000; /* a device that keeps failing is asked once a second */
static const int64_t SLOWEST_SEARCH_NS = 5000000; /* finds periods from 10 ms on */
static const int64_t FASTEST_SEARCH_NS = 1000000;
static const int64_t SEARCH_COST = 10;           /* a search passes a tenth of its time inside reads at most */
static const double REST = 4;                    /* so much longer are intervals at rest */
static const double LOOK_NS = 250e6;             /* or so long, for what is only looked at */
static const int64_t SUSPENDED_NS = 500000000;   /* clocks that part by more have been parted by sleep */
static const int64_t CLOCKS_READ_NS = 100000000; /* two clocks read further apart than this say nothing */

int64_t llmpower_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

static int64_t get(const _Atomic int64_t *value) { return atomic_load_explicit(value, memory_order_relaxed); }
static void set(_Atomic int64_t *value, int64_t to) { atomic_store_explicit(value, to, memory_order_relaxed); }

/* --- One read --------------------------------------------------------------------------------------------------- */

static void note_latency(struct worker *worker, struct channel *channel, int64_t took_ns) {
    int64_t smoothed_ns = get(&channel->latency_ns);
    smoothed_ns = channel->reads ? smoothed_ns + (took_ns - smoothed_ns) / 16 : took_ns;
    set(&channel->latency_ns, smoothed_ns);
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
    set(&channel->in_call_since_ns, sample.before_ns);
    sample.status = source->read(source->state, channel->source_device, channel->field, &sample.value);
    sample.after_ns = llmpower_monotonic_ns();
    set(&channel->in_call_since_ns, 0);
    set(&channel->last_read_ns, sample.after_ns);

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

static struct channel *earliest(struct worker *worker) {
    struct channel *first = &worker->channels[0];
    for (uint32_t i = 1; i < worker->channel_count; i++)
        if (worker->channels[i].deadline_ns < first->deadline_ns) first = &worker->channels[i];
    return first;
}

/* Sleep until deadline_ns, or until the plan is to be made anew. False when the worker is to stop, which ends the sleep
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

/* Whole intervals past now on the fixed grid. One is the rule; more means missed ticks. */
static void advance_uniformly(struct worker *worker, struct channel *channel, int64_t interval_ns, int64_t now_ns) {
    if (channel->failures > 1) { /* one alone is no reason to wait */
        uint32_t doublings = channel->failures < 20 ? channel->failures - 1 : 20;
        int64_t backoff_ns = interval_ns << doublings;
        if (backoff_ns > MAX_BACKOFF_NS) backoff_ns = MAX_BACKOFF_NS;
        if (backoff_ns > interval_ns) interval_ns = backoff_ns;
    }
    channel->deadline_ns += interval_ns;
    if (channel->deadline_ns > now_ns) return;
    int64_t missed = (now_ns - channel->deadline_ns) / interval_ns + 1;
    channel->deadline_ns += missed * interval_ns;
    atomic_fetch_add_explicit(&worker->statistics.missed_ticks, (uint64_t)missed, memory_order_relaxed);
}

/* A search reads faster than was asked for, but no faster than what calls have been seen to cost allows. */
static int64_t search_interval_ns(const struct worker *worker, int64_t interval_ns) {
    int64_t search_ns = interval_ns / 4 < SLOWEST_SEARCH_NS ? interval_ns / 4 : SLOWEST_SEARCH_NS;
    if (search_ns < FASTEST_SEARCH_NS) search_ns = FASTEST_SEARCH_NS;
    int64_t affordable_ns = SEARCH_COST * worker->fastest_sum_ns;
    return search_ns > affordable_ns ? search_ns : affordable_ns;
}

/* Set the channel's next deadline. */
static void advance(struct worker *worker, struct channel *channel, int64_t now_ns) {
    int64_t interval_ns = get(&channel->interval_ns), next_ns = 0;
    if (channel->follows) {
        struct phase *phase = &channel->phase;
        if (!channel->failures)
            next_ns = phase_next(phase, now_ns, interval_ns, search_interval_ns(worker, interval_ns));
        atomic_store_explicit(&channel->locked, phase->locked && next_ns, memory_order_relaxed);
        set(&channel->period_ns, (int64_t)phase->period_ns);
        set(&channel->jitter_ns, phase_jitter_ns(phase));
        set(&channel->edge_width_ns, phase->width_ns);
    }
    if (next_ns)
        channel->deadline_ns = next_ns;
    else
        advance_uniformly(worker, channel, interval_ns, now_ns);
}

static double asked_interval_ns(const struct worker *worker, const struct channel *channel) {
    bool resting = atomic_load_explicit(&worker->resting, memory_order_relaxed);
    if (!resting) return (double)channel->requested_interval_ns;
    if (!channel->shown) return REST * (double)channel->requested_interval_ns;
    return fmax((double)channel->requested_interval_ns, LOOK_NS);
}

/* As asked for; unless it rests, up to twice as often where the value moves so fast that its updates could not be
 * followed otherwise. */
static double wanted_interval_ns(const struct worker *worker, const struct channel *channel) {
    double interval_ns = asked_interval_ns(worker, channel);
    double enough_ns = channel->phase.period_ns / PHASE_FEWEST_READS;
    bool resting = atomic_load_explicit(&worker->resting, memory_order_relaxed);
    if (resting || enough_ns <= 0 || enough_ns >= interval_ns) return interval_ns;
    return enough_ns > interval_ns / 2 ? enough_ns : interval_ns / 2;
}

/* Stretch intervals such that the sum of load = latency / interval stays within the budget. Loads are cut at one level,
 * so a channel whose calls are cheap does not pay for one whose calls are dear. */
static void throttle(struct worker *worker, int64_t now_ns) {
    double bound = budget_share(&worker->budget, now_ns, get(&worker->statistics.read_ns));
    double load[LLMPOWER_MAX_CHANNELS], low = 0, high = bound;
    for (uint32_t i = 0; i < worker->channel_count; i++)
        load[i] = (double)get(&worker->channels[i].latency_ns) / wanted_interval_ns(worker, &worker->channels[i]);
    for (int step = 0; step < 30; step++) {
        double level = (low + high) / 2, sum = 0;
        for (uint32_t i = 0; i < worker->channel_count; i++) sum += load[i] < level ? load[i] : level;
        *(sum > bound ? &high : &low) = level;
    }
    for (uint32_t i = 0; i < worker->channel_count; i++) {
        struct channel *channel = &worker->channels[i];
        double factor = load[i] > low ? load[i] / low : 1;
        set(&channel->interval_ns, (int64_t)(wanted_interval_ns(worker, channel) * factor));
    }
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
    int64_t throttled_ns = llmpower_monotonic_ns();
    budget_pause(&worker->budget, throttled_ns); /* the time until now passed without a thread */
    for (;;) {
        struct channel *channel = earliest(worker);
        if (!sleep_until(worker, channel->deadline_ns)) break;
        int64_t now_ns = llmpower_monotonic_ns();
        if (atomic_exchange_explicit(&worker->replan, false, memory_order_relaxed)) {
            throttle(worker, now_ns);
            throttled_ns = now_ns;
            for (uint32_t i = 0; i < worker->channel_count; i++)
                if (worker->channels[i].deadline_ns > now_ns) worker->channels[i].deadline_ns = now_ns;
            continue;
        }
        statistics_count_tick(&worker->statistics, now_ns - channel->deadline_ns);
        look_at_clocks(worker, now_ns);
        worker_read(worker, channel);
        now_ns = llmpower_monotonic_ns();
        advance(worker, channel, now_ns);
        if (now_ns - throttled_ns >= SECOND_NS) {
            throttle(worker, now_ns);
            throttled_ns = now_ns;
        }
    }
    /* By itself, because nobody can ask for the time of a thread that has ended. */
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

static int64_t thread_cpu_ns(const struct worker *worker) {
    clockid_t clock;
    return pthread_getcpuclockid(worker->thread, &clock) ? 0 : clock_ns(clock);
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
    if (worker->running) out->cpu_ns += thread_cpu_ns(worker);
}

void worker_describe_channel(const struct worker *worker, const struct channel *channel, struct llmpower_channel *out) {
    *out = (struct llmpower_channel){
        .device = channel->device,
        .field = channel->field,
        .requested_interval_ns = (int64_t)asked_interval_ns(worker, channel),
        .interval_ns = get(&channel->interval_ns),
        .reads = atomic_load_explicit(&channel->reads, memory_order_relaxed),
        .errors = atomic_load_explicit(&channel->errors, memory_order_relaxed),
        .latency_ns = get(&channel->latency_ns),
        .status = atomic_load_explicit(&channel->status, memory_order_relaxed),
        .locked = atomic_load_explicit(&channel->locked, memory_order_relaxed),
        .period_ns = get(&channel->period_ns),
        .jitter_ns = get(&channel->jitter_ns),
        .edge_width_ns = get(&channel->edge_width_ns),
        .last_read_ns = get(&channel->last_read_ns),
        .in_call_since_ns = get(&channel->in_call_since_ns),
    };
}
