/* source.h - what a power source is: something with devices, each of which answers some fields.
 *
 * One backend, one file: source_nvml.c, source_powercap.c. To write another, fill this struct in a function like the
 * two below and call it in sampler.c. A source is used by one thread at a time, but where it says otherwise. */
#ifndef LLMPOWER_SOURCE_H
#define LLMPOWER_SOURCE_H

#include <stdbool.h>

#include "llmpower.h"

/* Another name of a device: a MIG instance, whose power only its parent can report. */
struct device_alias {
    char uuid[96];
    uint32_t device;
};

struct power_source {
    /* Read one field of one device (index within this source). Returns a status; *value in uJ or uW when it is 0. A
     * device that was lost is looked for again by the read itself: the caller only has to try now and then. */
    int32_t (*read)(void *state, uint32_t device, uint32_t field, int64_t *value);
    /* Who computes on a device now, see llmpower_processes; NULL where the source knows nothing of it. It may be called
     * while the source is read. */
    int32_t (*processes)(void *state, uint32_t device, uint32_t *pids, uint32_t capacity, uint32_t *count);
    /* Above which power a device slows itself down, see llmpower_power_limit; the same holds for it. */
    int32_t (*power_limit)(void *state, uint32_t device, int64_t *limit_uw);
    /* How warm it is, see llmpower_temperature; the same again. */
    int32_t (*temperature)(void *state, uint32_t device, int32_t *celsius);
    /* Give everything back. In a forked child, only what is the child's own: the driver's state is the parent's. */
    void (*close)(void *state, bool forked);
    void *state;
    uint32_t device_count;
    struct llmpower_device *devices; /* owned by the source, valid until close */
    /* For each device, how often it has come back from where its values cannot be compared. */
    const uint32_t *epochs;
    uint32_t alias_count;
    const struct device_alias *aliases;
    uint32_t unopened_count;
    const struct llmpower_unopened *unopened;
};

/* Both return 0 or an enum llmpower_failure, with one line in error; on failure nothing is left open. */
int source_nvml_open(struct power_source *source, const char *library, char *error, size_t error_size);
int source_powercap_open(struct power_source *source, const char *root, char *error, size_t error_size);

#endif
