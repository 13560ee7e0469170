/* nvml_processes.c - see nvml_processes.h.
 *
 * How many bytes a driver fills for each process its function's name should say, and does not: the R535 branch fills 32
 * where _v3 has 24 before and after it, and 16 have been seen there too. So the stride is taken from what was written:
 * the array is filled with a pattern first, and where that begins again it ends. Where no stride fits, or an id comes
 * out that no process can have, the answer is refused: half of a list would be worse than none. */
#include "nvml_processes.h"

#include <limits.h>
#include <string.h>

#include "llmpower.h"

enum { PATTERN = 0xa5, LARGEST_STRIDE = 32 };

/* Bytes from one process to the next, count being at least 1; 0 when what was written fits none. */
static size_t stride_of(const unsigned char *room, size_t size, unsigned int count) {
    static const size_t strides[] = {sizeof(nvmlProcessInfo_v1_t), sizeof(nvmlProcessInfo_v2_t), LARGEST_STRIDE};
    while (size && room[size - 1] == PATTERN) size--;
    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++)
        if (size <= strides[i] * count) return strides[i];
    return 0;
}

nvmlReturn_t nvml_processes(const struct nvml_library *library, nvmlDevice_t device, uint32_t *pids, uint32_t capacity,
                            uint32_t *count) {
    _Alignas(nvmlProcessInfo_v2_t) unsigned char room[LLMPOWER_MAX_PROCESSES * LARGEST_STRIDE];
    unsigned int most = capacity < LLMPOWER_MAX_PROCESSES ? capacity : LLMPOWER_MAX_PROCESSES, found = most;
    if (!library->processes) return NVML_ERROR_FUNCTION_NOT_FOUND;
    memset(room, PATTERN, sizeof room);
    nvmlReturn_t code = library->processes(device, &found, room);
    if (code != NVML_SUCCESS) return code;
    if (found > most) return NVML_ERROR_INSUFFICIENT_SIZE;
    size_t stride = found ? stride_of(room, sizeof room, found) : LARGEST_STRIDE;
    if (stride == 0) return NVML_ERROR_UNKNOWN;
    for (unsigned int i = 0; i < found; i++) {
        unsigned int pid; /* the first field of every layout */
        memcpy(&pid, room + i * stride, sizeof pid);
        if (pid == 0 || pid > INT_MAX) return NVML_ERROR_UNKNOWN;
        pids[i] = pid;
    }
    *count = found;
    return NVML_SUCCESS;
}
