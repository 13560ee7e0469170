/* nvml_gpu.h - by which of NVML's calls one GPU reports its energy and power.
 *
 * What a GPU answers is probed once; afterwards a read is one call. */
#ifndef LLMPOWER_NVML_GPU_H
#define LLMPOWER_NVML_GPU_H

#include <stdbool.h>
#include <stdint.h>

#include "nvml_library.h"

struct nvml_gpu {
    nvmlDevice_t handle;
    bool lost;            /* its handle no longer means anything */
    bool energy_by_field; /* nvmlDeviceGetTotalEnergyConsumption does not answer, field 83 does */
    bool power_by_field;  /* the power that is sampled */
    uint32_t scope;       /* of the field: the GPU, or its module */
};

/* Find out how a GPU of this name answers. Absent is told from failed: bit 1u << F is set for each field F (enum
 * llmpower_field) that is there, even if it cannot be read just now. */
uint32_t nvml_gpu_probe(const struct nvml_library *library, struct nvml_gpu *gpu, const char *name);

/* Read a field that was found, in mJ or mW. */
nvmlReturn_t nvml_gpu_read(const struct nvml_library *library, const struct nvml_gpu *gpu, uint32_t field,
                           int64_t *milli);

#endif
