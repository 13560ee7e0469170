/* nvml_processes.c - who computes on the simulated cards: whoever a file says does.
 *
 * LLMPOWER_SIM_PROCESSES names it: one "GPU PID" per line, the GPU by its number. It is read again at each call, so
 * processes come and go while the simulation runs; without a file, or before it is there, nobody computes. Graphics and
 * MPS know nobody. The layouts differ as NVML's do. */
#include <stdio.h>
#include <string.h>

#include "driver.h"

static const unsigned long long USED_BYTES = 1ull << 30;
static const unsigned int NO_INSTANCE = 0xffffffff;

/* The ids of those on a GPU, at most capacity of them; returns how many there are. */
static unsigned int read_pids(const char *path, unsigned int gpu, unsigned int *pids, unsigned int capacity) {
    unsigned int count = 0, on, pid;
    FILE *file = *path ? fopen(path, "re") : NULL;
    if (!file) return 0;
    while (fscanf(file, "%u %u", &on, &pid) == 2) {
        if (on != gpu) continue;
        if (count < capacity) pids[count] = pid;
        count++;
    }
    fclose(file);
    return count;
}

enum { MAX_LISTED = 1024 };

/* What every list of processes answers: with too little room, how much is needed. */
static nvmlReturn_t list(nvmlDevice_t device, unsigned int *count, unsigned int *pids) {
    struct driver *driver = driver_enter(CALL_PROCESSES);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    if (!count) return driver_leave(NVML_ERROR_INVALID_ARGUMENT);
    if (faults_has(&driver->faults, FAULT_NO_PROCESSES, device->index)) return driver_leave(NVML_ERROR_NOT_SUPPORTED);
    unsigned int room = *count < MAX_LISTED ? *count : MAX_LISTED;
    *count = read_pids(driver->processes, device->index, pids, room);
    return driver_leave(*count > room ? NVML_ERROR_INSUFFICIENT_SIZE : NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                         nvmlProcessInfo_v1_t *processes) {
    unsigned int pids[MAX_LISTED];
    nvmlReturn_t code = list(device, count, pids);
    for (unsigned int i = 0; code == NVML_SUCCESS && i < *count; i++)
        processes[i] = (nvmlProcessInfo_v1_t){pids[i], USED_BYTES};
    return code;
}

static nvmlReturn_t list_v2(nvmlDevice_t device, unsigned int *count, nvmlProcessInfo_v2_t *processes) {
    unsigned int pids[MAX_LISTED];
    nvmlReturn_t code = list(device, count, pids);
    for (unsigned int i = 0; code == NVML_SUCCESS && i < *count; i++)
        processes[i] = (nvmlProcessInfo_v2_t){pids[i], USED_BYTES, NO_INSTANCE, NO_INSTANCE};
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                            nvmlProcessInfo_v2_t *processes) {
    return list_v2(device, count, processes);
}

/* What R535 made of it. */
typedef struct {
    nvmlProcessInfo_v2_t process;
    unsigned long long usedGpuCcProtectedMemory;
} wide_process;

EXPORT nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count, void *processes) {
    const struct driver *driver = driver_look();
    bool wide = faults_has(&driver->faults, FAULT_WIDE_PROCESSES, 0);
    driver_look_away();
    nvmlReturn_t code = list_v2(device, count, processes);
    if (!wide || code != NVML_SUCCESS) return code;
    const nvmlProcessInfo_v2_t *narrow = processes;
    /* From the last to the first, over themselves. */
    for (unsigned int i = *count; i-- > 0;) {
        wide_process one = {narrow[i], 0};
        memcpy((wide_process *)processes + i, &one, sizeof one);
    }
    return code;
}

static nvmlReturn_t nobody(nvmlDevice_t device, unsigned int *count) {
    nvmlReturn_t code = driver_check(driver_enter(CALL_PROCESSES), device);
    if (code == NVML_SUCCESS) *count = 0;
    return driver_leave(code);
}

#define NOBODY(name)                                                                      \
    EXPORT nvmlReturn_t name(nvmlDevice_t device, unsigned int *count, void *processes) { \
        (void)processes;                                                                  \
        return nobody(device, count);                                                     \
    }
NOBODY(nvmlDeviceGetGraphicsRunningProcesses)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v2)
NOBODY(nvmlDeviceGetGraphicsRunningProcesses_v3)
NOBODY(nvmlDeviceGetMPSComputeRunningProcesses_v3)

EXPORT nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device, void *samples, unsigned int *count,
                                                    unsigned long long last_seen_us) {
    (void)samples, (void)last_seen_us;
    nvmlReturn_t code = nobody(device, count);
    return code == NVML_SUCCESS ? NVML_ERROR_NOT_FOUND : code;
}
