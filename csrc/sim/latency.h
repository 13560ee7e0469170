/* latency.h - what each call of NVML costs, while it holds the driver's lock. */
#ifndef LLMPOWER_SIM_LATENCY_H
#define LLMPOWER_SIM_LATENCY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum call {
    CALL_OTHER,
    CALL_ENERGY,    /* nvmlDeviceGetTotalEnergyConsumption and field 83 */
    CALL_INSTANT,   /* field 186 */
    CALL_AVERAGE,   /* field 185 */
    CALL_USAGE,     /* nvmlDeviceGetPowerUsage */
    CALL_SAMPLES,   /* nvmlDeviceGetSamples */
    CALL_PROCESSES, /* nvmlDeviceGet...RunningProcesses */
    CALLS
};

struct latency {
    double p50_s[CALLS]; /* 0: the call takes what it takes here, about a microsecond */
};

/* From the text of LLMPOWER_SIM_LATENCY, whose words are separated by commas:
 *   (empty)          nothing is spent
 *   preset           the figures of the preset, preset_s
 *   NAME=NUMBERunit  the median of one call: other, energy, instant, average, usage, samples, processes; us, ms or s
 * False, with one line in error, when it means none of these. */
bool latency_parse(struct latency *latency, const char *text, const double preset_s[CALLS], char *error,
                   size_t error_size);

/* How long the call with this number takes: lognormal, so that one call in a hundred takes twice the median. */
int64_t latency_draw_ns(const struct latency *latency, enum call call, uint64_t seed, uint64_t number);

#endif
