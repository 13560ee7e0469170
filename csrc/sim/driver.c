/* driver.c - see driver.h. */
#include "driver.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "chance.h"
#include "settings.h"

enum { MAX_RETURNS = 4 };

static const int64_t SPIN_NS = 60000; /* the kernel wakes a sleeper this late */
static const uint64_t LATENCY_SEED = 0x1A7E, MOMENT_SEED = 0x303E, FAULT_SEED = 0xFA17;

static struct driver the_driver;
static struct nvml_device handles[MAX_GPUS][MAX_RETURNS][1 + MIG_INSTANCES];

/* The driver's lock serves in order of arrival, so no thread starves beside one that calls without a pause. */
static struct {
    pthread_mutex_t mutex;
    pthread_cond_t next;
    uint64_t arrived, served;
} queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};

static pthread_mutex_t state = PTHREAD_MUTEX_INITIALIZER;
static int64_t call_ends_ns; /* of the call that holds the driver; 0 when it spends nothing */

/* --- Time and locks --------------------------------------------------------------------------------------------- */

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Sleep, and spin the last stretch: a call of 50 us then takes 50 us. */
static void wait_until(int64_t until_ns) {
    int64_t wake_ns = until_ns - SPIN_NS;
    if (wake_ns > monotonic_ns()) {
        struct timespec wake = {.tv_sec = wake_ns / 1000000000, .tv_nsec = wake_ns % 1000000000};
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &wake, NULL) == EINTR) continue;
    }
    while (monotonic_ns() < until_ns) continue;
}

static void queue_up(void) {
    pthread_mutex_lock(&queue.mutex);
    uint64_t ticket = queue.arrived++;
    while (queue.served != ticket) pthread_cond_wait(&queue.next, &queue.mutex);
    pthread_mutex_unlock(&queue.mutex);
}

static void serve_next(void) {
    pthread_mutex_lock(&queue.mutex);
    queue.served++;
    if (queue.served != queue.arrived) pthread_cond_broadcast(&queue.next);
    pthread_mutex_unlock(&queue.mutex);
}

/* A forked child has none of the threads that were in a call, and nobody else would end their calls. What the driver
 * keeps is whole at that moment, as its lock is held for it. */
static void before_fork(void) { pthread_mutex_lock(&state); }

static void after_fork_in_parent(void) { pthread_mutex_unlock(&state); }

static void after_fork_in_child(void) {
    pthread_mutex_init(&state, NULL);
    pthread_mutex_init(&queue.mutex, NULL);
    pthread_cond_init(&queue.next, NULL);
    queue.served = queue.arrived;
    call_ends_ns = 0;
}

