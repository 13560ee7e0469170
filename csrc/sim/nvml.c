/* nvml.c - the simulated libnvidia-ml.so.1: starting, finding devices, and telling who they are.
 *
 * A client loads it by the same dlopen as the real one (LD_LIBRARY_PATH, or a path), and it is set up by the
 * environment: settings.h says how. Power and energy are in nvml_power.c, who computes in nvml_processes.c, and what
 * never changes in nvml_constant.c. */
#include <stdio.h>
#include <string.h>

#include "driver.h"
#include "settings.h"

static nvmlReturn_t copy_text(const char *text, char *out, unsigned int size) {
    if (!out) return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) + 1 > size) return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(out, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

/* --- Starting --------------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    return driver_leave(driver_start(driver_enter(CALL_OTHER)));
}

EXPORT nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlReturn_t nvmlShutdown(void) { return driver_leave(driver_stop(driver_enter(CALL_OTHER))); }

/* Why nvmlInit would refuse to start, for a client that would rather say itself which setting is wrong. */
EXPORT nvmlReturn_t llmpowerSimCheckSettings(char *why, unsigned int size) {
    struct settings settings;
    if (settings_read(&settings)) {
        settings_close(settings.loads);
        return NVML_SUCCESS;
    }
    snprintf(why, size, "%s", settings.refusal);
    return NVML_ERROR_INVALID_ARGUMENT;
}

EXPORT const char *nvmlErrorString(nvmlReturn_t code) {
    switch (code) {
        case NVML_SUCCESS: return "Success";
        case NVML_ERROR_UNINITIALIZED: return "Uninitialized";
        case NVML_ERROR_INVALID_ARGUMENT: return "Invalid Argument";
        case NVML_ERROR_NOT_SUPPORTED: return "Not Supported";
        case NVML_ERROR_NO_PERMISSION: return "Insufficient Permissions";
        case NVML_ERROR_NOT_FOUND: return "Not Found";
        case NVML_ERROR_INSUFFICIENT_SIZE: return "Insufficient Size";
        case NVML_ERROR_DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case NVML_ERROR_TIMEOUT: return "Timeout";
        case NVML_ERROR_FUNCTION_NOT_FOUND: return "Function Not Found";
        case NVML_ERROR_GPU_IS_LOST: return "GPU is lost";
        default: return "Unknown Error";
    }
}

static nvmlReturn_t system_text(const char *text, char *out, unsigned int size) {
    const struct driver *driver = driver_enter(CALL_OTHER);
    return driver_leave(driver->references ? copy_text(text, out, size) : NVML_ERROR_UNINITIALIZED);
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int size) {
    return system_text("simulated", version, size);
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int size) {
    return system_text("12.simulated", version, size);
}

static nvmlReturn_t system_number(int number, int *out) {
    const struct driver *driver = driver_enter(CALL_OTHER);
    if (!driver->references) return driver_leave(NVML_ERROR_UNINITIALIZED);
    *out = number;
    return driver_leave(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version) { return system_number(12080, version); }
EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version) { return system_number(12080, version); }

/* --- Finding devices -------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    const struct driver *driver = driver_enter(CALL_OTHER);
    if (!driver->references) return driver_leave(NVML_ERROR_UNINITIALIZED);
    if (!count) return driver_leave(NVML_ERROR_INVALID_ARGUMENT);
    *count = driver->gpu_count;
    return driver_leave(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    return driver_leave(driver_handle(driver_enter(CALL_OTHER), index, -1, device));
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

/* Both kinds of name: they differ in their first word, and instances in their last digits. */
static void format_uuid(const struct driver *driver, unsigned int index, int instance, char *uuid, size_t size) {
    snprintf(uuid, size, "%s-5eed%04x-0000-4000-8000-%08x%04x", instance < 0 ? "GPU" : "MIG",
             (unsigned int)(driver->seed & 0xffff), instance < 0 ? 0 : instance + 1, index);
}

static void format_bus_id(unsigned int index, char *bus_id, size_t size) {
    snprintf(bus_id, size, "00000000:%02X:00.0", index + 1);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    struct driver *driver = driver_enter(CALL_OTHER);
    if (!driver->references) return driver_leave(NVML_ERROR_UNINITIALIZED);
    for (unsigned int i = 0; i < driver->gpu_count; i++) {
        int instances = faults_has(&driver->faults, FAULT_MIG, i) ? MIG_INSTANCES : 0;
        for (int instance = -1; instance < instances; instance++) {
            char text[96];
            format_uuid(driver, i, instance, text, sizeof text);
            if (strcmp(text, uuid) == 0) return driver_leave(driver_handle(driver, i, instance, device));
        }
    }
    return driver_leave(NVML_ERROR_NOT_FOUND);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, nvmlDevice_t *device) {
    struct driver *driver = driver_enter(CALL_OTHER);
    if (!driver->references) return driver_leave(NVML_ERROR_UNINITIALIZED);
    for (unsigned int i = 0; i < driver->gpu_count; i++) {
        char text[32];
        format_bus_id(i, text, sizeof text);
        /* The domain has eight digits or, in the older form, four. */
        if (strcmp(text, bus_id) == 0 || strcmp(text + 4, bus_id) == 0)
            return driver_leave(driver_handle(driver, i, -1, device));
    }
    return driver_leave(NVML_ERROR_NOT_FOUND);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *bus_id, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByPciBusId_v2(bus_id, device);
}

/* --- Who a device is -------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    nvmlReturn_t code = driver_check(driver_enter(CALL_OTHER), device);
    if (code == NVML_SUCCESS) *index = device->index;
    return driver_leave(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) {
    return nvmlDeviceGetIndex(device, minor);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int size) {
    char text[96];
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    snprintf(text, sizeof text, "%s%s", driver->preset->name, device->instance < 0 ? "" : " MIG 3g");
    return driver_leave(copy_text(text, name, size));
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int size) {
    char text[96];
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    format_uuid(driver, device->index, device->instance, text, sizeof text);
    return driver_leave(copy_text(text, uuid, size));
}

static nvmlReturn_t pci_info(nvmlDevice_t device, nvmlPciInfo_t *info) {
    nvmlReturn_t code = driver_check(driver_enter(CALL_OTHER), device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    *info = (nvmlPciInfo_t){.bus = device->index + 1};
    format_bus_id(device->index, info->busId, sizeof info->busId);
    snprintf(info->busIdLegacy, sizeof info->busIdLegacy, "%.12s", info->busId + 4);
    return driver_leave(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *info) { return pci_info(device, info); }

EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_t *info) { return pci_info(device, info); }

/* --- MIG -------------------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    bool enabled = faults_has(&driver->faults, FAULT_MIG, device->index);
    if (!enabled && !driver->preset->has_mig) return driver_leave(NVML_ERROR_NOT_SUPPORTED);
    *current = *pending = enabled;
    return driver_leave(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t device, unsigned int *count) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code == NVML_SUCCESS) *count = driver->preset->has_mig ? 7 : 0;
    return driver_leave(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t device, unsigned int index,
                                                        nvmlDevice_t *instance) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    if (!faults_has(&driver->faults, FAULT_MIG, device->index)) return driver_leave(NVML_ERROR_NOT_SUPPORTED);
    if (index >= MIG_INSTANCES) return driver_leave(NVML_ERROR_NOT_FOUND);
    return driver_leave(driver_handle(driver, device->index, (int)index, instance));
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t instance, nvmlDevice_t *device) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, instance);
    if (code == NVML_SUCCESS && instance->instance < 0) code = NVML_ERROR_INVALID_ARGUMENT;
    return driver_leave(code == NVML_SUCCESS ? driver_handle(driver, instance->index, -1, device) : code);
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t device, unsigned int *is_instance) {
    nvmlReturn_t code = driver_check(driver_enter(CALL_OTHER), device);
    if (code == NVML_SUCCESS) *is_instance = device->instance >= 0;
    return driver_leave(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t device, unsigned int *id) {
    nvmlReturn_t code = driver_check(driver_enter(CALL_OTHER), device);
    if (code == NVML_SUCCESS && device->instance < 0) code = NVML_ERROR_NOT_SUPPORTED;
    if (code == NVML_SUCCESS) *id = (unsigned int)device->instance + 1;
    return driver_leave(code);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t device, unsigned int *id) {
    nvmlReturn_t code = nvmlDeviceGetGpuInstanceId(device, id);
    if (code == NVML_SUCCESS) *id = 0;
    return code;
}
