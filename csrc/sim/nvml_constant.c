/* nvml_constant.c - what other clients ask of NVML before they get to its power: answers that never change.
 *
 * Nothing here bears on power or energy, so constants do. Calls that real cards refuse as well are refused, not left
 * out: clients treat an absent symbol as an old driver. */
#include <string.h>

#include "driver.h"

static nvmlReturn_t answer(nvmlDevice_t device, void *out, const void *value, size_t size) {
    nvmlReturn_t code = driver_check(driver_enter(CALL_OTHER), device);
    if (code == NVML_SUCCESS && !out) code = NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS) memcpy(out, value, size);
    return driver_leave(code);
}

static nvmlReturn_t answer_number(nvmlDevice_t device, unsigned int *out, unsigned int value) {
    return answer(device, out, &value, sizeof value);
}

static nvmlReturn_t refuse(nvmlDevice_t device, nvmlReturn_t refusal) {
    nvmlReturn_t code = driver_check(driver_enter(CALL_OTHER), device);
    return driver_leave(code == NVML_SUCCESS ? refusal : code);
}

/* One number that depends on the preset. */
static nvmlReturn_t answer_preset(nvmlDevice_t device, unsigned int *out,
                                  unsigned int (*value)(const struct preset *)) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code == NVML_SUCCESS) *out = value(driver->preset);
    return driver_leave(code);
}

static unsigned int architecture(const struct preset *preset) { return preset->architecture; }
static unsigned int idle_mw(const struct preset *preset) { return (unsigned int)(preset->idle_w * 1e3); }
static unsigned int max_mw(const struct preset *preset) { return (unsigned int)(preset->max_w * 1e3); }
static unsigned int brand(const struct preset *preset) {
    return strstr(preset->name, "GeForce") ? NVML_BRAND_GEFORCE : NVML_BRAND_NVIDIA;
}

/* --- The card --------------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned int *out) {
    return answer_preset(device, out, architecture);
}

EXPORT nvmlReturn_t nvmlDeviceGetBrand(nvmlDevice_t device, unsigned int *out) {
    return answer_preset(device, out, brand);
}

EXPORT nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor) {
    unsigned int found = 0;
    nvmlReturn_t code = answer_preset(device, &found, architecture);
    if (code != NVML_SUCCESS) return code;
    /* Ampere 8.0 and Ada 8.9; the other generations since Volta count up by themselves. */
    *major = found == NVML_DEVICE_ARCH_VOLTA ? 7 : found <= NVML_DEVICE_ARCH_ADA ? 8 : (int)found;
    *minor = found == NVML_DEVICE_ARCH_ADA ? 9 : 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetC2cModeInfoV(nvmlDevice_t device, unsigned int *enabled) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    if (!faults_has(&driver->faults, FAULT_GH200, device->index)) return driver_leave(NVML_ERROR_NOT_SUPPORTED);
    *enabled = 1;
    return driver_leave(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetSerial(nvmlDevice_t device, char *serial, unsigned int size) {
    (void)serial, (void)size;
    return refuse(device, NVML_ERROR_NOT_SUPPORTED);
}

/* --- Power limits ----------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit_mw) {
    return answer_preset(device, limit_mw, max_mw);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *limit_mw) {
    return answer_preset(device, limit_mw, max_mw);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementDefaultLimit(nvmlDevice_t device, unsigned int *limit_mw) {
    return answer_preset(device, limit_mw, max_mw);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *least_mw,
                                                                 unsigned int *most_mw) {
    nvmlReturn_t code = answer_preset(device, least_mw, idle_mw);
    return code == NVML_SUCCESS ? answer_preset(device, most_mw, max_mw) : code;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementMode(nvmlDevice_t device, unsigned int *enabled) {
    return answer_number(device, enabled, 1);
}

EXPORT nvmlReturn_t nvmlDeviceSetPowerManagementLimit(nvmlDevice_t device, unsigned int limit_mw) {
    (void)limit_mw;
    return refuse(device, NVML_ERROR_NO_PERMISSION);
}

EXPORT nvmlReturn_t nvmlDeviceSetPersistenceMode(nvmlDevice_t device, unsigned int enabled) {
    (void)enabled;
    return refuse(device, NVML_ERROR_NO_PERMISSION);
}

EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t device, unsigned int *enabled) {
    return answer_number(device, enabled, 1);
}

/* --- Memory, load, fan, clocks --------------------------------------------------------------------------------- */

/* A quarter is in use; an instance of MIG has its share of both. */
static nvmlReturn_t memory(nvmlDevice_t device, nvmlMemory_t *out) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    unsigned long long total = (unsigned long long)driver->preset->memory_gib << 30;
    if (device->instance >= 0) total /= MIG_INSTANCES;
    *out = (nvmlMemory_t){.total = total, .free = total - total / 4, .used = total / 4};
    return driver_leave(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *out) { return memory(device, out); }

EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *out) {
    nvmlMemory_t found;
    nvmlReturn_t code = memory(device, &found);
    if (code != NVML_SUCCESS) return code;
    *out = (nvmlMemory_v2_t){.version = out->version, .total = found.total, .free = found.free, .used = found.used};
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *out) {
    nvmlUtilization_t half = {.gpu = 50, .memory = 25};
    return answer(device, out, &half, sizeof half);
}

