/* source_nvml.c - GPUs by NVML.
 *
 * What a GPU can answer is probed once (nvml_gpu.c). A field that answers NOT_SUPPORTED when probed is never polled,
 * one that fails later keeps its channel and its error.
 *
 * A GPU that is lost has a handle that no longer means anything, and after a reload of the driver all have. Each read
 * of such a GPU looks it up again by its UUID, and starts NVML again if that is what is missing. When it answers, a new
 * epoch begins: its counter may have started over while nobody looked. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvml_abi.h"
#include "nvml_gpu.h"
#include "nvml_library.h"
#include "nvml_processes.h"
#include "source.h"

enum { MAX_GPUS = 32, MAX_ALIASES = 8 * MAX_GPUS };

/* Several times what any card or module draws. Drivers have been seen to answer NVML_SUCCESS with megawatts. */
enum { MOST_MW = 10000000 };

struct nvml {
    struct nvml_library library;
    struct llmpower_device devices[MAX_GPUS];
    struct nvml_gpu gpus[MAX_GPUS];
    uint32_t epochs[MAX_GPUS];
    uint32_t count;
    struct device_alias aliases[MAX_ALIASES];
    uint32_t alias_count;
    struct llmpower_unopened unopened[MAX_GPUS];
    uint32_t unopened_count;
};

/* Whether the handle, or NVML itself, is no longer good. */
static bool means_lost(nvmlReturn_t code) {
    switch (code) {
        case NVML_ERROR_UNINITIALIZED:
        case NVML_ERROR_INVALID_ARGUMENT:
        case NVML_ERROR_NOT_FOUND:
        case NVML_ERROR_DRIVER_NOT_LOADED:
        case NVML_ERROR_GPU_IS_LOST:
        case NVML_ERROR_RESET_REQUIRED:
        case NVML_ERROR_LIB_RM_VERSION_MISMATCH: return true;
        default: return false;
    }
}

static nvmlReturn_t handle_of(const struct nvml *nvml, const char *wanted, nvmlDevice_t *handle) {
    if (nvml->library.handle_by_uuid) return nvml->library.handle_by_uuid(wanted, handle);
    unsigned int count = 0;
    nvmlReturn_t code = nvml->library.count(&count);
    for (unsigned int i = 0; code == NVML_SUCCESS && i < count; i++) {
        char uuid[96];
        if (nvml->library.handle_by_index(i, handle) == NVML_SUCCESS &&
            nvml->library.uuid(*handle, uuid, sizeof uuid) == NVML_SUCCESS && strcmp(uuid, wanted) == 0)
            return NVML_SUCCESS;
    }
    return code == NVML_SUCCESS ? NVML_ERROR_NOT_FOUND : code;
}

/* Get a handle for a lost GPU. */
static nvmlReturn_t find_again(struct nvml *nvml, uint32_t device) {
    nvmlReturn_t code = handle_of(nvml, nvml->devices[device].uuid, &nvml->gpus[device].handle);
    if (code != NVML_ERROR_UNINITIALIZED) return code;
    code = nvml->library.init();
    if (code != NVML_SUCCESS) return code;
    for (uint32_t i = 0; i < nvml->count; i++) nvml->gpus[i].lost = true; /* the handles of another life */
    return handle_of(nvml, nvml->devices[device].uuid, &nvml->gpus[device].handle);
}

static int32_t nvml_read(void *state, uint32_t device, uint32_t field, int64_t *value) {
    struct nvml *nvml = state;
    struct nvml_gpu *gpu = &nvml->gpus[device];
    int64_t milli = 0;
    nvmlReturn_t code = gpu->lost ? find_again(nvml, device) : NVML_SUCCESS;
    if (code == NVML_SUCCESS) code = nvml_gpu_read(&nvml->library, gpu, field, &milli);
    if (code != NVML_SUCCESS) {
        gpu->lost |= means_lost(code);
        return code;
    }
    if (gpu->lost) {
        gpu->lost = false;
        nvml->epochs[device]++;
    }
    if (milli < 0 || (field != LLMPOWER_ENERGY && milli > MOST_MW)) return LLMPOWER_WILD;
    *value = milli * 1000;
    return milli ? 0 : LLMPOWER_ZERO;
}

/* By a handle of its own: the one that is kept belongs to the thread that reads. */
static int32_t nvml_list_processes(void *state, uint32_t device, uint32_t *pids, uint32_t capacity, uint32_t *count) {
    struct nvml *nvml = state;
    nvmlDevice_t handle;
    nvmlReturn_t code = handle_of(nvml, nvml->devices[device].uuid, &handle);
    return code == NVML_SUCCESS ? nvml_processes(&nvml->library, handle, pids, capacity, count) : code;
}

/* The same. */
static int32_t nvml_power_limit(void *state, uint32_t device, int64_t *limit_uw) {
    struct nvml *nvml = state;
    nvmlDevice_t handle;
    unsigned int limit_mw = 0;
    if (!nvml->library.power_limit) return NVML_ERROR_FUNCTION_NOT_FOUND;
    nvmlReturn_t code = handle_of(nvml, nvml->devices[device].uuid, &handle);
    if (code == NVML_SUCCESS) code = nvml->library.power_limit(handle, &limit_mw);
    if (code != NVML_SUCCESS) return code;
    *limit_uw = (int64_t)limit_mw * 1000;
    return limit_mw ? 0 : LLMPOWER_ZERO;
}

