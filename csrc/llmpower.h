/* llmpower.h - the whole C interface of the sampler, as plain declarations.
 *
 * C includes this file and cffi reads it (csrc/build.py drops the lines that begin with '#'), so the interface is
 * written once. It holds no macros, no inline code and nothing of the implementation.
 *
 * Values are integers in micro units: energy in microjoules, power in microwatts. Times are nanoseconds of
 * CLOCK_MONOTONIC. A status is 0 when the value is good, a positive NVML return code, a negative errno, or one of enum
 * llmpower_status.
 */
#ifndef LLMPOWER_H
#define LLMPOWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum llmpower_field {
    LLMPOWER_ENERGY = 1,        /* counter since some moment in the past, uJ */
    LLMPOWER_POWER_INSTANT = 2, /* the sensor's shortest window, uW */
    LLMPOWER_POWER_AVERAGE = 3  /* a sliding mean of about one second, uW */
};

enum llmpower_kind { LLMPOWER_GPU = 0, LLMPOWER_CPU_PACKAGE = 1, LLMPOWER_DRAM = 2 };

enum llmpower_status {
    /* No read but a mark: the device was lost and is back, its driver was reloaded, or the machine slept. Values before
     * and after it cannot be compared. It comes before the first good read of each field after the break, with field
     * set to that field, value 0, and both times those just before that read. */
    LLMPOWER_EPOCH = -100000,
    /* The device answered 0 for a counter or a power that cannot be 0 while it runs: a failed read. */
    LLMPOWER_ZERO = -100001,
    /* The device answered with a power beyond all devices, or a counter below 0: a failed read. */
    LLMPOWER_WILD = -100002
};

/* Why llmpower_open failed; the text that comes with it says more. */
enum llmpower_failure {
    LLMPOWER_NO_LIBRARY = 1,    /* the NVML library is not there */
    LLMPOWER_WRONG_LIBRARY = 2, /* it is not an NVML library, or lacks a function we cannot do without */
    LLMPOWER_DRIVER = 3,        /* it is one, and refuses to start */
    LLMPOWER_NO_MEMORY = 4,
    LLMPOWER_TOO_MANY = 5, /* more devices than the sampler keeps */
    LLMPOWER_THREAD = 6,   /* the sampling thread could not be started */
    LLMPOWER_FORKED = 7,   /* this process was forked from the one that opened the sampler */
    LLMPOWER_STUCK = 8     /* a read has not returned; the thread was left behind */
};

enum {
    LLMPOWER_MAX_DEVICES = 64,
    LLMPOWER_MAX_CHANNELS = 128,
    LLMPOWER_MAX_PROCESSES = 256,
    LLMPOWER_LATENESS_BUCKETS = 12,
    LLMPOWER_ERROR_SLOTS = 32,
    LLMPOWER_SLOW_READ_NS = 1000000 /* beyond it, on average, most reads come midway, see phase.c */
};

/* One read of one field of one device: kept whether it succeeded or not, and even if the value is the same again. */
struct llmpower_sample {
    int64_t before_ns; /* just before the call */
    int64_t after_ns;  /* just after it */
    int64_t value;     /* uJ or uW; meaningless unless status is 0 */
    int32_t status;
    uint16_t device;
    uint8_t field;
    uint8_t reserved;
};

struct llmpower_device {
    char uuid[96];
    char name[96];
    char driver_version[96];
    char pci_bus_id[32]; /* as the kernel's messages name it, with the domain in 8 digits; empty when not known */
    int32_t kind;        /* enum llmpower_kind */
    int32_t simulated;   /* 1 when the simulated NVML answers */
    uint32_t fields;     /* bit 1 << field for each field that the device can answer */
    int32_t number;      /* by which the driver and nvidia-smi call it; -1 where they do not */
    int32_t scope;       /* of its power: 0 the GPU, 1 the module that it is part of (GH200: with CPU and memory) */
};

/* A GPU that the driver counts and would not open, so that it is not sampled: fallen off the bus, for one. Those that
 * this process has no permission to open are none of them. */
struct llmpower_unopened {
    int32_t number; /* as in struct llmpower_device */
    int32_t status; /* why */
};

/* One (device, field) pair that the thread polls. */
struct llmpower_channel {
    uint32_t device;
    uint32_t field;
    int64_t requested_interval_ns;
    int64_t interval_ns; /* in effect; longer than requested when reads are expensive */
    uint64_t reads;
    uint64_t errors;
    int64_t latency_ns; /* smoothed time of one read */
    int32_t status;     /* of the latest read */
    /* What the value's updates look like. With a lock, reads come when the next update is due, and interval_ns is how
     * far apart they are on average, at most. */
    int32_t locked;
    int64_t period_ns;     /* 0 while unknown */
    int64_t jitter_ns;     /* of updates about the predicted time; 0 without a lock */
    int64_t edge_width_ns; /* between the reads that an update lay between, smoothed; 0 while none was seen */
    /* When the latest read came back, and when the one that has not yet come back began; 0 when there is none. A call
     * that hangs shows here, and only here: reading these never waits. */
    int64_t last_read_ns;
    int64_t in_call_since_ns;
};

