/* source_nvml.c - GPUs by NVML.
 *
 * What a device can answer is probed once, here; afterwards a read is one call. Absent is told from failed: a field
 * that answers NOT_SUPPORTED when probed is never polled, one that fails later keeps its channel and its error.
 *
 * A GPU that is lost has a handle that no longer means anything, and after a reload of the driver all have. Each read
 * of such a GPU looks it up again by its UUID, and starts NVML again if that is what is missing. When it answers, a new
 * epoch begins: its counter may have started anew while nobody looked. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvml_abi.h"
#include "nvml_library.h"
#include "nvml_processes.h"
#include "source.h"

enum { MAX_GPUS = 32, MAX_ALIASES = 8 * MAX_GPUS, MAX_TRIES = 8 };

enum power_call { BY_USAGE, BY_FIELD };

struct gpu {
    nvmlDevice_t handle;
    bool lost;
    bool energy_by_field;       /* nvmlDeviceGetTotalEnergyConsumption does not answer, field 83 does */
    enum power_call power_call; /* for the power that is sampled */
};

struct nvml {
    struct nvml_library library;
    struct llmpower_device devices[MAX_GPUS];
    struct gpu gpus[MAX_GPUS];
    uint32_t epochs[MAX_GPUS];
    uint32_t count;
    struct device_alias aliases[MAX_ALIASES];
    uint32_t alias_count;
};

/* --- Reading ---------------------------------------------------------------------------------------------------- */

/* The integer in an NVML value, whatever type the driver chose today; -1 for a type that we do not know. */
static int64_t value_as_integer(const nvmlFieldValue_t *field) {
    switch (field->valueType) {
        case NVML_VALUE_TYPE_DOUBLE: return (int64_t)field->value.dVal;
        case NVML_VALUE_TYPE_UNSIGNED_INT: return (int64_t)field->value.uiVal;
        case NVML_VALUE_TYPE_UNSIGNED_LONG: return (int64_t)field->value.ulVal;
        case NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: return (int64_t)field->value.ullVal;
        case NVML_VALUE_TYPE_SIGNED_LONG_LONG: return (int64_t)field->value.sllVal;
        case NVML_VALUE_TYPE_SIGNED_INT: return (int64_t)field->value.siVal;
        case NVML_VALUE_TYPE_UNSIGNED_SHORT: return (int64_t)field->value.usVal;
        default: return -1;
    }
}

static nvmlReturn_t read_field(const struct nvml *nvml, nvmlDevice_t handle, uint32_t id, uint32_t scope,
                               int64_t *value) {
    nvmlFieldValue_t field = {.fieldId = id, .scopeId = scope};
    nvmlReturn_t code = nvml->library.field_values(handle, 1, &field);
    if (code != NVML_SUCCESS) return code;
    if (field.nvmlReturn != NVML_SUCCESS) return field.nvmlReturn; /* each field fails on its own */
    int64_t integer = value_as_integer(&field);
    if (integer < 0) return NVML_ERROR_UNKNOWN;
    *value = integer;
    return NVML_SUCCESS;
}

static nvmlReturn_t read_energy(const struct nvml *nvml, uint32_t device, int64_t *energy_mj) {
    nvmlDevice_t handle = nvml->gpus[device].handle;
    if (nvml->gpus[device].energy_by_field)
        return read_field(nvml, handle, NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 0, energy_mj);
    unsigned long long value = 0;
    nvmlReturn_t code = nvml->library.energy(handle, &value);
    *energy_mj = (int64_t)value;
    return code;
}

static nvmlReturn_t read_power(const struct nvml *nvml, uint32_t device, uint32_t field, int64_t *power_mw) {
    const struct gpu *gpu = &nvml->gpus[device];
    if (gpu->power_call == BY_FIELD) {
        uint32_t id = field == LLMPOWER_POWER_INSTANT ? NVML_FI_DEV_POWER_INSTANT : NVML_FI_DEV_POWER_AVERAGE;
        return read_field(nvml, gpu->handle, id, (uint32_t)nvml->devices[device].scope, power_mw);
    }
    unsigned int value = 0;
    nvmlReturn_t code = nvml->library.power(gpu->handle, &value);
    *power_mw = value;
    return code;
}

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
    struct gpu *gpu = &nvml->gpus[device];
    int64_t milli = 0;
    nvmlReturn_t code = gpu->lost ? find_again(nvml, device) : NVML_SUCCESS;
    if (code == NVML_SUCCESS)
        code = field == LLMPOWER_ENERGY ? read_energy(nvml, device, &milli) : read_power(nvml, device, field, &milli);
    if (code != NVML_SUCCESS) {
        gpu->lost |= means_lost(code);
        return code;
    }
    if (gpu->lost) {
        gpu->lost = false;
        nvml->epochs[device]++;
    }
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

