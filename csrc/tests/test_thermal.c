/* test_thermal.c - the simulated card's temperature against its equation in closed form; no clock is asked. */
#include <math.h>

#include "../sim/thermal.h"
#include "check.h"

static const int64_t SECOND = 1000000000;
static const double MAX_W = 400, TAU_S = 20;

static struct load *open_or_die(const char *text) {
    char error[256];
    struct load *load = load_open(text, 0, 0, 0, error, sizeof error);
    CHECK(load);
    return load;
}

static bool near(double left, double right) { return fabs(left - right) < 1e-6; }

/* From 0 W to full power at 2000 s: 25 degrees before, 70 in the end, and an exponential between. */
static void test_a_step(int64_t looks_every_ns) {
    struct load *load = open_or_die("square:0,400,2000");
    struct thermal thermal;
    thermal_init(&thermal, load, MAX_W, TAU_S, 1500 * SECOND);
    CHECK(near(thermal_celsius(&thermal, 1990 * SECOND), 25));
    for (int64_t t = 2000 * SECOND; t < 2200 * SECOND; t += looks_every_ns) {
        double expected_c = 70 - 45 * exp(-(double)(t - 2000 * SECOND) * 1e-9 / TAU_S);
        CHECK(near(thermal_celsius(&thermal, t), expected_c));
    }
    CHECK(near(thermal_celsius(&thermal, 2100 * SECOND), thermal.celsius)); /* what has passed stays passed */
    CHECK(thermal_celsius(&thermal, 2900 * SECOND) > 69.99);
    load_close(load);
}

/* A card that nobody has asked for an hour is as warm as one that was watched. */
static void test_a_long_silence(void) {
    struct load *load = open_or_die("square:400,100,60");
    struct thermal watched, silent;
    thermal_init(&watched, load, MAX_W, TAU_S, 0);
    thermal_init(&silent, load, MAX_W, TAU_S, 0);
    for (int64_t t = 0; t < 3600 * SECOND; t += SECOND) thermal_celsius(&watched, t);
    CHECK(near(thermal_celsius(&watched, 3600 * SECOND), thermal_celsius(&silent, 3600 * SECOND)));
    load_close(load);
}

int main(void) {
    test_a_step(SECOND / 3);
    test_a_step(17 * SECOND);
    test_a_long_silence();
    puts("thermal: ok");
    return 0;
}
