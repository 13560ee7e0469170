/* nvml.c - the simulated libnvidia-ml.so.1: NVML's functions over the sensor model.
 *
 * A client loads it by the same dlopen as the real one (LD_LIBRARY_PATH, or a path). It is set up by the environment
 * when nvmlInit is called:
 *   LLMPOWER_SIM_PRESET   v100 a100 rtx4090 h100 h200 b200        (a100)
 *   LLMPOWER_SIM_GPUS     1..8                                    (1)
 *   LLMPOWER_SIM_LOAD     see load.h                              (cpu)
 *   LLMPOWER_SIM_SEED     jitter of the updates                   (1)
 *   LLMPOWER_SIM_GAIN     systematic error of the sensor          (1.0)
 *   LLMPOWER_SIM_OFFSET_W                                         (0.0)
 *   LLMPOWER_SIM_FAULT    comma-separated: init, no_energy, no_fields, no_power, lost_after:N  (none)
 * Beside NVML it exports llmpowerSimTrueEnergy, by which llmpower also knows that a card is not real. */
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "load.h"
#include "nvml_abi.h"
#include "preset.h"
#include "sensor.h"

#define EXPORT __attribute__((visibility("default")))

enum { MAX_GPUS = 8 };

struct nvml_device {
    unsigned int index;
    struct sensor sensor;
};

struct faults {
    bool init, no_energy, no_fields, no_power;
    long lost_after; /* reads until the GPU is lost; -1 for never */
};

/* One lock over everything, as the driver has. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int references;
static const struct preset *preset;
static struct load *load;
static struct faults faults;
static unsigned int gpu_count;
static unsigned long seed;
static struct nvml_device gpus[MAX_GPUS];

static int64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static bool number(const char *name, double otherwise, double low, double high, double *value) {
    const char *text = getenv(name);
    char *end;
    *value = otherwise;
    if (!text || !*text) return true;
    *value = strtod(text, &end);
    if (*end == '\0' && *value >= low && *value <= high) return true;
    fprintf(stderr, "simulated NVML: %s = %s: want a number from %g to %g\n", name, text, low, high);
    return false;
}

static bool parse_faults(const char *text) {
    char copy[256], *rest = NULL;
    faults = (struct faults){.lost_after = -1};
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (strcmp(word, "init") == 0)
            faults.init = true;
        else if (strcmp(word, "no_energy") == 0)
            faults.no_energy = true;
        else if (strcmp(word, "no_fields") == 0)
            faults.no_fields = true;
        else if (strcmp(word, "no_power") == 0)
            faults.no_power = true;
        else if (sscanf(word, "lost_after:%ld", &faults.lost_after) != 1) {
            fprintf(stderr, "simulated NVML: LLMPOWER_SIM_FAULT = %s: no such fault\n", word);
            return false;
        }
    }
    return true;
}

static nvmlReturn_t set_up(void) {
    double count, seed_number, gain, offset_w;
    char error[256];
    if (!parse_faults(setting("LLMPOWER_SIM_FAULT", ""))) return NVML_ERROR_INVALID_ARGUMENT;
    if (faults.init) return NVML_ERROR_DRIVER_NOT_LOADED;
    preset = preset_find(setting("LLMPOWER_SIM_PRESET", "a100"));
    if (!preset) {
        fprintf(stderr, "simulated NVML: LLMPOWER_SIM_PRESET = %s: want one of v100, a100, rtx4090, h100, h200, b200\n",
                getenv("LLMPOWER_SIM_PRESET"));
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (!number("LLMPOWER_SIM_GPUS", 1, 1, MAX_GPUS, &count) ||
        !number("LLMPOWER_SIM_SEED", 1, 0, 4294967295.0, &seed_number) ||
        !number("LLMPOWER_SIM_GAIN", 1, 0.1, 10, &gain) || !number("LLMPOWER_SIM_OFFSET_W", 0, -1000, 1000, &offset_w))
        return NVML_ERROR_INVALID_ARGUMENT;
    load = load_open(setting("LLMPOWER_SIM_LOAD", "cpu"), preset->idle_w, preset->max_w, error, sizeof error);
    if (!load) {
        fprintf(stderr, "simulated NVML: LLMPOWER_SIM_LOAD: %s\n", error);
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    gpu_count = (unsigned int)count;
    seed = (unsigned long)seed_number;
    int64_t known_ns = load_known_until(load, monotonic_ns());
    for (unsigned int i = 0; i < gpu_count; i++) {
        gpus[i].index = i;
        sensor_init(&gpus[i].sensor, preset, load, seed * MAX_GPUS + i, gain, offset_w, known_ns);
    }
    return NVML_SUCCESS;
}

static bool is_gpu(nvmlDevice_t device) { return device >= gpus && device < gpus + gpu_count; }

/* What every call about a device checks first; the lock is held. */
static nvmlReturn_t check(nvmlDevice_t device) {
    if (!references) return NVML_ERROR_UNINITIALIZED;
    return is_gpu(device) ? NVML_SUCCESS : NVML_ERROR_INVALID_ARGUMENT;
}

