/* source_nvml.c - GPUs by NVML, loaded with dlopen so that nothing is needed to build or to start without a driver.
 *
 * What a device can answer is probed once, here; afterwards a read is one call. Absent is told from failed: a field
 * that answers NOT_SUPPORTED when probed is never polled, one that fails later keeps its channel and its error. */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nvml_abi.h"
#include "source.h"

enum { MAX_GPUS = 32 };

struct nvml {
    void *library;
    nvmlReturn_t (*shutdown)(void);
    const char *(*error_string)(nvmlReturn_t);
    nvmlReturn_t (*count)(unsigned int *);
    nvmlReturn_t (*handle_by_index)(unsigned int, nvmlDevice_t *);
    nvmlReturn_t (*name)(nvmlDevice_t, char *, unsigned int);
    nvmlReturn_t (*uuid)(nvmlDevice_t, char *, unsigned int);
    /* May be absent in old drivers; then NULL. */
    nvmlReturn_t (*driver_version)(char *, unsigned int);
    nvmlReturn_t (*architecture)(nvmlDevice_t, unsigned int *);
    nvmlReturn_t (*energy)(nvmlDevice_t, unsigned long long *);
    nvmlReturn_t (*power)(nvmlDevice_t, unsigned int *);
    nvmlReturn_t (*field_values)(nvmlDevice_t, int, nvmlFieldValue_t *);

    struct llmpower_device devices[MAX_GPUS];
    nvmlDevice_t handles[MAX_GPUS];
    bool power_by_field[MAX_GPUS]; /* field 186 answers; otherwise nvmlDeviceGetPowerUsage is asked */
};

static bool bind(struct nvml *nvml, const char *name, void *slot) {
    void *symbol = dlsym(nvml->library, name);
    /* ISO C has no cast from object to function pointer; POSIX promises that the bytes are the same. */
    memcpy(slot, &symbol, sizeof symbol);
    return symbol != NULL;
}

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

static nvmlReturn_t read_field(const struct nvml *nvml, nvmlDevice_t handle, uint32_t id, int64_t *value) {
    nvmlFieldValue_t field = {.fieldId = id};
    nvmlReturn_t code = nvml->field_values(handle, 1, &field);
    if (code != NVML_SUCCESS) return code;
    if (field.nvmlReturn != NVML_SUCCESS) return field.nvmlReturn; /* each field fails on its own */
    int64_t integer = value_as_integer(&field);
    if (integer < 0) return NVML_ERROR_UNKNOWN;
    *value = integer;
    return NVML_SUCCESS;
}

static int32_t nvml_read(void *state, uint32_t device, uint32_t field, int64_t *value) {
    const struct nvml *nvml = state;
    nvmlDevice_t handle = nvml->handles[device];
    nvmlReturn_t code;
    int64_t milli = 0;
    if (field == LLMPOWER_ENERGY) {
        unsigned long long energy_mj = 0;
        code = nvml->energy(handle, &energy_mj);
        milli = (int64_t)energy_mj;
    } else if (field == LLMPOWER_POWER_INSTANT && nvml->power_by_field[device]) {
        code = read_field(nvml, handle, NVML_FI_DEV_POWER_INSTANT, &milli);
    } else {
        unsigned int power_mw = 0;
        code = nvml->power(handle, &power_mw);
        milli = (int64_t)power_mw;
    }
    *value = milli * 1000;
    return code;
}

static void nvml_close(void *state, bool forked) {
    struct nvml *nvml = state;
    if (!forked) {
        nvml->shutdown();
        dlclose(nvml->library);
    }
    free(nvml);
}

/* nvmlDeviceGetPowerUsage is a mean of one second on Ampere and newer, except GA100 (A100, A30); before that, and
 * there, it is the sensor's own window. Without the architecture call (old drivers) the card is old as well. */
static bool power_usage_is_instant(const struct nvml *nvml, uint32_t device) {
    unsigned int architecture = 0;
    const char *name = nvml->devices[device].name;
    if (!nvml->architecture || nvml->architecture(nvml->handles[device], &architecture) != NVML_SUCCESS) return true;
    return architecture < NVML_DEVICE_ARCH_AMPERE || strstr(name, "A100") || strstr(name, "A30");
}