/* --- Probing ---------------------------------------------------------------------------------------------------- */

/* nvmlDeviceGetPowerUsage is a mean of one second on Ampere and newer, except GA100 (A100, A30); before that, and
 * there, it is the sensor's own window. Without the architecture call (old drivers) the card is old as well. */
static bool power_usage_is_instant(const struct nvml *nvml, uint32_t device) {
    unsigned int architecture = 0;
    const char *name = nvml->devices[device].name;
    if (!nvml->library.architecture ||
        nvml->library.architecture(nvml->gpus[device].handle, &architecture) != NVML_SUCCESS)
        return true;
    return architecture < NVML_DEVICE_ARCH_AMPERE || strstr(name, "A100") || strstr(name, "A30");
}

/* Whether a call is supported: one that fails for another reason may answer later. NOT_SUPPORTED is asked again, since
 * drivers have been seen to give it now and then for what they do support. */
static bool supported(const struct nvml *nvml, uint32_t device, uint32_t field) {
    for (int i = 0; i < MAX_TRIES; i++) {
        int64_t value;
        nvmlReturn_t code =
            field == LLMPOWER_ENERGY ? read_energy(nvml, device, &value) : read_power(nvml, device, field, &value);
        if (code != NVML_ERROR_NOT_SUPPORTED) return code != NVML_ERROR_INVALID_ARGUMENT;
    }
    return false;
}

/* Fields are asked for the GPU first; where that fails (GH200), for its module. */
static bool power_by_field(struct nvml *nvml, uint32_t device) {
    if (!nvml->library.field_values) return false;
    for (uint32_t scope = 0; scope <= 1; scope++) {
        for (int i = 0; i < MAX_TRIES; i++) {
            int64_t value;
            if (read_field(nvml, nvml->gpus[device].handle, NVML_FI_DEV_POWER_INSTANT, scope, &value)) continue;
            nvml->gpus[device].power_call = BY_FIELD;
            nvml->devices[device].scope = (int32_t)scope;
            return true;
        }
    }
    return false;
}

static void probe_fields(struct nvml *nvml, uint32_t device) {
    struct llmpower_device *info = &nvml->devices[device];
    struct gpu *gpu = &nvml->gpus[device];
    bool energy = nvml->library.energy && supported(nvml, device, LLMPOWER_ENERGY);
    if (!energy && nvml->library.field_values) {
        gpu->energy_by_field = true;
        energy = supported(nvml, device, LLMPOWER_ENERGY);
    }
    if (energy) info->fields |= 1u << LLMPOWER_ENERGY;
    if (power_by_field(nvml, device))
        info->fields |= 1u << LLMPOWER_POWER_INSTANT;
    else if (nvml->library.power && supported(nvml, device, LLMPOWER_POWER_INSTANT))
        info->fields |= 1u << (power_usage_is_instant(nvml, device) ? LLMPOWER_POWER_INSTANT : LLMPOWER_POWER_AVERAGE);
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
        nvmlDevice_t *handle = &nvml->gpus[nvml->count].handle;
        *info = (struct llmpower_device){.kind = LLMPOWER_GPU, .simulated = nvml->library.simulated};
        memcpy(info->driver_version, driver, sizeof driver);
        /* A GPU that has fallen off the bus has a number but no handle; it has no UUID to be known by, so pass on. */
        if (nvml->library.handle_by_index(i, handle) != NVML_SUCCESS) continue;
        if (nvml->library.uuid(*handle, info->uuid, sizeof info->uuid) != NVML_SUCCESS) continue;
        nvml->library.name(*handle, info->name, sizeof info->name);
        nvmlPciInfo_t pci = {0};
        if (nvml->library.pci_info && nvml->library.pci_info(*handle, &pci) == NVML_SUCCESS)
            memcpy(info->pci_bus_id, pci.busId, sizeof info->pci_bus_id - 1);
        probe_fields(nvml, nvml->count);
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
    nvmlReturn_t code = nvml->library.init();
    if (code != NVML_SUCCESS) {
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
                                    .aliases = nvml->aliases};
    return 0;
}
