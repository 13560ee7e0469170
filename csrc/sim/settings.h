/* settings.h - what the environment says the simulated card is to be; read when NVML is initialised.
 *   LLMPOWER_SIM_PRESET      v100 a100 rtx4090 h100 h100-sxm h200 b200  (a100)
 *   LLMPOWER_SIM_GPUS        1..8                                   (1)
 *   LLMPOWER_SIM_LOAD        see load.h                             (cpu)
 *   LLMPOWER_SIM_SEED        of everything drawn at random          (1)
 *   LLMPOWER_SIM_GAIN        systematic error of the sensor         (1.0)
 *   LLMPOWER_SIM_OFFSET_W                                           (0.0)
 *   LLMPOWER_SIM_INTEGRATOR  full part_time, see sensor.h           (full)
 *   LLMPOWER_SIM_THERMAL_S   time constant of its warmth, thermal.h (20)
 *   LLMPOWER_SIM_LATENCY     see latency.h                          (none is spent)
 *   LLMPOWER_SIM_FAULT       see fault.h                            (none)
 *   LLMPOWER_SIM_PROCESSES   see nvml_processes.c                   (none) */
#ifndef LLMPOWER_SIM_SETTINGS_H
#define LLMPOWER_SIM_SETTINGS_H

#include "fault.h"
#include "latency.h"
#include "load.h"
#include "preset.h"

enum { MAX_GPUS = 8, MAX_PATH_BYTES = 512, MAX_REFUSAL_BYTES = 1024 };

struct settings {
    const struct preset *preset;
    struct load *loads[MAX_GPUS]; /* one for all, or one each; the caller gives them to settings_close */
    struct faults faults;
    struct latency latency;
    unsigned int gpu_count;
    char processes[MAX_PATH_BYTES]; /* empty: none */
    uint64_t seed;
    double gain, offset_w, thermal_s;
    bool part_time;
    char refusal[MAX_REFUSAL_BYTES];
};

/* False, with one line in refusal, when a setting makes no sense; then no load is open. */
bool settings_read(struct settings *settings);
void settings_close(struct load *const loads[MAX_GPUS]);

#endif
