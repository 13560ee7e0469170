/* abi.h - what other clients of NVML ask the simulated library for, beyond nvml_abi.h. Stated from NVML's published
 * documentation; the sizes are those that nvidia-ml-py passes. */
#ifndef LLMPOWER_SIM_ABI_H
#define LLMPOWER_SIM_ABI_H

#include "nvml_abi.h"

#define EXPORT __attribute__((visibility("default")))

enum { NVML_SAMPLES_TOTAL_POWER = 0 };                          /* nvmlSamplingType_t */
enum { NVML_POWER_SCOPE_GPU = 0, NVML_POWER_SCOPE_MODULE = 1 }; /* scopeId of fields 185 and 186 */
enum { NVML_BRAND_TESLA = 2, NVML_BRAND_GEFORCE = 5, NVML_BRAND_NVIDIA = 14 };

typedef struct {
    unsigned long long timeStamp; /* us since 1970 */
    nvmlValue_t sampleValue;
} nvmlSample_t;

typedef struct {
    unsigned long long total, free, used;
} nvmlMemory_t;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

typedef struct {
    unsigned int gpu, memory; /* percent */
} nvmlUtilization_t;

_Static_assert(sizeof(nvmlSample_t) == 16, "NVML lays nvmlSample_t out in 16 bytes");
_Static_assert(sizeof(nvmlMemory_t) == 24, "NVML lays nvmlMemory_t out in 24 bytes");
_Static_assert(sizeof(nvmlMemory_v2_t) == 40, "NVML lays nvmlMemory_v2_t out in 40 bytes");

#endif