struct llmpower_error_count {
    uint32_t kind; /* enum llmpower_kind of the device */
    int32_t status;
    uint64_t count;
};

struct llmpower_statistics {
    uint64_t samples;      /* pushed into the ring */
    uint64_t dropped;      /* lost because the ring was full */
    uint64_t ticks;        /* deadlines served */
    uint64_t missed_ticks; /* deadlines passed over because the thread was late by whole intervals */
    int64_t read_ns;       /* wall time inside reads */
    int64_t running_ns;    /* wall time since start */
    int64_t cpu_ns;        /* CPU time of the threads */
    int64_t lateness_sum_ns;
    uint64_t lateness[LLMPOWER_LATENESS_BUCKETS]; /* counts up to each bound of llmpower_lateness_bounds_ns, not
                                                     cumulative; the last has none */
    uint32_t error_count;
    struct llmpower_error_count errors[LLMPOWER_ERROR_SLOTS];
};

struct llmpower_options {
    const char *nvml_library;  /* path or soname for dlopen; NULL: no GPUs */
    const char *powercap_root; /* such as /sys/class/powercap; NULL: no CPU packages */
    int64_t power_interval_ns;
    int64_t energy_interval_ns;
    int64_t powercap_interval_ns;
    double max_read_share;  /* of wall time that may pass inside reads; intervals stretch to keep it */
    uint32_t ring_capacity; /* samples of GPUs; rounded up to a power of two */
};

struct llmpower_sampler;

/* Open the power sources and list their devices. On success *sampler is set and 0 returned; otherwise an enum
 * llmpower_failure, with one line of explanation in error. A powercap root that does not exist has no devices and is
 * no failure. */
int llmpower_open(const struct llmpower_options *options, struct llmpower_sampler **sampler, char *error,
                  size_t error_size);

uint32_t llmpower_device_count(const struct llmpower_sampler *sampler);
const struct llmpower_device *llmpower_device_at(const struct llmpower_sampler *sampler, uint32_t index);

/* The GPUs that could not be opened, one by one; NULL beyond the last. */
const struct llmpower_unopened *llmpower_unopened_at(const struct llmpower_sampler *sampler, uint32_t index);

/* Index of the device whose power a UUID stands for: its own, or the parent's of a MIG instance (MIG-...) that was
 * there when the sampler was opened; -1 for one that is not known. Instances have no power of their own. */
int32_t llmpower_device_of(const struct llmpower_sampler *sampler, const char *uuid);

/* Ids of the processes that compute on a device now, as its driver knows them: those of the machine, whatever container
 * they run in. At most LLMPOWER_MAX_PROCESSES are written to pids, a process on several MIG instances more than once.
 * Returns a status; *count is set when it is 0. It takes milliseconds, during which other calls of the driver wait, and
 * as long as the driver hangs. It may be called beside everything else, by one thread at a time. */
int32_t llmpower_processes(struct llmpower_sampler *sampler, uint32_t device, uint32_t *pids, uint32_t *count);

/* The power in uW above which a device slows itself down now, whoever has set that. Returns a status; *limit_uw is set
 * when it is 0. What is said of llmpower_processes holds here too. */
int32_t llmpower_power_limit(struct llmpower_sampler *sampler, uint32_t device, int64_t *limit_uw);

/* How warm a GPU's die is now, in whole degrees Celsius. Returns a status; *celsius is set when it is 0. What is said
 * of llmpower_processes holds here too. */
int32_t llmpower_temperature(struct llmpower_sampler *sampler, uint32_t device, int32_t *celsius);

/* Start or stop the threads, one for each source; both may be repeated, by any thread. Return 0 or an enum
 * llmpower_failure. */
int llmpower_start(struct llmpower_sampler *sampler);
int llmpower_stop(struct llmpower_sampler *sampler);

/* While resting, energy is read four times less often and may cost a quarter of its share of wall time, and power that
 * only people look at is read 4 times a second at most; at its end everything is read at once. */
void llmpower_rest(struct llmpower_sampler *sampler, bool resting);

/* Move up to capacity samples out of the rings, those of one device oldest first. One thread at a time may drain.
 * Returns how many. */
size_t llmpower_drain(struct llmpower_sampler *sampler, struct llmpower_sample *out, size_t capacity);

void llmpower_read_statistics(const struct llmpower_sampler *sampler, struct llmpower_statistics *out);
uint32_t llmpower_read_channels(const struct llmpower_sampler *sampler, struct llmpower_channel *out,
                                uint32_t capacity);

/* Upper bounds of the lateness histogram; LLMPOWER_LATENESS_BUCKETS - 1 of them. */
const int64_t *llmpower_lateness_bounds_ns(void);

/* Stop, close the sources, free: the last call, which none of the others may outlast. In a forked child it frees memory
 * and touches neither thread nor driver. */
void llmpower_close(struct llmpower_sampler *sampler);

int64_t llmpower_monotonic_ns(void);

#endif
