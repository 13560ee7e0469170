/* thermal.h - how warm the simulated card is.
 *
 * One thermal mass with one heat path, driven by the true power:
 *   tau dT/dt = T_end(P) - T,   T_end(P) = air + rise * P / P_max
 * A real card has several masses, a fan and a throttle, and nobody publishes their constants: these are guesses of the
 * right size. What matters is what they have in common: a card that begins to work is cold for a minute. */
#ifndef LLMPOWER_SIM_THERMAL_H
#define LLMPOWER_SIM_THERMAL_H

#include <stdint.h>

#include "load.h"

struct thermal {
    struct load *load;
    double max_w, tau_s;
    int64_t followed_to_ns;
    double celsius; /* at that moment */
};

/* At now_ns (which load_known_until has returned) the card is as if its power had long been what it is. */
void thermal_init(struct thermal *thermal, struct load *load, double max_w, double tau_s, int64_t now_ns);

/* The temperature at time_ns, which load_known_until has returned. Time that has passed stays passed. */
double thermal_celsius(struct thermal *thermal, int64_t time_ns);

#endif
