/* preset.c - figures from arXiv 2312.02741 and its public data: update period, averaging window, rise.
 *
 * Idle and maximum watts are the boards' data sheets, rounded. Counter periods: 20 ms on V100, about 100 ms elsewhere.
 * H200 and B200 stand in as H100 until somebody measures one. Nobody has published call latencies by card: all but the
 * H100 that this project measured have those of the one board that was, and calls of which nothing is known cost
 * nothing. */
#include "preset.h"

#include <stddef.h>
#include <string.h>

#include "nvml_abi.h"

static const double one_board_s[CALLS] = {[CALL_ENERGY] = 2.4e-3,
                                          [CALL_INSTANT] = 50e-6,
                                          [CALL_AVERAGE] = 50e-6,
                                          [CALL_USAGE] = 4e-6,
                                          [CALL_PROCESSES] = 4.5e-3};

/* Measured on an H100 80GB HBM3 in a virtual machine, driver 580.159.04, beside work; see docs/h100.md. */
static const double h100_sxm_s[CALLS] = {
    [CALL_ENERGY] = 3e-3, [CALL_INSTANT] = 5e-6, [CALL_AVERAGE] = 5e-6, [CALL_USAGE] = 3.3e-6, [CALL_SAMPLES] = 330e-6};

static const struct preset presets[] = {
    {.key = "v100",
     .name = "Simulated V100-SXM2-32GB",
     .architecture = NVML_DEVICE_ARCH_VOLTA,
     .idle_w = 40,
     .max_w = 300,
     .update_period_s = 0.020,
     .update_jitter_s = 0.0005,
     .window_s = 0.010,
     .rise_s = 0.030,
     .counter_period_s = 0.020,
     .counter_jitter_s = 0.0003,
     .call_s = one_board_s,
     .memory_gib = 32,
     .usage_is_instant = true},
    {.key = "a100",
     .name = "Simulated A100-SXM4-80GB",
     .architecture = NVML_DEVICE_ARCH_AMPERE,
     .idle_w = 55,
     .max_w = 400,
     .update_period_s = 0.101,
     .update_jitter_s = 0.001,
     .window_s = 0.025,
     .rise_s = 0.025,
     .counter_period_s = 0.100,
     .counter_jitter_s = 0.0015,
     .call_s = one_board_s,
     .memory_gib = 80,
     .has_mig = true,
     .has_fields = true,
     .usage_is_instant = true},
    {.key = "rtx4090",
     .name = "Simulated GeForce RTX 4090",
     .architecture = NVML_DEVICE_ARCH_ADA,
     .idle_w = 25,
     .max_w = 450,
     .update_period_s = 0.100,
     .update_jitter_s = 0.001,
     .window_s = 0.100,
     .rise_s = 0.005,
     .counter_period_s = 0.100,
     .counter_jitter_s = 0.0015,
     .call_s = one_board_s,
     .memory_gib = 24,
     .has_fields = true},
    {.key = "h100",
     .name = "Simulated H100 PCIe",
     .architecture = NVML_DEVICE_ARCH_HOPPER,
     .idle_w = 50,
     .max_w = 350,
     .update_period_s = 0.100,
     .update_jitter_s = 0.001,
     .window_s = 0.025,
     .rise_s = 0.030,
     .counter_period_s = 0.100,
     .counter_jitter_s = 0.0015,
     .call_s = one_board_s,
     .memory_gib = 80,
     .has_mig = true,
     .has_fields = true},
    {.key = "h100-sxm",
     .name = "Simulated H100 80GB HBM3",
     .architecture = NVML_DEVICE_ARCH_HOPPER,
     .idle_w = 74,
     .max_w = 700,
     .update_period_s = 0.100,
     .update_jitter_s = 0.001,
     .window_s = 0.025,
     .rise_s = 0.014,
     .counter_period_s = 0.1000014,
     .counter_jitter_s = 0.00005,
     .call_s = h100_sxm_s,
     .memory_gib = 80,
     .has_mig = true,
     .has_fields = true,
     .looks_at_once = true},
    {.key = "h200",
     .name = "Simulated H200 (guess)",
     .architecture = NVML_DEVICE_ARCH_HOPPER,
     .idle_w = 75,
     .max_w = 700,
     .update_period_s = 0.100,
     .update_jitter_s = 0.001,
     .window_s = 0.025,
     .rise_s = 0.030,
     .counter_period_s = 0.100,
     .counter_jitter_s = 0.0015,
     .call_s = one_board_s,
     .memory_gib = 141,
     .has_mig = true,
     .has_fields = true},
    {.key = "b200",
     .name = "Simulated B200 (guess)",
     .architecture = NVML_DEVICE_ARCH_BLACKWELL,
     .idle_w = 140,
     .max_w = 1000,
     .update_period_s = 0.100,
     .update_jitter_s = 0.001,
     .window_s = 0.025,
     .rise_s = 0.030,
     .counter_period_s = 0.100,
     .counter_jitter_s = 0.0015,
     .call_s = one_board_s,
     .memory_gib = 180,
     .has_mig = true,
     .has_fields = true},
};

const struct preset *preset_find(const char *key) {
    for (size_t i = 0; i < sizeof presets / sizeof *presets; i++)
        if (strcmp(presets[i].key, key) == 0) return &presets[i];
    return NULL;
}
