/* nvml_power.c - the calls of the simulated NVML that return power, energy and temperature, and the two that return the
 * truth. */
#include <limits.h>
#include <math.h>
#include <time.h>

#include "driver.h"

static const double MODULE_EXTRA_W = 100; /* a Grace CPU with its memory, beside its GPU */

static int64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The moment whose readings are showing: now, as far as the load is known and unless the sensor is frozen. */
static int64_t view_ns(struct driver *driver, unsigned int gpu) {
    int64_t known_ns = load_known_until(driver->loads[gpu], clock_ns(CLOCK_MONOTONIC));
    return driver->started_ns + faults_view_ns(&driver->faults, gpu, known_ns - driver->started_ns);
}

static nvmlReturn_t read_energy_mj(struct driver *driver, unsigned int gpu, unsigned long long *energy_mj) {
    if (faults_has(&driver->faults, FAULT_NO_ENERGY, gpu)) return NVML_ERROR_NOT_SUPPORTED;
    int64_t at_ns = view_ns(driver, gpu);
    int64_t reset_ns = faults_reset_ns(&driver->faults, gpu, at_ns - driver->started_ns);
    int64_t since_ns = reset_ns < 0 ? 0 : driver->started_ns + reset_ns;
    *energy_mj = sensor_counter_mj(&driver->sensors[gpu], at_ns, since_ns);
    if (driver_strikes(driver, FAULT_ZERO, gpu)) *energy_mj = 0;
    if (driver_strikes(driver, FAULT_WILD, gpu)) *energy_mj = ULLONG_MAX;
    return NVML_SUCCESS;
}

static nvmlReturn_t read_power_mw(struct driver *driver, unsigned int gpu, bool instant, unsigned int *power_mw) {
    if (faults_has(&driver->faults, FAULT_NO_POWER, gpu)) return NVML_ERROR_NOT_SUPPORTED;
    struct sensor *sensor = &driver->sensors[gpu];
    sensor_advance(sensor, view_ns(driver, gpu));
    const struct sensor_update *update = sensor_showing(sensor, 0);
    *power_mw = (unsigned int)lround((instant ? update->instant_w : update->average_w) * 1e3);
    if (driver_strikes(driver, FAULT_ZERO, gpu)) *power_mw = 0;
    if (driver_strikes(driver, FAULT_WILD, gpu)) *power_mw = UINT_MAX;
    return NVML_SUCCESS;
}

/* --- NVML ------------------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy_mj) {
    struct driver *driver = driver_enter(CALL_ENERGY);
    nvmlReturn_t code = driver_check_read(driver, device);
    return driver_leave(code == NVML_SUCCESS ? read_energy_mj(driver, device->index, energy_mj) : code);
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power_mw) {
    struct driver *driver = driver_enter(CALL_USAGE);
    nvmlReturn_t code = driver_check_read(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    if (faults_has(&driver->faults, FAULT_NO_USAGE, device->index)) return driver_leave(NVML_ERROR_NOT_SUPPORTED);
    return driver_leave(read_power_mw(driver, device->index, driver->preset->usage_is_instant, power_mw));
}

static nvmlReturn_t read_field(struct driver *driver, unsigned int gpu, nvmlFieldValue_t *field) {
    if (field->fieldId == NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION) {
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        return read_energy_mj(driver, gpu, &field->value.ullVal);
    }
    bool instant = field->fieldId == NVML_FI_DEV_POWER_INSTANT;
    if (!instant && field->fieldId != NVML_FI_DEV_POWER_AVERAGE) return NVML_ERROR_NOT_SUPPORTED;
    if (!driver->preset->has_fields || faults_has(&driver->faults, FAULT_NO_FIELDS, gpu))
        return NVML_ERROR_NOT_SUPPORTED;
    bool module = faults_has(&driver->faults, FAULT_GH200, gpu);
    if (field->scopeId != (module ? NVML_POWER_SCOPE_MODULE : NVML_POWER_SCOPE_GPU)) return NVML_ERROR_NOT_SUPPORTED;
    field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
    nvmlReturn_t code = read_power_mw(driver, gpu, instant, &field->value.uiVal);
    if (code == NVML_SUCCESS && module) field->value.uiVal += (unsigned int)(MODULE_EXTRA_W * 1e3);
    return code;
}

static enum call field_call(unsigned int field) {
    switch (field) {
        case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION: return CALL_ENERGY;
        case NVML_FI_DEV_POWER_INSTANT: return CALL_INSTANT;
        case NVML_FI_DEV_POWER_AVERAGE: return CALL_AVERAGE;
        default: return CALL_OTHER;
    }
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *fields) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check_read(driver, device);
    for (int i = 0; code == NVML_SUCCESS && i < count; i++) {
        fields[i].latencyUsec = driver_go_on(driver, field_call(fields[i].fieldId)) / 1000;
        fields[i].timestamp = clock_ns(CLOCK_REALTIME) / 1000;
        fields[i].nvmlReturn = read_field(driver, device->index, &fields[i]);
    }
    return driver_leave(code);
}

/* The latest updates of the power reading, oldest first: those that came after last_seen_us. Without samples, room is
 * told; with them, *count is how many there is room for, and afterwards how many there are. */
