/* test_driver.c - the simulated library's calls from several threads at once, for the sanitizers to look on; its lock,
 * which serves one call at a time; and its life from init to shutdown. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../sim/driver.h"
#include "check.h"

nvmlReturn_t nvmlInit_v2(void);
nvmlReturn_t nvmlShutdown(void);
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count);
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device);
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int size);
nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy_mj);
nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *fields);
nvmlReturn_t nvmlDeviceGetSamples(nvmlDevice_t device, int type, unsigned long long last_seen_us, int *value_type,
                                  unsigned int *count, nvmlSample_t *samples);
nvmlReturn_t llmpowerSimTrueEnergy(unsigned int gpu, long long time_ns, double *energy_j);
nvmlReturn_t llmpowerSimTruePower(unsigned int gpu, long long time_ns, double *power_w);

enum { THREADS = 4, CALLS_EACH = 50 };

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *call_everything(void *argument) {
    unsigned int gpu = *(unsigned int *)argument;
    nvmlDevice_t device;
    unsigned long long energy_mj, last_mj = 0;
    static const uint32_t ids[] = {83, 185, 186, 999};
    for (int i = 0; i < CALLS_EACH; i++) {
        char uuid[96];
        CHECK(nvmlInit_v2() == NVML_SUCCESS);
        CHECK(nvmlDeviceGetHandleByIndex_v2(gpu, &device) == NVML_SUCCESS);
        CHECK(nvmlDeviceGetUUID(device, uuid, sizeof uuid) == NVML_SUCCESS);
        CHECK(nvmlDeviceGetHandleByUUID(uuid, &device) == NVML_SUCCESS);
        CHECK(nvmlDeviceGetTotalEnergyConsumption(device, &energy_mj) == NVML_SUCCESS && energy_mj >= last_mj);
        last_mj = energy_mj;
        nvmlFieldValue_t fields[4];
        for (int k = 0; k < 4; k++) fields[k] = (nvmlFieldValue_t){.fieldId = ids[k]};
        CHECK(nvmlDeviceGetFieldValues(device, 4, fields) == NVML_SUCCESS);
        for (int k = 0; k < 4; k++) CHECK((fields[k].nvmlReturn == NVML_SUCCESS) == (k < 3));
        CHECK(fields[2].value.uiVal >= 100000 && fields[2].value.uiVal <= 500000);
        int type;
        unsigned int count = 3;
        nvmlSample_t samples[3];
        CHECK(nvmlDeviceGetSamples(device, 0, 0, &type, &count, samples) == NVML_SUCCESS && count == 3);
        double energy_j, power_w;
        CHECK(llmpowerSimTrueEnergy(gpu, now_ns(), &energy_j) == NVML_SUCCESS);
        CHECK(llmpowerSimTruePower(gpu, now_ns(), &power_w) == NVML_SUCCESS && (power_w == 100 || power_w == 500));
        CHECK(nvmlShutdown() == NVML_SUCCESS);
    }
    return NULL;
}

static void test_threads(void) {
    pthread_t threads[THREADS];
    unsigned int gpus[THREADS];
    CHECK(nvmlInit_v2() == NVML_SUCCESS); /* one reference more than the threads hold, so that all see one start */
    for (unsigned int i = 0; i < THREADS; i++) {
        gpus[i] = i % 2;
        CHECK(pthread_create(&threads[i], NULL, call_everything, &gpus[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(nvmlShutdown() == NVML_SUCCESS && nvmlShutdown() == NVML_ERROR_UNINITIALIZED);
}

/* Every call spends its own cost behind the lock: together they last as long as their costs in a row, of which each
 * thread alone would see a quarter. */
static void test_costs_add_up(void) {
    setenv("LLMPOWER_SIM_LATENCY", "energy=0.2ms,instant=0.1ms", 1);
    int64_t start_ns = now_ns();
    test_threads();
    int64_t taken_ns = now_ns() - start_ns;
    unsetenv("LLMPOWER_SIM_LATENCY");
    /* The mean of hundreds of draws lies a little above the median; field 83 costs what the energy call does. */
    CHECK(taken_ns > (int64_t)(0.8 * THREADS * CALLS_EACH * (2 * 0.2e6 + 0.1e6)));
}

static void test_handles(void) {
    nvmlDevice_t device;
    unsigned long long energy_mj;
    unsigned int count;
    CHECK(nvmlDeviceGetCount_v2(&count) == NVML_ERROR_UNINITIALIZED);
    CHECK(nvmlInit_v2() == NVML_SUCCESS);
    CHECK(nvmlDeviceGetCount_v2(&count) == NVML_SUCCESS && count == MAX_GPUS);
    CHECK(nvmlDeviceGetHandleByIndex_v2(MAX_GPUS, &device) == NVML_ERROR_INVALID_ARGUMENT);
    CHECK(nvmlDeviceGetHandleByUUID("GPU-none", &device) == NVML_ERROR_NOT_FOUND);
    CHECK(nvmlDeviceGetTotalEnergyConsumption(NULL, &energy_mj) == NVML_ERROR_INVALID_ARGUMENT);
    CHECK(nvmlDeviceGetHandleByIndex_v2(MAX_GPUS - 1, &device) == NVML_SUCCESS);
    CHECK(nvmlShutdown() == NVML_SUCCESS);
    CHECK(nvmlDeviceGetTotalEnergyConsumption(device, &energy_mj) == NVML_ERROR_UNINITIALIZED);
}

static void test_lost_after_some_reads(void) {
    nvmlDevice_t device;
    unsigned long long energy_mj;
    setenv("LLMPOWER_SIM_FAULT", "lost_after:3@1", 1);
    CHECK(nvmlInit_v2() == NVML_SUCCESS);
    for (unsigned int gpu = 0; gpu < 2; gpu++) {
        CHECK(nvmlDeviceGetHandleByIndex_v2(gpu, &device) == NVML_SUCCESS);
        for (int i = 0; i < 3; i++) CHECK(nvmlDeviceGetTotalEnergyConsumption(device, &energy_mj) == NVML_SUCCESS);
        nvmlReturn_t fourth = nvmlDeviceGetTotalEnergyConsumption(device, &energy_mj);
        CHECK(fourth == (gpu ? NVML_ERROR_GPU_IS_LOST : NVML_SUCCESS));
        CHECK(nvmlDeviceGetHandleByIndex_v2(gpu, &device) == fourth);
    }
    CHECK(nvmlShutdown() == NVML_SUCCESS);
    setenv("LLMPOWER_SIM_FAULT", "init", 1);
    CHECK(nvmlInit_v2() == NVML_ERROR_DRIVER_NOT_LOADED && nvmlShutdown() == NVML_ERROR_UNINITIALIZED);
    unsetenv("LLMPOWER_SIM_FAULT");
}

int main(void) {
    setenv("LLMPOWER_SIM_LOAD", "square:100,500,0.05", 1);
    setenv("LLMPOWER_SIM_GPUS", "8", 1); /* all there can be, where an index would pass its end */
    setenv("LLMPOWER_SIM_INTEGRATOR", "part_time", 1);
    test_threads();
    test_costs_add_up();
    test_handles();
    test_lost_after_some_reads();
    puts("driver: ok");
    return 0;
}