EXPORT nvmlReturn_t nvmlDeviceGetEncoderUtilization(nvmlDevice_t device, unsigned int *percent,
                                                    unsigned int *period_us) {
    nvmlReturn_t code = answer_number(device, percent, 0);
    return code == NVML_SUCCESS ? answer_number(device, period_us, 167000) : code;
}

EXPORT nvmlReturn_t nvmlDeviceGetDecoderUtilization(nvmlDevice_t device, unsigned int *percent,
                                                    unsigned int *period_us) {
    return nvmlDeviceGetEncoderUtilization(device, percent, period_us);
}

EXPORT nvmlReturn_t nvmlDeviceGetFanSpeed(nvmlDevice_t device, unsigned int *percent) {
    (void)percent;
    return refuse(device, NVML_ERROR_NOT_SUPPORTED); /* passively cooled */
}

EXPORT nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *mhz) {
    (void)type;
    return answer_number(device, mhz, 1410);
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int type, unsigned int *mhz) {
    return nvmlDeviceGetClockInfo(device, type, mhz);
}

EXPORT nvmlReturn_t nvmlDeviceGetPerformanceState(nvmlDevice_t device, unsigned int *state) {
    return answer_number(device, state, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t device, unsigned int *mode) {
    return answer_number(device, mode, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetDisplayActive(nvmlDevice_t device, unsigned int *active) {
    return answer_number(device, active, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetDisplayMode(nvmlDevice_t device, unsigned int *mode) {
    return answer_number(device, mode, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetPcieThroughput(nvmlDevice_t device, unsigned int counter, unsigned int *kib_per_s) {
    (void)counter;
    return answer_number(device, kib_per_s, 0);
}

EXPORT nvmlReturn_t nvmlDeviceGetBAR1MemoryInfo(nvmlDevice_t device, nvmlMemory_t *out) { return memory(device, out); }

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t device, unsigned int type, unsigned int counter,
                                                unsigned long long *errors) {
    (void)type, (void)counter;
    unsigned long long none = 0;
    return answer(device, errors, &none, sizeof none);
}

/* Windows alone has one. */
EXPORT nvmlReturn_t nvmlDeviceGetDriverModel_v2(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    (void)current, (void)pending;
    return refuse(device, NVML_ERROR_NOT_SUPPORTED);
}

EXPORT nvmlReturn_t nvmlDeviceGetDriverModel(nvmlDevice_t device, unsigned int *current, unsigned int *pending) {
    return nvmlDeviceGetDriverModel_v2(device, current, pending);
}
