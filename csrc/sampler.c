/* sampler.c - one thread that reads every field of every device on a fixed grid of absolute deadlines.
 *
 * Each (device, field) pair is a channel with a grid of its own. The thread sleeps until the earliest deadline, reads,
 * pushes what it got with the times before and after the call, and moves that channel on by whole intervals: a late
 * read never shifts the grid. It holds no lock while reading and never touches Python.
 *
 * Reads cost driver time that the workload needs too, so the share of wall time spent in them is bounded: when the
 * channels together would pass the bound, every interval is stretched by the same factor (see throttle). */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "llmpower.h"
#include "ring.h"
#include "source.h"

enum { MAX_SOURCES = 2, STOP_TIMEOUT_S = 5 };

static const int64_t SECOND_NS = 1000000000;
static const int64_t MAX_BACKOFF_NS = 1000000000; /* a device that keeps failing is asked once a second */

static const int64_t lateness_bounds_ns[LLMPOWER_LATENESS_BUCKETS - 1] = {
    10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000, 100000000, 1000000000};

struct channel {
    uint32_t source, source_device; /* where to read */
    uint32_t device, field;         /* what it is to the caller */
    int64_t requested_interval_ns;
    int64_t deadline_ns;
    uint32_t failures; /* in a row */
    /* Written by the thread, read by whoever asks for statistics: single values, no order between them matters. */
    _Atomic int64_t interval_ns;
    _Atomic int64_t latency_ns;
    _Atomic uint64_t reads, errors;
    _Atomic int32_t status;
};

struct error_slot {
    _Atomic uint32_t kind;
    _Atomic int32_t status;
    _Atomic uint64_t count;
};

struct llmpower_sampler {
    struct power_source sources[MAX_SOURCES];
    uint32_t source_count;
    struct llmpower_device devices[LLMPOWER_MAX_DEVICES];
    uint32_t device_count;
    struct channel channels[LLMPOWER_MAX_CHANNELS];
    uint32_t channel_count;
    double max_read_share;
    struct ring ring;

    pid_t pid; /* that opened it: a forked child has the memory and not the thread */
    pthread_t thread;
    bool running;
    bool stuck;            /* the thread did not end in time and was left behind: nothing it uses may be freed */
    pthread_mutex_t mutex; /* guards stop alone */
    pthread_cond_t wake;
    bool stop;

    _Atomic int64_t started_ns;
    _Atomic uint64_t samples, ticks, missed_ticks;
    _Atomic int64_t read_ns, lateness_sum_ns;
    _Atomic int64_t ended_cpu_ns; /* CPU time of earlier threads, for one that has been stopped */
    _Atomic uint64_t lateness[LLMPOWER_LATENESS_BUCKETS];
    _Atomic uint32_t error_count;
    struct error_slot errors[LLMPOWER_ERROR_SLOTS];
};

int64_t llmpower_monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

const int64_t *llmpower_lateness_bounds_ns(void) { return lateness_bounds_ns; }

/* --- The thread ------------------------------------------------------------------------------------------------- */

static struct channel *earliest(struct llmpower_sampler *sampler) {
    struct channel *first = &sampler->channels[0];
    for (uint32_t i = 1; i < sampler->channel_count; i++)
        if (sampler->channels[i].deadline_ns < first->deadline_ns) first = &sampler->channels[i];
    return first;
}

/* Sleep until deadline_ns. False when the sampler is to stop, which ends the sleep at once. */
static bool sleep_until(struct llmpower_sampler *sampler, int64_t deadline_ns) {
    struct timespec deadline = {.tv_sec = deadline_ns / SECOND_NS, .tv_nsec = deadline_ns % SECOND_NS};
    pthread_mutex_lock(&sampler->mutex);
    int code = 0;
    while (!sampler->stop && code != ETIMEDOUT)
        code = pthread_cond_timedwait(&sampler->wake, &sampler->mutex, &deadline);
    bool go_on = !sampler->stop;
    pthread_mutex_unlock(&sampler->mutex);
    return go_on;
}