/* check, and one of the reads after which a GPU may be lost. */
static nvmlReturn_t check_read(nvmlDevice_t device) {
    nvmlReturn_t code = check(device);
    if (code != NVML_SUCCESS || faults.lost_after < 0) return code;
    if (faults.lost_after == 0) return NVML_ERROR_GPU_IS_LOST;
    faults.lost_after--;
    return NVML_SUCCESS;
}

static nvmlReturn_t copy_text(const char *text, char *out, unsigned int size) {
    if (!out) return NVML_ERROR_INVALID_ARGUMENT;
    if (strlen(text) + 1 > size) return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(out, text, strlen(text) + 1);
    return NVML_SUCCESS;
}

/* Power and energy; the lock is held. */
static nvmlReturn_t read_energy_mj(nvmlDevice_t device, unsigned long long *energy_mj) {
    if (faults.no_energy) return NVML_ERROR_NOT_SUPPORTED;
    *energy_mj = sensor_counter_mj(&device->sensor, load_known_until(load, monotonic_ns()));
    return NVML_SUCCESS;
}

static nvmlReturn_t read_power_mw(nvmlDevice_t device, bool instant, unsigned int *power_mw) {
    if (faults.no_power) return NVML_ERROR_NOT_SUPPORTED;
    struct sensor *sensor = &device->sensor;
    sensor_advance(sensor, load_known_until(load, monotonic_ns()));
    *power_mw = (unsigned int)((instant ? sensor->instant_w : sensor->average_w) * 1e3);
    return NVML_SUCCESS;
}

/* --- NVML ------------------------------------------------------------------------------------------------------- */

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    pthread_mutex_lock(&mutex);
    nvmlReturn_t code = references ? NVML_SUCCESS : set_up();
    if (code == NVML_SUCCESS) references++;
    pthread_mutex_unlock(&mutex);
    return code;
}

EXPORT nvmlReturn_t nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
EXPORT nvmlReturn_t nvmlInit(void) { return nvmlInitWithFlags(0); }

EXPORT nvmlReturn_t nvmlShutdown(void) {
    pthread_mutex_lock(&mutex);
    nvmlReturn_t code = references ? NVML_SUCCESS : NVML_ERROR_UNINITIALIZED;
    if (references && --references == 0) {
        load_close(load);
        load = NULL;
        gpu_count = 0;
    }
    pthread_mutex_unlock(&mutex);
    return code;
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

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int size) {
    return references ? copy_text("simulated", version, size) : NVML_ERROR_UNINITIALIZED;
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int size) {
    return references ? copy_text("12.simulated", version, size) : NVML_ERROR_UNINITIALIZED;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count) {
    if (!references) return NVML_ERROR_UNINITIALIZED;
    if (!count) return NVML_ERROR_INVALID_ARGUMENT;
    *count = gpu_count;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count) { return nvmlDeviceGetCount_v2(count); }

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    if (!references) return NVML_ERROR_UNINITIALIZED;
    if (index >= gpu_count || !device) return NVML_ERROR_INVALID_ARGUMENT;
    *device = &gpus[index];
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device) {
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t device, unsigned int *index) {
    nvmlReturn_t code = check(device);
    if (code == NVML_SUCCESS) *index = device->index;
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t device, unsigned int *minor) {
    return nvmlDeviceGetIndex(device, minor);
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t device, char *name, unsigned int size) {
    nvmlReturn_t code = check(device);
    return code == NVML_SUCCESS ? copy_text(preset->name, name, size) : code;
}

