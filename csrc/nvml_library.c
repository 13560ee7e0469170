/* nvml_library.c - see nvml_library.h. Loaded with dlopen, so that nothing is needed to build or to start without a
 * driver. */
#include "nvml_library.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "llmpower.h"

static bool bind(const struct nvml_library *library, const char *name, void *slot) {
    void *symbol = dlsym(library->handle, name);
    /* ISO C has no cast from object to function pointer; POSIX promises that the bytes are the same. */
    memcpy(slot, &symbol, sizeof symbol);
    return symbol != NULL;
}

int nvml_library_open(struct nvml_library *library, const char *path, char *error, size_t error_size) {
    *library = (struct nvml_library){.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL)};
    if (!library->handle) {
        const char *reason = dlerror();
        snprintf(error, error_size, "%s", reason);
        /* A file that is there and cannot be loaded is the wrong one; glibc says which it was only in words. */
        bool absent = strstr(reason, "No such file") || strstr(reason, "Not a directory");
        return absent ? LLMPOWER_NO_LIBRARY : LLMPOWER_WRONG_LIBRARY;
    }
    bool whole = bind(library, "nvmlInit_v2", &library->init) && bind(library, "nvmlShutdown", &library->shutdown) &&
                 bind(library, "nvmlErrorString", &library->error_string) &&
                 bind(library, "nvmlDeviceGetCount_v2", &library->count) &&
                 bind(library, "nvmlDeviceGetHandleByIndex_v2", &library->handle_by_index) &&
                 bind(library, "nvmlDeviceGetName", &library->name) &&
                 bind(library, "nvmlDeviceGetUUID", &library->uuid);
    if (!whole) {
        snprintf(error, error_size, "it lacks a function that every NVML has (%s)", dlerror());
        nvml_library_close(library);
        return LLMPOWER_WRONG_LIBRARY;
    }
    library->simulated = dlsym(library->handle, "llmpowerSimTrueEnergy") != NULL;
    bind(library, "llmpowerSimCheckSettings", &library->check_settings);
    bind(library, "nvmlDeviceGetHandleByUUID", &library->handle_by_uuid);
    bind(library, "nvmlSystemGetDriverVersion", &library->driver_version);
    bind(library, "nvmlDeviceGetPciInfo_v3", &library->pci_info);
    bind(library, "nvmlDeviceGetArchitecture", &library->architecture);
    bind(library, "nvmlDeviceGetTotalEnergyConsumption", &library->energy);
    bind(library, "nvmlDeviceGetPowerUsage", &library->power);
    bind(library, "nvmlDeviceGetFieldValues", &library->field_values);
    bind(library, "nvmlDeviceGetMaxMigDeviceCount", &library->mig_count);
    bind(library, "nvmlDeviceGetMigDeviceHandleByIndex", &library->mig_by_index);
    bind(library, "nvmlDeviceGetEnforcedPowerLimit", &library->power_limit);
    bind(library, "nvmlDeviceGetTemperature", &library->temperature);
    bind(library, "nvmlDeviceGetTemperatureV", &library->temperature_v);
    if (!bind(library, "nvmlDeviceGetComputeRunningProcesses_v3", &library->processes) &&
        !bind(library, "nvmlDeviceGetComputeRunningProcesses_v2", &library->processes))
        bind(library, "nvmlDeviceGetComputeRunningProcesses", &library->processes);
    return 0;
}

void nvml_library_close(struct nvml_library *library) { dlclose(library->handle); }