/* By the call that current drivers want, or by the one that older ones have. */
static int32_t nvml_temperature(void *state, uint32_t device, int32_t *celsius) {
    struct nvml *nvml = state;
    nvmlDevice_t handle;
    nvmlTemperature_v1_t found = {.version = NVML_TEMPERATURE_V1};
    unsigned int older = 0;
    if (!nvml->library.temperature_v && !nvml->library.temperature) return NVML_ERROR_FUNCTION_NOT_FOUND;
    nvmlReturn_t code = handle_of(nvml, nvml->devices[device].uuid, &handle);
    if (code != NVML_SUCCESS) return code;
    if (nvml->library.temperature_v && nvml->library.temperature_v(handle, &found) == NVML_SUCCESS) {
        *celsius = found.temperature;
        return 0;
    }
    if (!nvml->library.temperature) return NVML_ERROR_NOT_SUPPORTED;
    code = nvml->library.temperature(handle, NVML_TEMPERATURE_GPU, &older);
    if (code == NVML_SUCCESS) *celsius = (int32_t)older;
    return code;
}

static void nvml_close(void *state, bool forked) {
    struct nvml *nvml = state;
    if (!forked) {
        nvml->library.shutdown();
        nvml_library_close(&nvml->library);
    }
    free(nvml);
}

/* The names of a GPU's MIG instances: a program that runs on one knows no other. */
static void list_aliases(struct nvml *nvml, uint32_t device) {
    unsigned int most = 0;
    nvmlDevice_t handle = nvml->gpus[device].handle, instance;
    if (!nvml->library.mig_count || !nvml->library.mig_by_index) return;
    if (nvml->library.mig_count(handle, &most) != NVML_SUCCESS) return;
    for (unsigned int i = 0; i < most && nvml->alias_count < MAX_ALIASES; i++) {
        struct device_alias *alias = &nvml->aliases[nvml->alias_count];
        alias->device = device;
        if (nvml->library.mig_by_index(handle, i, &instance) == NVML_SUCCESS &&
            nvml->library.uuid(instance, alias->uuid, sizeof alias->uuid) == NVML_SUCCESS)
            nvml->alias_count++;
    }
}

static int list_devices(struct nvml *nvml, char *error, size_t error_size) {
    unsigned int count = 0;
    char driver[96] = "";
    nvmlReturn_t code = nvml->library.count(&count);
    if (code != NVML_SUCCESS) {
        snprintf(error, error_size, "NVML cannot count its devices: %s", nvml->library.error_string(code));
        return LLMPOWER_DRIVER;
    }
    if (count > MAX_GPUS) {
        snprintf(error, error_size, "NVML reports %u GPUs; at most %d are sampled", count, MAX_GPUS);
        return LLMPOWER_TOO_MANY;
    }
    if (nvml->library.driver_version) nvml->library.driver_version(driver, sizeof driver);
    for (uint32_t i = 0; i < count; i++) {
        struct llmpower_device *info = &nvml->devices[nvml->count];
        struct nvml_gpu *gpu = &nvml->gpus[nvml->count];
        *info =
            (struct llmpower_device){.kind = LLMPOWER_GPU, .number = (int32_t)i, .simulated = nvml->library.simulated};
        memcpy(info->driver_version, driver, sizeof driver);
        /* A GPU that has fallen off the bus has a number but no handle, and so no UUID to be known by. */
        code = nvml->library.handle_by_index(i, &gpu->handle);
        if (code == NVML_SUCCESS) code = nvml->library.uuid(gpu->handle, info->uuid, sizeof info->uuid);
        /* A cgroup gives a job some of a node's cards; of the others there is nothing to say. */
        if (code == NVML_ERROR_NO_PERMISSION) continue;
        if (code != NVML_SUCCESS) {
            nvml->unopened[nvml->unopened_count++] = (struct llmpower_unopened){(int32_t)i, (int32_t)code};
            continue;
        }
        nvml->library.name(gpu->handle, info->name, sizeof info->name);
        nvmlPciInfo_t pci = {0};
        if (nvml->library.pci_info && nvml->library.pci_info(gpu->handle, &pci) == NVML_SUCCESS)
            memcpy(info->pci_bus_id, pci.busId, sizeof info->pci_bus_id - 1);
        info->fields = nvml_gpu_probe(&nvml->library, gpu, info->name);
        info->scope = (int32_t)gpu->scope;
        list_aliases(nvml, nvml->count);
        nvml->count++;
    }
    return 0;
}

int source_nvml_open(struct power_source *source, const char *path, char *error, size_t error_size) {
    struct nvml *nvml = calloc(1, sizeof *nvml);
    if (!nvml) {
        snprintf(error, error_size, "out of memory");
        return LLMPOWER_NO_MEMORY;
    }
    int failure = nvml_library_open(&nvml->library, path, error, error_size);
    if (failure) {
        free(nvml);
        return failure;
    }
    bool wrong = nvml->library.check_settings && nvml->library.check_settings(error, error_size) != NVML_SUCCESS;
    nvmlReturn_t code = wrong ? NVML_ERROR_INVALID_ARGUMENT : nvml->library.init();
    if (code != NVML_SUCCESS) {
        if (!wrong)
            snprintf(error, error_size, "nvmlInit answers '%s' (code %d)", nvml->library.error_string(code), code);
        nvml_library_close(&nvml->library);
        free(nvml);
        return LLMPOWER_DRIVER;
    }
    failure = list_devices(nvml, error, error_size);
    if (failure) {
        nvml_close(nvml, false);
        return failure;
    }
    *source = (struct power_source){.read = nvml_read,
                                    .processes = nvml_list_processes,
                                    .power_limit = nvml_power_limit,
                                    .temperature = nvml_temperature,
                                    .close = nvml_close,
                                    .state = nvml,
                                    .device_count = nvml->count,
                                    .devices = nvml->devices,
                                    .epochs = nvml->epochs,
                                    .alias_count = nvml->alias_count,
                                    .aliases = nvml->aliases,
                                    .unopened_count = nvml->unopened_count,
                                    .unopened = nvml->unopened};
    return 0;
}
