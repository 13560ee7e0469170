/* sampler.c - the C interface: opens the sources, gives each a worker (worker.h), and passes on what they have read. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "llmpower.h"
#include "source.h"
#include "worker.h"

enum { MAX_SOURCES = 2, STOP_TIMEOUT_S = 5, POWERCAP_RING = 4096 };

struct llmpower_sampler {
    struct worker workers[MAX_SOURCES];
    uint32_t worker_count;
    struct llmpower_device devices[LLMPOWER_MAX_DEVICES];
    uint32_t first_device[MAX_SOURCES]; /* of each worker, for the caller */
    uint32_t device_count;
    uint32_t channel_count;
    pid_t pid;               /* that opened it: a forked child has the memory and not the threads */
    pthread_mutex_t control; /* starting and stopping: one caller at a time */
    bool stuck;              /* a thread did not end in time and was left behind: nothing it uses may be freed */
    _Atomic int64_t started_ns;
};

static int64_t interval_of(const struct llmpower_options *options, const struct llmpower_device *device,
                           uint32_t field) {
    if (device->kind != LLMPOWER_GPU) return options->powercap_interval_ns;
    return field == LLMPOWER_ENERGY ? options->energy_interval_ns : options->power_interval_ns;
}

/* Give a source that was opened to a worker. On failure the source is closed. */
static int add_worker(struct llmpower_sampler *sampler, const struct llmpower_options *options,
                      const struct power_source *source, uint32_t ring_capacity, char *error, size_t error_size) {
    struct worker *worker = &sampler->workers[sampler->worker_count];
    if (!worker_init(worker, source, ring_capacity, options->max_read_share)) {
        source->close(source->state, false);
        snprintf(error, error_size, "out of memory");
        return LLMPOWER_NO_MEMORY;
    }
    sampler->first_device[sampler->worker_count++] = sampler->device_count;
    for (uint32_t i = 0; i < source->device_count; i++) {
        const struct llmpower_device *device = &source->devices[i];
        if (sampler->device_count == LLMPOWER_MAX_DEVICES || sampler->channel_count + 2 > LLMPOWER_MAX_CHANNELS) {
            snprintf(error, error_size, "more than %d devices", LLMPOWER_MAX_DEVICES);
            return LLMPOWER_TOO_MANY;
        }
        sampler->devices[sampler->device_count] = *device;
        for (uint32_t field = LLMPOWER_ENERGY; field <= LLMPOWER_POWER_AVERAGE; field++) {
            if (!(device->fields & (1u << field))) continue;
            worker_add(worker, i, sampler->device_count, field, interval_of(options, device, field));
            sampler->channel_count++;
        }
        sampler->device_count++;
    }
    return 0;
}

static int open_sources(struct llmpower_sampler *sampler, const struct llmpower_options *options, char *error,
                        size_t error_size) {
    struct power_source source;
    int failure = 0;
    if (options->nvml_library) {
        failure = source_nvml_open(&source, options->nvml_library, error, error_size);
        if (!failure) failure = add_worker(sampler, options, &source, options->ring_capacity, error, error_size);
    }
    if (!failure && options->powercap_root) {
        failure = source_powercap_open(&source, options->powercap_root, error, error_size);
        if (!failure) failure = add_worker(sampler, options, &source, POWERCAP_RING, error, error_size);
    }
    return failure;
}

int llmpower_open(const struct llmpower_options *options, struct llmpower_sampler **out, char *error,
                  size_t error_size) {
    /* As its rings ask for: calloc would align it to no more than the largest number. */
    struct llmpower_sampler *sampler = aligned_alloc(_Alignof(struct llmpower_sampler), sizeof *sampler);
    if (!sampler) {
        snprintf(error, error_size, "out of memory");
        return LLMPOWER_NO_MEMORY;
    }
    memset(sampler, 0, sizeof *sampler);
    sampler->pid = getpid();
    pthread_mutex_init(&sampler->control, NULL);
    int failure = open_sources(sampler, options, error, error_size);
    if (failure) {
        llmpower_close(sampler);
        return failure;
    }
    *out = sampler;
    return 0;
}

static int start_workers(struct llmpower_sampler *sampler) {
    if (sampler->stuck) return LLMPOWER_STUCK;
    for (uint32_t i = 0; i < sampler->worker_count; i++)
        if (sampler->workers[i].running) return 0;
    atomic_store(&sampler->started_ns, llmpower_monotonic_ns());
    int failure = 0;
    for (uint32_t i = 0; i < sampler->worker_count && !failure; i++) failure = worker_start(&sampler->workers[i]);
    return failure;
}

static int stop_workers(struct llmpower_sampler *sampler) {
    for (uint32_t i = 0; i < sampler->worker_count; i++) worker_tell_to_stop(&sampler->workers[i]);
    /* A driver call can hang for ever, and a program must be able to end all the same. */
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += STOP_TIMEOUT_S;
    bool ended = true;
    for (uint32_t i = 0; i < sampler->worker_count; i++) ended &= worker_join(&sampler->workers[i], &limit);
    if (ended) return 0;
    sampler->stuck = true;
    return LLMPOWER_STUCK;
}

int llmpower_start(struct llmpower_sampler *sampler) {
    if (sampler->pid != getpid()) return LLMPOWER_FORKED;
    pthread_mutex_lock(&sampler->control);
    int failure = start_workers(sampler);
    if (failure) stop_workers(sampler);
    pthread_mutex_unlock(&sampler->control);
    return failure;
}

