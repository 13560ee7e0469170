/* nvml_gpu.c - see nvml_gpu.h. */
#include "nvml_gpu.h"

#include <ctype.h>
#include <string.h>

#include "llmpower.h"

enum { MAX_TRIES = 8 };

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

static nvmlReturn_t read_field(const struct nvml_library *library, nvmlDevice_t handle, uint32_t id, uint32_t scope,
                               int64_t *value) {
    nvmlFieldValue_t field = {.fieldId = id, .scopeId = scope};
    nvmlReturn_t code = library->field_values(handle, 1, &field);
    if (code != NVML_SUCCESS) return code;
    if (field.nvmlReturn != NVML_SUCCESS) return field.nvmlReturn; /* each field fails on its own */
    int64_t integer = value_as_integer(&field);
    if (integer < 0) return NVML_ERROR_UNKNOWN;
    *value = integer;
    return NVML_SUCCESS;
}

static nvmlReturn_t read_energy(const struct nvml_library *library, const struct nvml_gpu *gpu, int64_t *energy_mj) {
    if (gpu->energy_by_field)
        return read_field(library, gpu->handle, NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION, 0, energy_mj);
    unsigned long long value = 0;
    nvmlReturn_t code = library->energy(gpu->handle, &value);
    *energy_mj = (int64_t)value;
    return code;
}

static nvmlReturn_t read_power(const struct nvml_library *library, const struct nvml_gpu *gpu, uint32_t field,
                               int64_t *power_mw) {
    if (gpu->power_by_field) {
        uint32_t id = field == LLMPOWER_POWER_INSTANT ? NVML_FI_DEV_POWER_INSTANT : NVML_FI_DEV_POWER_AVERAGE;
        return read_field(library, gpu->handle, id, gpu->scope, power_mw);
    }
    unsigned int value = 0;
    nvmlReturn_t code = library->power(gpu->handle, &value);
    *power_mw = value;
    return code;
}

nvmlReturn_t nvml_gpu_read(const struct nvml_library *library, const struct nvml_gpu *gpu, uint32_t field,
                           int64_t *milli) {
    return field == LLMPOWER_ENERGY ? read_energy(library, gpu, milli) : read_power(library, gpu, field, milli);
}

/* Whether a card is of this model, or of one with letters behind it: an A100 and an A100X, and not an RTX A1000. */
static bool is_model(const char *name, const char *model) {
    const char *found = strstr(name, model);
    return found && !isdigit((unsigned char)found[strlen(model)]);
}

/* nvmlDeviceGetPowerUsage is a mean of one second on Ampere and newer, except GA100 (A100, A800, A30); before that, and
 * there, it is the sensor's own window. Without the architecture call (old drivers) the card is old as well. */
static bool power_usage_is_instant(const struct nvml_library *library, nvmlDevice_t handle, const char *name) {
    unsigned int architecture = 0;
    if (!library->architecture || library->architecture(handle, &architecture) != NVML_SUCCESS) return true;
    return architecture < NVML_DEVICE_ARCH_AMPERE || is_model(name, "A100") || is_model(name, "A800") ||
           is_model(name, "A30");
}

/* Whether a call is supported: one that fails for another reason may answer later. NOT_SUPPORTED is asked again, since
 * drivers have been seen to give it now and then for what they do support. */
static bool supported(const struct nvml_library *library, const struct nvml_gpu *gpu, uint32_t field) {
    for (int i = 0; i < MAX_TRIES; i++) {
        int64_t value;
        nvmlReturn_t code = nvml_gpu_read(library, gpu, field, &value);
        if (code != NVML_ERROR_NOT_SUPPORTED) return code != NVML_ERROR_INVALID_ARGUMENT;
    }
    return false;
}

/* Fields are asked for the GPU first; where that fails (GH200), for its module. */
static bool power_by_field(const struct nvml_library *library, struct nvml_gpu *gpu) {
    if (!library->field_values) return false;
    for (uint32_t scope = 0; scope <= 1; scope++) {
        for (int i = 0; i < MAX_TRIES; i++) {
            int64_t value;
            if (read_field(library, gpu->handle, NVML_FI_DEV_POWER_INSTANT, scope, &value)) continue;
            gpu->power_by_field = true;
            gpu->scope = scope;
            return true;
        }
    }
    return false;
}

uint32_t nvml_gpu_probe(const struct nvml_library *library, struct nvml_gpu *gpu, const char *name) {
    uint32_t fields = 0;
    bool energy = library->energy && supported(library, gpu, LLMPOWER_ENERGY);
    if (!energy && library->field_values) {
        gpu->energy_by_field = true;
        energy = supported(library, gpu, LLMPOWER_ENERGY);
    }
    if (energy) fields |= 1u << LLMPOWER_ENERGY;
    if (power_by_field(library, gpu))
        fields |= 1u << LLMPOWER_POWER_INSTANT;
    else if (library->power && supported(library, gpu, LLMPOWER_POWER_INSTANT))
        fields |= 1u << (power_usage_is_instant(library, gpu->handle, name) ? LLMPOWER_POWER_INSTANT
                                                                            : LLMPOWER_POWER_AVERAGE);
    return fields;
}
