/* settings.c - see settings.h. */
#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *text_of(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static bool refuse(struct settings *settings, const char *name, const char *why) {
    snprintf(settings->refusal, sizeof settings->refusal, "%s = %s: %s", name, text_of(name, ""), why);
    return false;
}

static bool number(struct settings *settings, const char *name, double otherwise, double low, double high,
                   double *value) {
    const char *text = text_of(name, NULL);
    char *end = NULL, why[64];
    *value = text ? strtod(text, &end) : otherwise;
    if (!text || (*end == '\0' && *value >= low && *value <= high)) return true;
    snprintf(why, sizeof why, "want a number from %g to %g", low, high);
    return refuse(settings, name, why);
}

static bool integrator(struct settings *settings) {
    const char *text = text_of("LLMPOWER_SIM_INTEGRATOR", "full");
    settings->part_time = strcmp(text, "part_time") == 0;
    return settings->part_time || strcmp(text, "full") == 0 ||
           refuse(settings, "LLMPOWER_SIM_INTEGRATOR", "want full or part_time");
}

bool settings_read(struct settings *settings) {
    double count, seed;
    char why[512];
    *settings = (struct settings){0};
    settings->preset = preset_find(text_of("LLMPOWER_SIM_PRESET", "a100"));
    if (!settings->preset)
        return refuse(settings, "LLMPOWER_SIM_PRESET", "want one of v100, a100, rtx4090, h100, h100-sxm, h200, b200");
    if (!number(settings, "LLMPOWER_SIM_GPUS", 1, 1, MAX_GPUS, &count) ||
        !number(settings, "LLMPOWER_SIM_SEED", 1, 0, 4294967295.0, &seed) ||
        !number(settings, "LLMPOWER_SIM_GAIN", 1, 0.1, 10, &settings->gain) ||
        !number(settings, "LLMPOWER_SIM_OFFSET_W", 0, -1000, 1000, &settings->offset_w) ||
        !number(settings, "LLMPOWER_SIM_THERMAL_S", 20, 0.01, 1000, &settings->thermal_s) || !integrator(settings))
        return false;
    settings->gpu_count = (unsigned int)count;
    settings->seed = (uint64_t)seed;
    if (!faults_parse(&settings->faults, text_of("LLMPOWER_SIM_FAULT", ""), why, sizeof why))
        return refuse(settings, "LLMPOWER_SIM_FAULT", why);
    if (!latency_parse(&settings->latency, text_of("LLMPOWER_SIM_LATENCY", ""), settings->preset->call_s, why,
                       sizeof why))
        return refuse(settings, "LLMPOWER_SIM_LATENCY", why);
    const char *processes = text_of("LLMPOWER_SIM_PROCESSES", "");
    if (strlen(processes) >= sizeof settings->processes)
        return refuse(settings, "LLMPOWER_SIM_PROCESSES", "the path is too long");
    strcpy(settings->processes, processes);
    const char *load = text_of("LLMPOWER_SIM_LOAD", "cpu");
    for (unsigned int gpu = 0; gpu < settings->gpu_count; gpu++) {
        settings->loads[gpu] = gpu && load_is_shared(load) ? settings->loads[0]
                                                           : load_open(load, gpu, settings->preset->idle_w,
                                                                       settings->preset->max_w, why, sizeof why);
        if (settings->loads[gpu]) continue;
        settings_close(settings->loads);
        return refuse(settings, "LLMPOWER_SIM_LOAD", why);
    }
    return true;
}

void settings_close(struct load *const loads[MAX_GPUS]) {
    for (unsigned int gpu = 0; gpu < MAX_GPUS && loads[gpu]; gpu++)
        if (gpu == 0 || loads[gpu] != loads[0]) load_close(loads[gpu]);
}