EXPORT nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, int type, unsigned long long last_seen_us,
                                         int *value_type, unsigned int *count, nvmlSample_t *samples) {
    struct driver *driver = driver_enter(CALL_SAMPLES);
    nvmlReturn_t code = driver_check_read(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    if (!count || !value_type) return driver_leave(NVML_ERROR_INVALID_ARGUMENT);
    if (type != NVML_SAMPLES_TOTAL_POWER || faults_has(&driver->faults, FAULT_NO_POWER, device->index))
        return driver_leave(NVML_ERROR_NOT_SUPPORTED);
    *value_type = NVML_VALUE_TYPE_UNSIGNED_INT;
    if (!samples) {
        *count = SENSOR_BUFFER;
        return driver_leave(NVML_SUCCESS);
    }
    struct sensor *sensor = &driver->sensors[device->index];
    sensor_advance(sensor, view_ns(driver, device->index));
    int64_t since_1970_ns = clock_ns(CLOCK_REALTIME) - clock_ns(CLOCK_MONOTONIC);
    unsigned int found = 0;
    for (uint64_t back = sensor_buffered(sensor); back-- > 0 && found < *count;) {
        const struct sensor_update *update = sensor_showing(sensor, back);
        unsigned long long time_us = (unsigned long long)(update->time_ns + since_1970_ns) / 1000;
        if (time_us <= last_seen_us) continue;
        samples[found++] = (nvmlSample_t){time_us, {.uiVal = (unsigned int)lround(update->instant_w * 1e3)}};
    }
    *count = found;
    return driver_leave(found ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND);
}

/* Whole degrees, as cards tell them. */
static nvmlReturn_t read_temperature(nvmlDevice_t device, unsigned int sensor, int *celsius) {
    struct driver *driver = driver_enter(CALL_OTHER);
    nvmlReturn_t code = driver_check(driver, device);
    if (code != NVML_SUCCESS) return driver_leave(code);
    if (sensor != 0 || !celsius) return driver_leave(NVML_ERROR_INVALID_ARGUMENT); /* there is the GPU's alone */
    if (faults_has(&driver->faults, FAULT_NO_TEMPERATURE, device->index)) return driver_leave(NVML_ERROR_NOT_SUPPORTED);
    *celsius = (int)lround(thermal_celsius(&driver->thermals[device->index], view_ns(driver, device->index)));
    return driver_leave(NVML_SUCCESS);
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor, unsigned int *celsius) {
    int found = 0;
    nvmlReturn_t code = read_temperature(device, sensor, celsius ? &found : NULL);
    if (code == NVML_SUCCESS) *celsius = (unsigned int)found;
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_v1_t *out) {
    return read_temperature(device, out ? out->sensorType : 0, out ? &out->temperature : NULL);
}

/* --- Beside NVML: by the first of these llmpower also knows that a card is not real ------------------------------ */

static nvmlReturn_t truth(unsigned int gpu, long long time_ns, double *value,
                          bool (*of_load)(const struct load *, int64_t, double *)) {
    struct driver *driver = driver_look();
    nvmlReturn_t code = !driver->references       ? NVML_ERROR_UNINITIALIZED
                        : gpu < driver->gpu_count ? NVML_SUCCESS
                                                  : NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS) {
        load_known_until(driver->loads[gpu], clock_ns(CLOCK_MONOTONIC));
        if (!of_load(driver->loads[gpu], time_ns, value)) code = NVML_ERROR_NOT_FOUND;
    }
    driver_look_away();
    return code;
}

/* The joules that GPU number gpu has truly used from CLOCK_MONOTONIC zero to time_ns: before lag, window, gain or
 * rounding, and whatever fails. NVML_ERROR_NOT_FOUND when the moment lies in the future or longer ago than the CPU
 * drive remembers. */
EXPORT nvmlReturn_t llmpowerSimTrueEnergy(unsigned int gpu, long long time_ns, double *energy_j) {
    return truth(gpu, time_ns, energy_j, load_energy_j);
}

/* The watts that it truly draws at time_ns, in the same way. */
EXPORT nvmlReturn_t llmpowerSimTruePower(unsigned int gpu, long long time_ns, double *power_w) {
    return truth(gpu, time_ns, power_w, load_power_w);
}
