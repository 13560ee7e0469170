/* thermal.c - see thermal.h. */
#include "thermal.h"

#include <math.h>

static const double AIR_C = 25, RISE_C = 45; /* at full power: 70 degrees */
static const int64_t STEP_NS = 100000000;
static const double REMEMBERED = 20; /* time constants; what was before has left no trace in a double */

static double end_c(const struct thermal *thermal, double power_w) { return AIR_C + RISE_C * power_w / thermal->max_w; }

/* Follow the mean power up to time_ns, for which the equation is solved exactly. */
static void step(struct thermal *thermal, int64_t time_ns) {
    double before_j, after_j, step_s = (double)(time_ns - thermal->followed_to_ns) * 1e-9;
    if (load_energy_j(thermal->load, thermal->followed_to_ns, &before_j) &&
        load_energy_j(thermal->load, time_ns, &after_j)) {
        double behind_c = end_c(thermal, (after_j - before_j) / step_s) - thermal->celsius;
        thermal->celsius += behind_c * -expm1(-step_s / thermal->tau_s);
    }
    thermal->followed_to_ns = time_ns;
}

void thermal_init(struct thermal *thermal, struct load *load, double max_w, double tau_s, int64_t now_ns) {
    double power_w;
    *thermal = (struct thermal){.load = load, .max_w = max_w, .tau_s = tau_s, .followed_to_ns = now_ns};
    thermal->celsius = end_c(thermal, load_power_w(load, now_ns, &power_w) ? power_w : 0);
}

double thermal_celsius(struct thermal *thermal, int64_t time_ns) {
    int64_t earliest_ns = time_ns - (int64_t)(REMEMBERED * thermal->tau_s * 1e9);
    int64_t since_ns = load_known_since(thermal->load);
    if (earliest_ns < since_ns) earliest_ns = since_ns;
    if (thermal->followed_to_ns < earliest_ns) thermal->followed_to_ns = earliest_ns;
    while (thermal->followed_to_ns + STEP_NS < time_ns) step(thermal, thermal->followed_to_ns + STEP_NS);
    if (thermal->followed_to_ns < time_ns) step(thermal, time_ns);
    return thermal->celsius;
}
