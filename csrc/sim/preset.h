/* preset.h - the cards that the simulator can be, each with its power range and the behaviour of its sensor. */
#ifndef LLMPOWER_SIM_PRESET_H
#define LLMPOWER_SIM_PRESET_H

#include <stdbool.h>

#include "latency.h"

struct preset {
    const char *key;  /* in LLMPOWER_SIM_PRESET */
    const char *name; /* as nvmlDeviceGetName tells it */
    unsigned int architecture;
    double idle_w, max_w;    /* of the CPU-driven load */
    double update_period_s;  /* T: the power reading is held this long */
    double update_jitter_s;  /* standard deviation of each update's moment */
    double window_s;         /* W: what the sensor averages before it shows a value */
    double rise_s;           /* tau: first-order lag between the true power and the sensor */
    double counter_period_s; /* the energy counter moves this often */
    double counter_jitter_s;
    const double *call_s; /* median latency of each call, spent only when LLMPOWER_SIM_LATENCY asks for it */
    double memory_gib;
    bool has_fields;       /* answers fields 185 and 186 */
    bool has_mig;          /* answers whether MIG is enabled */
    bool usage_is_instant; /* nvmlDeviceGetPowerUsage shows the instant value, not the 1 s mean */
    bool looks_at_once;    /* a call's value is that of its beginning; else of any moment within it */
};

/* NULL when no preset has this key. */
const struct preset *preset_find(const char *key);

#endif
