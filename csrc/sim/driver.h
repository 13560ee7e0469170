/* driver.h - the simulated driver: what it was set up to be, its lock, its handles, and how a call passes through it.
 *
 * Every call of NVML holds one lock for as long as it lasts, as on a real board: several threads that poll only queue.
 * Inside it a second lock guards the state, and is free while a call merely takes its time; so the true joules can be
 * asked even while the driver hangs. */
#ifndef LLMPOWER_SIM_DRIVER_H
#define LLMPOWER_SIM_DRIVER_H

#include "abi.h"
#include "fault.h"
#include "latency.h"
#include "load.h"
#include "preset.h"
#include "sensor.h"
#include "settings.h"
#include "thermal.h"

enum { MIG_INSTANCES = 2 };

struct nvml_device {
    unsigned int index;   /* of the GPU */
    unsigned int returns; /* how often it had come back when this handle was given out */
    int instance;         /* of MIG; -1 for the whole GPU */
};

struct driver {
    int references; /* of nvmlInit over nvmlShutdown; below is set while it is not 0 */
    const struct preset *preset;
    struct load *loads[MAX_GPUS];
    struct faults faults;
    struct latency latency;
    int64_t started_ns;
    unsigned int gpu_count;
    uint64_t seed;
    struct sensor sensors[MAX_GPUS];
    struct thermal thermals[MAX_GPUS];
    uint64_t reads[MAX_GPUS]; /* answered, for lost_after */
    uint64_t calls, draws;    /* numbers of what is drawn at random */
    char processes[MAX_PATH_BYTES];
};

/* Begin a call: queue for the lock, then spend the first part of what the call costs. Never NULL. */
struct driver *driver_enter(enum call call);

/* Go over to another value within a call, which costs as much as a call of its own; returns how long in ns. */
int64_t driver_go_on(struct driver *driver, enum call call);

/* Spend the rest, free the lock and return code. */
nvmlReturn_t driver_leave(nvmlReturn_t code);

/* The state alone, whoever holds the driver. */
struct driver *driver_look(void);
void driver_look_away(void);

/* What a call about a device finds before anything else. A read may be one of those that hang, fail or lose the GPU. */
nvmlReturn_t driver_check(struct driver *driver, nvmlDevice_t device);
nvmlReturn_t driver_check_read(struct driver *driver, nvmlDevice_t device);

/* The handle that is good now; instance -1 for the whole GPU. */
nvmlReturn_t driver_handle(struct driver *driver, unsigned int index, int instance, nvmlDevice_t *device);

/* On CLOCK_MONOTONIC since nvmlInit, which is what faults count from. */
int64_t driver_elapsed_ns(const struct driver *driver);

/* Whether a fault with a share strikes this time. */
bool driver_strikes(struct driver *driver, enum fault_kind kind, unsigned int gpu);

/* nvmlInit and nvmlShutdown, within a call: set up at the first, given back at the last. */
nvmlReturn_t driver_start(struct driver *driver);
nvmlReturn_t driver_stop(struct driver *driver);

#endif
