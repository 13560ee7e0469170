/* nvml_processes.h - who computes on a GPU, in whichever of NVML's layouts a driver reports it. */
#ifndef LLMPOWER_NVML_PROCESSES_H
#define LLMPOWER_NVML_PROCESSES_H

#include "nvml_library.h"

/* Write the ids of the processes that compute on a GPU to pids, at most capacity (up to LLMPOWER_MAX_PROCESSES), and
 * how many to *count. NVML_ERROR_INSUFFICIENT_SIZE when there are more, NVML_ERROR_FUNCTION_NOT_FOUND from a driver
 * that has no such call, NVML_ERROR_UNKNOWN when what it answers makes no sense. Any thread may ask. */
nvmlReturn_t nvml_processes(const struct nvml_library *library, nvmlDevice_t device, uint32_t *pids, uint32_t capacity,
                            uint32_t *count);

#endif