__attribute__((constructor)) static void watch_forks(void) {
    pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Draw what a call costs and spend up to the moment at which its value is taken; the state is locked, before and
 * after. Where within a call a real driver looks is known of one card alone; for others it is anywhere. */
static int64_t begin(struct driver *driver, enum call call) {
    uint64_t number = driver->calls++;
    int64_t cost_ns = latency_draw_ns(&driver->latency, call, driver->seed ^ LATENCY_SEED, number);
    call_ends_ns = 0;
    if (cost_ns == 0) return 0;
    int64_t begun_ns = monotonic_ns();
    call_ends_ns = begun_ns + cost_ns;
    double share = driver->preset->looks_at_once ? 0 : chance_uniform(driver->seed ^ MOMENT_SEED, number);
    pthread_mutex_unlock(&state);
    wait_until(begun_ns + (int64_t)(share * (double)cost_ns));
    pthread_mutex_lock(&state);
    return cost_ns;
}

struct driver *driver_enter(enum call call) {
    queue_up();
    pthread_mutex_lock(&state);
    begin(&the_driver, call);
    return &the_driver;
}

int64_t driver_go_on(struct driver *driver, enum call call) {
    pthread_mutex_unlock(&state);
    if (call_ends_ns) wait_until(call_ends_ns);
    pthread_mutex_lock(&state);
    return begin(driver, call);
}

nvmlReturn_t driver_leave(nvmlReturn_t code) {
    pthread_mutex_unlock(&state);
    if (call_ends_ns) wait_until(call_ends_ns);
    serve_next();
    return code;
}

struct driver *driver_look(void) {
    pthread_mutex_lock(&state);
    return &the_driver;
}

void driver_look_away(void) { pthread_mutex_unlock(&state); }

int64_t driver_elapsed_ns(const struct driver *driver) { return monotonic_ns() - driver->started_ns; }

/* --- Devices ---------------------------------------------------------------------------------------------------- */

static bool is_lost(const struct driver *driver, unsigned int gpu, int64_t elapsed_ns) {
    double reads = faults_number(&driver->faults, FAULT_LOST_AFTER, gpu, -1);
    return (reads >= 0 && (double)driver->reads[gpu] >= reads) || faults_lost(&driver->faults, gpu, elapsed_ns);
}

nvmlReturn_t driver_handle(struct driver *driver, unsigned int index, int instance, nvmlDevice_t *device) {
    if (!driver->references) return NVML_ERROR_UNINITIALIZED;
    if (index >= driver->gpu_count || !device) return NVML_ERROR_INVALID_ARGUMENT;
    if (faults_has(&driver->faults, FAULT_NO_PERMISSION, index)) return NVML_ERROR_NO_PERMISSION;
    int64_t elapsed_ns = driver_elapsed_ns(driver);
    if (is_lost(driver, index, elapsed_ns)) return NVML_ERROR_GPU_IS_LOST;
    unsigned int returns = faults_returns(&driver->faults, index, elapsed_ns) % MAX_RETURNS;
    *device = &handles[index][returns][1 + instance];
    **device = (struct nvml_device){index, returns, instance};
    return NVML_SUCCESS;
}

nvmlReturn_t driver_check(struct driver *driver, nvmlDevice_t device) {
    if (!driver->references) return NVML_ERROR_UNINITIALIZED;
    const struct nvml_device *first = &handles[0][0][0];
    if (device < first || device >= first + driver->gpu_count * (sizeof handles[0] / sizeof *first))
        return NVML_ERROR_INVALID_ARGUMENT;
    if (driver->faults.count == 0) return NVML_SUCCESS;
    int64_t elapsed_ns = driver_elapsed_ns(driver);
    bool stale = faults_returns(&driver->faults, device->index, elapsed_ns) % MAX_RETURNS != device->returns;
    return stale || is_lost(driver, device->index, elapsed_ns) ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS;
}

bool driver_strikes(struct driver *driver, enum fault_kind kind, unsigned int gpu) {
    if (!faults_has(&driver->faults, kind, gpu)) return false;
    double chance = chance_uniform(driver->seed ^ FAULT_SEED, driver->draws++);
    return faults_strike(&driver->faults, kind, gpu, driver_elapsed_ns(driver), chance);
}

nvmlReturn_t driver_check_read(struct driver *driver, nvmlDevice_t device) {
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS || driver->faults.count == 0) return code;
    driver->reads[device->index]++;
    int64_t elapsed_ns = driver_elapsed_ns(driver);
    int64_t until_ns = faults_hang_ns(&driver->faults, device->index, elapsed_ns);
    if (until_ns > elapsed_ns) {
        int64_t started_ns = driver->started_ns;
        pthread_mutex_unlock(&state);
        wait_until(started_ns + until_ns);
        pthread_mutex_lock(&state);
    }
    return driver_strikes(driver, FAULT_NOT_SUPPORTED, device->index) ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

/* --- Start and stop --------------------------------------------------------------------------------------------- */

nvmlReturn_t driver_start(struct driver *driver) {
    struct settings settings;
    if (driver->references) {
        driver->references++;
        return NVML_SUCCESS;
    }
    if (!settings_read(&settings)) {
        fprintf(stderr, "simulated NVML: %s\n", settings.refusal);
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (faults_has(&settings.faults, FAULT_INIT, 0)) {
        settings_close(settings.loads);
        return NVML_ERROR_DRIVER_NOT_LOADED;
    }
    int64_t now_ns = monotonic_ns();
    memset(driver, 0, sizeof *driver); /* it is too large to pass over a thread's stack */
    driver->references = 1;
    driver->preset = settings.preset;
    memcpy(driver->loads, settings.loads, sizeof driver->loads);
    driver->faults = settings.faults;
    driver->latency = settings.latency;
    memcpy(driver->processes, settings.processes, sizeof driver->processes);
    driver->started_ns = now_ns;
    driver->gpu_count = settings.gpu_count;
    driver->seed = settings.seed;
    for (unsigned int i = 0; i < driver->gpu_count; i++) {
        struct sensor_options options = {.seed = settings.seed * MAX_GPUS + i,
                                         .gain = settings.gain,
                                         .offset_w = settings.offset_w,
                                         .skip_share = faults_number(&driver->faults, FAULT_SKIP, i, 0),
                                         .part_time = settings.part_time};
        int64_t known_ns = load_known_until(driver->loads[i], now_ns);
        sensor_init(&driver->sensors[i], driver->preset, driver->loads[i], &options, known_ns);
        thermal_init(&driver->thermals[i], driver->loads[i], driver->preset->max_w, settings.thermal_s, known_ns);
    }
    return NVML_SUCCESS;
}

nvmlReturn_t driver_stop(struct driver *driver) {
    if (!driver->references) return NVML_ERROR_UNINITIALIZED;
    if (--driver->references == 0) settings_close(driver->loads);
    return NVML_SUCCESS;
}
