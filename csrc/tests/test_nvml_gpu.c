/* test_nvml_gpu.c - which window the one power reading of an old driver has, by the card's generation and model. */
#include "../llmpower.h"
#include "../nvml_gpu.h"
#include "check.h"

static unsigned int generation;

static nvmlReturn_t architecture(nvmlDevice_t device, unsigned int *out) {
    (void)device;
    *out = generation;
    return NVML_SUCCESS;
}

static nvmlReturn_t power(nvmlDevice_t device, unsigned int *power_mw) {
    (void)device;
    *power_mw = 50000;
    return NVML_SUCCESS;
}

static uint32_t probed(unsigned int architecture_of_card, const char *name) {
    const struct nvml_library library = {.architecture = architecture, .power = power};
    struct nvml_gpu gpu = {0};
    generation = architecture_of_card;
    return nvml_gpu_probe(&library, &gpu, name);
}

int main(void) {
    const uint32_t instant = 1u << LLMPOWER_POWER_INSTANT, average = 1u << LLMPOWER_POWER_AVERAGE;
    CHECK(probed(NVML_DEVICE_ARCH_VOLTA, "Tesla V100-SXM2-32GB") == instant);
    CHECK(probed(NVML_DEVICE_ARCH_HOPPER, "NVIDIA H100 PCIe") == average);
    /* GA100 ... */
    const char *const ga100[] = {"A100-PCIE-40GB", "NVIDIA A100-SXM4-80GB", "NVIDIA A100X",
                                 "GRID A100X-4C",  "NVIDIA A800 80GB PCIe", "NVIDIA A30"};
    for (size_t i = 0; i < sizeof ga100 / sizeof *ga100; i++)
        CHECK(probed(NVML_DEVICE_ARCH_AMPERE, ga100[i]) == instant);
    /* ... and the rest of its generation. */
    const char *const ga10x[] = {"NVIDIA A10", "NVIDIA RTX A1000", "NVIDIA RTX A3000 Laptop GPU",
                                 "NVIDIA GeForce RTX 3090"};
    for (size_t i = 0; i < sizeof ga10x / sizeof *ga10x; i++)
        CHECK(probed(NVML_DEVICE_ARCH_AMPERE, ga10x[i]) == average);
    puts("nvml_gpu: ok");
    return 0;
}