static void format_uuid(unsigned int index, char *uuid, size_t size) {
    snprintf(uuid, size, "GPU-5eed%04lx-0000-4000-8000-%012x", seed & 0xffff, index);
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int size) {
    char text[96];
    nvmlReturn_t code = check(device);
    if (code != NVML_SUCCESS) return code;
    format_uuid(device->index, text, sizeof text);
    return copy_text(text, uuid, size);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device) {
    if (!references) return NVML_ERROR_UNINITIALIZED;
    for (unsigned int i = 0; i < gpu_count; i++) {
        char text[96];
        format_uuid(i, text, sizeof text);
        if (strcmp(text, uuid) == 0) {
            *device = &gpus[i];
            return NVML_SUCCESS;
        }
    }
    return NVML_ERROR_NOT_FOUND;
}

EXPORT nvmlReturn_t nvmlDeviceGetArchitecture(nvmlDevice_t device, unsigned int *architecture) {
    nvmlReturn_t code = check(device);
    if (code == NVML_SUCCESS) *architecture = preset->architecture;
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetEnforcedPowerLimit(nvmlDevice_t device, unsigned int *limit_mw) {
    nvmlReturn_t code = check(device);
    if (code == NVML_SUCCESS) *limit_mw = (unsigned int)(preset->max_w * 1e3);
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerManagementLimit(nvmlDevice_t device, unsigned int *limit_mw) {
    return nvmlDeviceGetEnforcedPowerLimit(device, limit_mw);
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy_mj) {
    pthread_mutex_lock(&mutex);
    nvmlReturn_t code = check_read(device);
    if (code == NVML_SUCCESS) code = read_energy_mj(device, energy_mj);
    pthread_mutex_unlock(&mutex);
    return code;
}

EXPORT nvmlReturn_t nvmlDeviceGetPowerUsage(nvmlDevice_t device, unsigned int *power_mw) {
    pthread_mutex_lock(&mutex);
    nvmlReturn_t code = check_read(device);
    if (code == NVML_SUCCESS) code = read_power_mw(device, preset->usage_is_instant, power_mw);
    pthread_mutex_unlock(&mutex);
    return code;
}

static nvmlReturn_t read_field(nvmlDevice_t device, nvmlFieldValue_t *field) {
    if (field->fieldId == NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION) {
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        return read_energy_mj(device, &field->value.ullVal);
    }
    bool instant = field->fieldId == NVML_FI_DEV_POWER_INSTANT;
    if (!instant && field->fieldId != NVML_FI_DEV_POWER_AVERAGE) return NVML_ERROR_NOT_SUPPORTED;
    if (!preset->has_fields || faults.no_fields || field->scopeId != 0) return NVML_ERROR_NOT_SUPPORTED;
    field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
    return read_power_mw(device, instant, &field->value.uiVal);
}

EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *fields) {
    pthread_mutex_lock(&mutex);
    nvmlReturn_t code = check_read(device);
    for (int i = 0; code == NVML_SUCCESS && i < count; i++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        fields[i].timestamp = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
        fields[i].latencyUsec = 0;
        fields[i].nvmlReturn = read_field(device, &fields[i]);
    }
    pthread_mutex_unlock(&mutex);
    return code;
}

/* --- Beside NVML ------------------------------------------------------------------------------------------------ */

/* The joules that GPU number gpu has truly used from CLOCK_MONOTONIC zero to time_ns: before lag, window, gain or
 * rounding. NVML_ERROR_NOT_FOUND when the moment lies in the future or longer ago than the CPU drive remembers. */
EXPORT nvmlReturn_t llmpowerSimTrueEnergy(unsigned int gpu, long long time_ns, double *energy_j) {
    pthread_mutex_lock(&mutex);
    nvmlReturn_t code = !references       ? NVML_ERROR_UNINITIALIZED
                        : gpu < gpu_count ? NVML_SUCCESS
                                          : NVML_ERROR_INVALID_ARGUMENT;
    if (code == NVML_SUCCESS) {
        load_known_until(load, monotonic_ns());
        if (!load_energy_j(load, time_ns, energy_j)) code = NVML_ERROR_NOT_FOUND;
    }
    pthread_mutex_unlock(&mutex);
    return code;
}