static void probe_fields(struct nvml *nvml, uint32_t device) {
    struct llmpower_device *info = &nvml->devices[device];
    nvmlDevice_t handle = nvml->handles[device];
    unsigned long long energy_mj;
    unsigned int power_mw;
    int64_t field_mw;
    if (nvml->energy && nvml->energy(handle, &energy_mj) != NVML_ERROR_NOT_SUPPORTED)
        info->fields |= 1u << LLMPOWER_ENERGY;
    if (nvml->field_values && read_field(nvml, handle, NVML_FI_DEV_POWER_INSTANT, &field_mw) == NVML_SUCCESS) {
        nvml->power_by_field[device] = true;
        info->fields |= 1u << LLMPOWER_POWER_INSTANT;
    } else if (nvml->power && nvml->power(handle, &power_mw) != NVML_ERROR_NOT_SUPPORTED) {
        info->fields |= 1u << (power_usage_is_instant(nvml, device) ? LLMPOWER_POWER_INSTANT : LLMPOWER_POWER_AVERAGE);
    }
}

static int list_devices(struct nvml *nvml, uint32_t *device_count, char *error, size_t error_size) {
    unsigned int count = 0;
    char driver[96] = "";
    nvmlReturn_t code = nvml->count(&count);
    if (code != NVML_SUCCESS) {
        snprintf(error, error_size, "NVML cannot count its devices: %s", nvml->error_string(code));
        return LLMPOWER_DRIVER;
    }
    if (count > MAX_GPUS) {
        snprintf(error, error_size, "NVML reports %u GPUs; at most %d are sampled", count, MAX_GPUS);
        return LLMPOWER_TOO_MANY;
    }
    if (nvml->driver_version) nvml->driver_version(driver, sizeof driver);
    for (uint32_t i = 0; i < count; i++) {
        struct llmpower_device *info = &nvml->devices[*device_count];
        *info = (struct llmpower_device){.kind = LLMPOWER_GPU};
        info->simulated = dlsym(nvml->library, "llmpowerSimTrueEnergy") != NULL;
        memcpy(info->driver_version, driver, sizeof driver);
        /* A GPU that has fallen off the bus has a number but no handle; it has no UUID to be known by, so pass on. */
        if (nvml->handle_by_index(i, &nvml->handles[*device_count]) != NVML_SUCCESS) continue;
        if (nvml->uuid(nvml->handles[*device_count], info->uuid, sizeof info->uuid) != NVML_SUCCESS) continue;
        nvml->name(nvml->handles[*device_count], info->name, sizeof info->name);
        probe_fields(nvml, *device_count);
        (*device_count)++;
    }
    return 0;
}

int source_nvml_open(struct power_source *source, const char *path, char *error, size_t error_size) {
    struct nvml *nvml = calloc(1, sizeof *nvml);
    if (!nvml) {
        snprintf(error, error_size, "out of memory");
        return LLMPOWER_NO_MEMORY;
    }
    nvml->library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!nvml->library) {
        const char *reason = dlerror();
        snprintf(error, error_size, "%s", reason);
        free(nvml);
        /* A file that is there and cannot be loaded is the wrong one; glibc says which it was only in words. */
        return strstr(reason, "No such file") ? LLMPOWER_NO_LIBRARY : LLMPOWER_WRONG_LIBRARY;
    }
    nvmlReturn_t (*init)(void) = NULL;
    bool whole = bind(nvml, "nvmlInit_v2", &init) && bind(nvml, "nvmlShutdown", &nvml->shutdown) &&
                 bind(nvml, "nvmlErrorString", &nvml->error_string) &&
                 bind(nvml, "nvmlDeviceGetCount_v2", &nvml->count) &&
                 bind(nvml, "nvmlDeviceGetHandleByIndex_v2", &nvml->handle_by_index) &&
                 bind(nvml, "nvmlDeviceGetName", &nvml->name) && bind(nvml, "nvmlDeviceGetUUID", &nvml->uuid);
    if (!whole) {
        snprintf(error, error_size, "it lacks a function that every NVML has (%s)", dlerror());
        dlclose(nvml->library);
        free(nvml);
        return LLMPOWER_WRONG_LIBRARY;
    }
    bind(nvml, "nvmlSystemGetDriverVersion", &nvml->driver_version);
    bind(nvml, "nvmlDeviceGetArchitecture", &nvml->architecture);
    bind(nvml, "nvmlDeviceGetTotalEnergyConsumption", &nvml->energy);
    bind(nvml, "nvmlDeviceGetPowerUsage", &nvml->power);
    bind(nvml, "nvmlDeviceGetFieldValues", &nvml->field_values);

    nvmlReturn_t code = init();
    if (code != NVML_SUCCESS) {
        snprintf(error, error_size, "nvmlInit answers '%s' (code %d)", nvml->error_string(code), code);
        dlclose(nvml->library);
        free(nvml);
        return LLMPOWER_DRIVER;
    }
    uint32_t device_count = 0;
    int failure = list_devices(nvml, &device_count, error, error_size);
    if (failure) {
        nvml_close(nvml, false);
        return failure;
    }
    *source = (struct power_source){nvml_read, nvml_close, nvml, device_count, nvml->devices};
    return 0;
}
