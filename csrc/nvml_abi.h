/* nvml_abi.h - the part of NVML's binary interface that we use, stated from its published documentation.
 *
 * The real library, the simulated one and our client agree on these names and layouts; nothing else is shared between
 * them. The _v2 names are bound explicitly: the unversioned ones are macros in NVIDIA's header. */
#ifndef LLMPOWER_NVML_ABI_H
#define LLMPOWER_NVML_ABI_H

#include <stdint.h>

typedef struct nvml_device *nvmlDevice_t;
typedef int nvmlReturn_t;

enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_RESET_REQUIRED = 16,
    NVML_ERROR_OPERATING_SYSTEM = 17,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_NOT_READY = 27,
    NVML_ERROR_UNKNOWN = 999
};

enum {
    NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION = 83, /* mJ */
    NVML_FI_DEV_POWER_AVERAGE = 185,           /* mW, mean of one second */
    NVML_FI_DEV_POWER_INSTANT = 186            /* mW */
};

enum {
    NVML_DEVICE_ARCH_VOLTA = 5,
    NVML_DEVICE_ARCH_AMPERE = 7,
    NVML_DEVICE_ARCH_ADA = 8,
    NVML_DEVICE_ARCH_HOPPER = 9,
    NVML_DEVICE_ARCH_BLACKWELL = 10
};

typedef union {
    double dVal;
    unsigned int uiVal;
    unsigned long ulVal;
    unsigned long long ullVal;
    signed long long sllVal;
    signed int siVal;
    unsigned short usVal;
} nvmlValue_t;

enum {
    NVML_VALUE_TYPE_DOUBLE = 0,
    NVML_VALUE_TYPE_UNSIGNED_INT = 1,
    NVML_VALUE_TYPE_UNSIGNED_LONG = 2,
    NVML_VALUE_TYPE_UNSIGNED_LONG_LONG = 3,
    NVML_VALUE_TYPE_SIGNED_LONG_LONG = 4,
    NVML_VALUE_TYPE_SIGNED_INT = 5,
    NVML_VALUE_TYPE_UNSIGNED_SHORT = 6
};

typedef struct {
    uint32_t fieldId;
    uint32_t scopeId;
    int64_t timestamp; /* us since 1970 */
    int64_t latencyUsec;
    uint32_t valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;

enum {
    NVML_TEMPERATURE_GPU = 0, /* the die's sensor, of those that a card may have */
    NVML_TEMPERATURE_V1 = 12 | 1 << 24
};

typedef struct {
    unsigned int version, sensorType;
    int temperature; /* degrees Celsius */
} nvmlTemperature_v1_t;

_Static_assert(sizeof(nvmlTemperature_v1_t) == 12, "NVML lays nvmlTemperature_v1_t out in 12 bytes");

typedef struct {
    char busIdLegacy[16];
    unsigned int domain, bus, device, pciDeviceId, pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

/* A process that computes on a GPU: the first layout from the unversioned call, the second from _v2 and _v3. */
typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
} nvmlProcessInfo_v1_t;

typedef struct {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_v2_t;

_Static_assert(sizeof(nvmlFieldValue_t) == 40, "NVML lays nvmlFieldValue_t out in 40 bytes");
_Static_assert(sizeof(nvmlPciInfo_t) == 68, "NVML lays nvmlPciInfo_t out in 68 bytes");
_Static_assert(sizeof(nvmlProcessInfo_v1_t) == 16, "NVML lays nvmlProcessInfo_v1_t out in 16 bytes");
_Static_assert(sizeof(nvmlProcessInfo_v2_t) == 24, "NVML lays nvmlProcessInfo_v2_t out in 24 bytes");

#endif