void llmpower_rest(struct llmpower_sampler *sampler, bool resting) {
    if (sampler->pid != getpid()) return;
    for (uint32_t i = 0; i < sampler->worker_count; i++) worker_rest(&sampler->workers[i], resting);
}

int llmpower_stop(struct llmpower_sampler *sampler) {
    if (sampler->pid != getpid()) return LLMPOWER_FORKED;
    pthread_mutex_lock(&sampler->control);
    int failure = stop_workers(sampler);
    pthread_mutex_unlock(&sampler->control);
    return failure;
}

void llmpower_close(struct llmpower_sampler *sampler) {
    if (!sampler) return;
    /* In a child, the threads do not exist and the driver's state is the parent's: only our memory is ours. */
    bool forked = sampler->pid != getpid();
    if (!forked) llmpower_stop(sampler);
    if (sampler->stuck) return; /* the thread may yet wake up and use all of it */
    for (uint32_t i = 0; i < sampler->worker_count; i++) worker_free(&sampler->workers[i], forked);
    if (!forked) pthread_mutex_destroy(&sampler->control);
    free(sampler);
}

/* --- What the caller may look at -------------------------------------------------------------------------------- */

uint32_t llmpower_device_count(const struct llmpower_sampler *sampler) { return sampler->device_count; }

const struct llmpower_device *llmpower_device_at(const struct llmpower_sampler *sampler, uint32_t index) {
    return index < sampler->device_count ? &sampler->devices[index] : NULL;
}

const struct llmpower_unopened *llmpower_unopened_at(const struct llmpower_sampler *sampler, uint32_t index) {
    for (uint32_t i = 0; i < sampler->worker_count; i++) {
        const struct power_source *source = &sampler->workers[i].source;
        if (index < source->unopened_count) return &source->unopened[index];
        index -= source->unopened_count;
    }
    return NULL;
}

int32_t llmpower_device_of(const struct llmpower_sampler *sampler, const char *uuid) {
    for (uint32_t i = 0; i < sampler->device_count; i++)
        if (strcmp(sampler->devices[i].uuid, uuid) == 0) return (int32_t)i;
    for (uint32_t i = 0; i < sampler->worker_count; i++) {
        const struct power_source *source = &sampler->workers[i].source;
        for (uint32_t j = 0; j < source->alias_count; j++)
            if (strcmp(source->aliases[j].uuid, uuid) == 0)
                return (int32_t)(sampler->first_device[i] + source->aliases[j].device);
    }
    return -1;
}

/* The source that a device is of, and its index there; NULL for a device that there is not. */
static struct power_source *source_of(struct llmpower_sampler *sampler, uint32_t device, uint32_t *own) {
    for (uint32_t i = 0; i < sampler->worker_count; i++) {
        *own = device - sampler->first_device[i]; /* huge for a device before the source's first */
        if (*own < sampler->workers[i].source.device_count) return &sampler->workers[i].source;
    }
    return NULL;
}

int32_t llmpower_processes(struct llmpower_sampler *sampler, uint32_t device, uint32_t *pids, uint32_t *count) {
    uint32_t own;
    if (sampler->pid != getpid()) return -ECHILD;
    struct power_source *source = source_of(sampler, device, &own);
    if (!source) return -ENODEV;
    if (!source->processes) return -EOPNOTSUPP;
    return source->processes(source->state, own, pids, LLMPOWER_MAX_PROCESSES, count);
}

int32_t llmpower_power_limit(struct llmpower_sampler *sampler, uint32_t device, int64_t *limit_uw) {
    uint32_t own;
    if (sampler->pid != getpid()) return -ECHILD;
    struct power_source *source = source_of(sampler, device, &own);
    if (!source) return -ENODEV;
    if (!source->power_limit) return -EOPNOTSUPP;
    return source->power_limit(source->state, own, limit_uw);
}

int32_t llmpower_temperature(struct llmpower_sampler *sampler, uint32_t device, int32_t *celsius) {
    uint32_t own;
    if (sampler->pid != getpid()) return -ECHILD;
    struct power_source *source = source_of(sampler, device, &own);
    if (!source) return -ENODEV;
    if (!source->temperature) return -EOPNOTSUPP;
    return source->temperature(source->state, own, celsius);
}

size_t llmpower_drain(struct llmpower_sampler *sampler, struct llmpower_sample *out, size_t capacity) {
    if (sampler->pid != getpid()) return 0;
    size_t count = 0;
    for (uint32_t i = 0; i < sampler->worker_count; i++)
        count += ring_pop(&sampler->workers[i].ring, out + count, capacity - count);
    return count;
}

void llmpower_read_statistics(const struct llmpower_sampler *sampler, struct llmpower_statistics *out) {
    *out = (struct llmpower_statistics){0};
    int64_t started_ns = atomic_load_explicit(&sampler->started_ns, memory_order_relaxed);
    out->running_ns = started_ns ? llmpower_monotonic_ns() - started_ns : 0;
    if (sampler->pid != getpid()) return; /* the threads whose time it would ask for are not here */
    for (uint32_t i = 0; i < sampler->worker_count; i++) worker_add_statistics(&sampler->workers[i], out);
}

uint32_t llmpower_read_channels(const struct llmpower_sampler *sampler, struct llmpower_channel *out,
                                uint32_t capacity) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < sampler->worker_count; i++)
        for (uint32_t j = 0; j < sampler->workers[i].channel_count && count < capacity; j++)
            worker_describe_channel(&sampler->workers[i], &sampler->workers[i].channels[j], &out[count++]);
    return count;
}
