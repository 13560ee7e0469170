/* nvml_library.h - the functions of an NVML library, found by name. It calls none of them. */
#ifndef LLMPOWER_NVML_LIBRARY_H
#define LLMPOWER_NVML_LIBRARY_H

#include <stdbool.h>
#include <stddef.h>

#include "nvml_abi.h"

struct nvml_library {
    void *handle;                                         /* of dlopen */
    bool simulated;                                       /* it says of itself that its cards are not real */
    nvmlReturn_t (*check_settings)(char *, unsigned int); /* of the simulated ones; NULL where they are real */
    nvmlReturn_t (*init)(void);
    nvmlReturn_t (*shutdown)(void);
    const char *(*error_string)(nvmlReturn_t);
    nvmlReturn_t (*count)(unsigned int *);
    nvmlReturn_t (*handle_by_index)(unsigned int, nvmlDevice_t *);
    nvmlReturn_t (*name)(nvmlDevice_t, char *, unsigned int);
    nvmlReturn_t (*uuid)(nvmlDevice_t, char *, unsigned int);
    /* May be absent in old drivers; then NULL. */
    nvmlReturn_t (*handle_by_uuid)(const char *, nvmlDevice_t *);
    nvmlReturn_t (*driver_version)(char *, unsigned int);
    nvmlReturn_t (*pci_info)(nvmlDevice_t, nvmlPciInfo_t *);
    nvmlReturn_t (*architecture)(nvmlDevice_t, unsigned int *);
    nvmlReturn_t (*energy)(nvmlDevice_t, unsigned long long *);
    nvmlReturn_t (*power)(nvmlDevice_t, unsigned int *);
    nvmlReturn_t (*field_values)(nvmlDevice_t, int, nvmlFieldValue_t *);
    nvmlReturn_t (*mig_count)(nvmlDevice_t, unsigned int *);
    nvmlReturn_t (*mig_by_index)(nvmlDevice_t, unsigned int, nvmlDevice_t *);
    nvmlReturn_t (*power_limit)(nvmlDevice_t, unsigned int *);
    nvmlReturn_t (*temperature)(nvmlDevice_t, unsigned int, unsigned int *);
    nvmlReturn_t (*temperature_v)(nvmlDevice_t, nvmlTemperature_v1_t *);
    nvmlReturn_t (*processes)(nvmlDevice_t, unsigned int *, void *); /* in the layout of nvml_processes.c */
};

/* Returns 0, LLMPOWER_NO_LIBRARY or LLMPOWER_WRONG_LIBRARY with one line in error; then nothing is left open. */
int nvml_library_open(struct nvml_library *library, const char *path, char *error, size_t error_size);
void nvml_library_close(struct nvml_library *library);

#endif