static void count_lateness(struct llmpower_sampler *sampler, int64_t late_ns) {
    uint32_t bucket = 0;
    while (bucket < LLMPOWER_LATENESS_BUCKETS - 1 && late_ns > lateness_bounds_ns[bucket]) bucket++;
    atomic_fetch_add_explicit(&sampler->lateness[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&sampler->lateness_sum_ns, late_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&sampler->ticks, 1, memory_order_relaxed);
}

/* Errors are counted here as well as kept in the samples, so that a full ring hides none. Codes beyond the slots are
 * added to the last one. */
static void count_error(struct llmpower_sampler *sampler, uint32_t kind, int32_t status) {
    uint32_t used = atomic_load_explicit(&sampler->error_count, memory_order_relaxed);
    uint32_t slot = 0;
    while (slot < used && (sampler->errors[slot].kind != kind || sampler->errors[slot].status != status)) slot++;
    if (slot == LLMPOWER_ERROR_SLOTS) slot--;
    if (slot == used) {
        atomic_store_explicit(&sampler->errors[slot].kind, kind, memory_order_relaxed);
        atomic_store_explicit(&sampler->errors[slot].status, status, memory_order_relaxed);
        /* Release: a reader that sees the new length must see the slot's key. */
        atomic_store_explicit(&sampler->error_count, used + 1, memory_order_release);
    }
    atomic_fetch_add_explicit(&sampler->errors[slot].count, 1, memory_order_relaxed);
}

static void read_channel(struct llmpower_sampler *sampler, struct channel *channel) {
    struct power_source *source = &sampler->sources[channel->source];
    struct llmpower_sample sample = {.device = (uint16_t)channel->device, .field = (uint8_t)channel->field};

    sample.before_ns = llmpower_monotonic_ns();
    sample.status = source->read(source->state, channel->source_device, channel->field, &sample.value);
    sample.after_ns = llmpower_monotonic_ns();
    if (ring_push(&sampler->ring, &sample)) atomic_fetch_add_explicit(&sampler->samples, 1, memory_order_relaxed);

    int64_t took_ns = sample.after_ns - sample.before_ns;
    int64_t smoothed_ns = atomic_load_explicit(&channel->latency_ns, memory_order_relaxed);
    smoothed_ns = channel->reads ? smoothed_ns + (took_ns - smoothed_ns) / 16 : took_ns;
    atomic_store_explicit(&channel->latency_ns, smoothed_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&channel->reads, 1, memory_order_relaxed);
    atomic_store_explicit(&channel->status, sample.status, memory_order_relaxed);
    atomic_fetch_add_explicit(&sampler->read_ns, took_ns, memory_order_relaxed);
    if (sample.status) {
        channel->failures++;
        atomic_fetch_add_explicit(&channel->errors, 1, memory_order_relaxed);
        count_error(sampler, (uint32_t)sampler->devices[channel->device].kind, sample.status);
    } else {
        channel->failures = 0;
    }
}

/* Move the channel's deadline on by whole intervals past now. One interval is the rule; more means missed ticks. */
static void advance(struct llmpower_sampler *sampler, struct channel *channel, int64_t now_ns) {
    int64_t interval_ns = atomic_load_explicit(&channel->interval_ns, memory_order_relaxed);
    if (channel->failures) {
        uint32_t doublings = channel->failures < 20 ? channel->failures : 20;
        int64_t backoff_ns = interval_ns << doublings;
        if (backoff_ns > MAX_BACKOFF_NS) backoff_ns = MAX_BACKOFF_NS;
        if (backoff_ns > interval_ns) interval_ns = backoff_ns;
    }
    channel->deadline_ns += interval_ns;
    if (channel->deadline_ns > now_ns) return;
    int64_t missed = (now_ns - channel->deadline_ns) / interval_ns + 1;
    channel->deadline_ns += missed * interval_ns;
    atomic_fetch_add_explicit(&sampler->missed_ticks, (uint64_t)missed, memory_order_relaxed);
}

/* Stretch all intervals by one factor such that sum(latency / interval) stays within max_read_share. */
static void throttle(struct llmpower_sampler *sampler) {
    double load = 0;
    for (uint32_t i = 0; i < sampler->channel_count; i++) {
        struct channel *channel = &sampler->channels[i];
        load += (double)atomic_load_explicit(&channel->latency_ns, memory_order_relaxed) /
                (double)channel->requested_interval_ns;
    }
    double factor = load > sampler->max_read_share ? load / sampler->max_read_share : 1;
    for (uint32_t i = 0; i < sampler->channel_count; i++) {
        struct channel *channel = &sampler->channels[i];
        atomic_store_explicit(&channel->interval_ns, (int64_t)((double)channel->requested_interval_ns * factor),
                              memory_order_relaxed);
    }
}

static void *run(void *argument) {
    struct llmpower_sampler *sampler = argument;
    /* The default slack lets the kernel be 50 us late with every wake-up; a failure only leaves it so. */
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
    pthread_setname_np(pthread_self(), "llmpower-sample");
    int64_t throttled_ns = llmpower_monotonic_ns();
    for (;;) {
        struct channel *channel = earliest(sampler);
        if (!sleep_until(sampler, channel->deadline_ns)) return NULL;
        int64_t now_ns = llmpower_monotonic_ns();
        count_lateness(sampler, now_ns - channel->deadline_ns);
        read_channel(sampler, channel);
        now_ns = llmpower_monotonic_ns();
        advance(sampler, channel, now_ns);
        if (now_ns - throttled_ns >= SECOND_NS) {
            throttle(sampler);
            throttled_ns = now_ns;
        }
    }
}

/* --- Opening and closing ---------------------------------------------------------------------------------------- */

static void add_channel(struct llmpower_sampler *sampler, uint32_t source, uint32_t source_device, uint32_t field,
                        int64_t interval_ns) {
    struct channel *channel = &sampler->channels[sampler->channel_count++];
    channel->source = source;
    channel->source_device = source_device;
    channel->device = sampler->device_count;
    channel->field = field;
    channel->requested_interval_ns = interval_ns;
    atomic_init(&channel->interval_ns, interval_ns);
}

static int64_t interval_of(const struct llmpower_options *options, const struct llmpower_device *device,
                           uint32_t field) {
    if (device->kind != LLMPOWER_GPU) return options->powercap_interval_ns;
    return field == LLMPOWER_ENERGY ? options->energy_interval_ns : options->power_interval_ns;
}

static int add_devices(struct llmpower_sampler *sampler, const struct llmpower_options *options, uint32_t source,
                       char *error, size_t error_size) {
    const struct power_source *opened = &sampler->sources[source];
    for (uint32_t i = 0; i < opened->device_count; i++) {
        const struct llmpower_device *device = &opened->devices[i];
        if (sampler->device_count == LLMPOWER_MAX_DEVICES || sampler->channel_count + 2 > LLMPOWER_MAX_CHANNELS) {
            snprintf(error, error_size, "more than %d devices", LLMPOWER_MAX_DEVICES);
            return LLMPOWER_TOO_MANY;
        }
        sampler->devices[sampler->device_count] = *device;
        for (uint32_t field = LLMPOWER_ENERGY; field <= LLMPOWER_POWER_AVERAGE; field++)
            if (device->fields & (1u << field))
                add_channel(sampler, source, i, field, interval_of(options, device, field));
        sampler->device_count++;
    }
    return 0;
}

static int open_sources(struct llmpower_sampler *sampler, const struct llmpower_options *options, char *error,
                        size_t error_size) {
    int failure = 0;
    if (options->nvml_library) {
        struct power_source *source = &sampler->sources[sampler->source_count];
        failure = source_nvml_open(source, options->nvml_library, error, error_size);
        if (!failure) failure = add_devices(sampler, options, sampler->source_count++, error, error_size);
    }
    if (!failure && options->powercap_root) {
        struct power_source *source = &sampler->sources[sampler->source_count];
        failure = source_powercap_open(source, options->powercap_root, error, error_size);
        if (!failure) failure = add_devices(sampler, options, sampler->source_count++, error, error_size);
    }
    return failure;
}

int llmpower_open(const struct llmpower_options *options, struct llmpower_sampler **out, char *error,
                  size_t error_size) {
    struct llmpower_sampler *sampler = calloc(1, sizeof *sampler);
    if (!sampler || !ring_init(&sampler->ring, options->ring_capacity)) {
        free(sampler);
        snprintf(error, error_size, "out of memory");
        return LLMPOWER_NO_MEMORY;
    }
    sampler->pid = getpid();
    sampler->max_read_share = options->max_read_share;
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC); /* deadlines must not move when the clock is set */
    pthread_cond_init(&sampler->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    pthread_mutex_init(&sampler->mutex, NULL);

    int failure = open_sources(sampler, options, error, error_size);
    if (failure) {
        llmpower_close(sampler);
        return failure;
    }
    *out = sampler;
    return 0;
}

int llmpower_start(struct llmpower_sampler *sampler) {
    if (sampler->pid != getpid()) return LLMPOWER_FORKED;
    if (sampler->stuck) return LLMPOWER_STUCK;
    if (sampler->running || !sampler->channel_count) return 0;
    int64_t now_ns = llmpower_monotonic_ns();
    sampler->stop = false;
    atomic_store(&sampler->started_ns, now_ns);
    for (uint32_t i = 0; i < sampler->channel_count; i++) sampler->channels[i].deadline_ns = now_ns;

    /* Signals belong to the program, not to this thread: it inherits a mask that lets none through. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(&sampler->thread, NULL, run, sampler);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) return LLMPOWER_THREAD;
    sampler->running = true;
    return 0;
}

static int64_t thread_cpu_ns(const struct llmpower_sampler *sampler) {
    clockid_t clock;
    struct timespec used;
    if (pthread_getcpuclockid(sampler->thread, &clock) || clock_gettime(clock, &used)) return 0;
    return used.tv_sec * SECOND_NS + used.tv_nsec;
}

int llmpower_stop(struct llmpower_sampler *sampler) {
    if (sampler->pid != getpid()) return LLMPOWER_FORKED;
    if (!sampler->running) return 0;
    int64_t cpu_ns = thread_cpu_ns(sampler);
    pthread_mutex_lock(&sampler->mutex);
    sampler->stop = true;
    pthread_cond_signal(&sampler->wake);
    pthread_mutex_unlock(&sampler->mutex);

    /* A driver call can hang for ever, and a program must be able to end all the same. */
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += STOP_TIMEOUT_S;
    sampler->running = false;
    if (pthread_timedjoin_np(sampler->thread, NULL, &limit)) {
        pthread_detach(sampler->thread);
        sampler->stuck = true;
        return LLMPOWER_STUCK;
    }
    atomic_fetch_add(&sampler->ended_cpu_ns, cpu_ns);
    return 0;
}

void llmpower_close(struct llmpower_sampler *sampler) {
    if (!sampler) return;
    /* In a child, the thread does not exist and the driver's state is the parent's: only our memory is ours. */
    bool ours = sampler->pid == getpid();
    if (ours) llmpower_stop(sampler);
    if (sampler->stuck) return; /* the thread may yet wake up and use all of it */
    for (uint32_t i = 0; i < sampler->source_count; i++) sampler->sources[i].close(sampler->sources[i].state, !ours);
    if (ours) {
        pthread_cond_destroy(&sampler->wake);
        pthread_mutex_destroy(&sampler->mutex);
    }
    ring_free(&sampler->ring);
    free(sampler);
}

/* --- What the caller may look at -------------------------------------------------------------------------------- */

uint32_t llmpower_device_count(const struct llmpower_sampler *sampler) { return sampler->device_count; }

const struct llmpower_device *llmpower_device_at(const struct llmpower_sampler *sampler, uint32_t index) {
    return index < sampler->device_count ? &sampler->devices[index] : NULL;
}

size_t llmpower_drain(struct llmpower_sampler *sampler, struct llmpower_sample *out, size_t capacity) {
    return sampler->pid == getpid() ? ring_pop(&sampler->ring, out, capacity) : 0;
}

void llmpower_read_statistics(const struct llmpower_sampler *sampler, struct llmpower_statistics *out) {
    *out = (struct llmpower_statistics){0};
    out->samples = atomic_load_explicit(&sampler->samples, memory_order_relaxed);
    out->dropped = atomic_load_explicit(&sampler->ring.dropped, memory_order_relaxed);
    out->ticks = atomic_load_explicit(&sampler->ticks, memory_order_relaxed);
    out->missed_ticks = atomic_load_explicit(&sampler->missed_ticks, memory_order_relaxed);
    out->read_ns = atomic_load_explicit(&sampler->read_ns, memory_order_relaxed);
    out->lateness_sum_ns = atomic_load_explicit(&sampler->lateness_sum_ns, memory_order_relaxed);
    int64_t started_ns = atomic_load_explicit(&sampler->started_ns, memory_order_relaxed);
    out->running_ns = started_ns ? llmpower_monotonic_ns() - started_ns : 0;
    out->cpu_ns = atomic_load_explicit(&sampler->ended_cpu_ns, memory_order_relaxed);
    if (sampler->running && sampler->pid == getpid()) out->cpu_ns += thread_cpu_ns(sampler);
    for (uint32_t i = 0; i < LLMPOWER_LATENESS_BUCKETS; i++)
        out->lateness[i] = atomic_load_explicit(&sampler->lateness[i], memory_order_relaxed);
    /* Acquire: pairs with the release in count_error. */
    out->error_count = atomic_load_explicit(&sampler->error_count, memory_order_acquire);
    for (uint32_t i = 0; i < out->error_count; i++) {
        out->errors[i].kind = atomic_load_explicit(&sampler->errors[i].kind, memory_order_relaxed);
        out->errors[i].status = atomic_load_explicit(&sampler->errors[i].status, memory_order_relaxed);
        out->errors[i].count = atomic_load_explicit(&sampler->errors[i].count, memory_order_relaxed);
    }
}

uint32_t llmpower_read_channels(const struct llmpower_sampler *sampler, struct llmpower_channel *out,
                                uint32_t capacity) {
    uint32_t count = sampler->channel_count < capacity ? sampler->channel_count : capacity;
    for (uint32_t i = 0; i < count; i++) {
        const struct channel *channel = &sampler->channels[i];
        out[i] = (struct llmpower_channel){
            .device = channel->device,
            .field = channel->field,
            .requested_interval_ns = channel->requested_interval_ns,
            .interval_ns = atomic_load_explicit(&channel->interval_ns, memory_order_relaxed),
            .reads = atomic_load_explicit(&channel->reads, memory_order_relaxed),
            .errors = atomic_load_explicit(&channel->errors, memory_order_relaxed),
            .latency_ns = atomic_load_explicit(&channel->latency_ns, memory_order_relaxed),
            .status = atomic_load_explicit(&channel->status, memory_order_relaxed),
        };
    }
    return count;
}
