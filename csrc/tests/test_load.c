/* test_load.c - the true energy of waveforms, and texts that are none. */
#include <math.h>

#include "../sim/load.h"
#include "../sim/preset.h"
#include "../sim/sensor.h"
#include "check.h"

static const int64_t SECOND = 1000000000;

static void test_waveforms(void) {
    char error[256];
    double energy_j;
    struct load *load = load_open("square:100,500,2,0.25", 0, 0, error, sizeof error);
    CHECK(load);
    CHECK(load_energy_j(load, SECOND / 2, &energy_j) && fabs(energy_j - 250) < 1e-9);
    CHECK(load_energy_j(load, 2 * SECOND, &energy_j) && fabs(energy_j - 400) < 1e-9);
    CHECK(load_energy_j(load, 2001 * SECOND, &energy_j) && fabs(energy_j - (400e3 + 300)) < 1e-6);
    load_close(load);
}

static void test_nonsense(void) {
    const char *texts[] = {"",           "cpus",          "constant:",      "constant:-1",  "constant:1x",
                           "square:1,2", "square:1,2,-1", "square:1,2,3,4", "constant:nan", "file:/nonexistent"};
    char error[256];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        CHECK(load_open(texts[i], 0, 0, error, sizeof error) == NULL);
        CHECK(error[0] != '\0');
    }
}

/* A step through a first-order lag of 30 ms and a window of 25 ms, seen from updates every 100 ms. */
static void test_step_response(void) {
    char error[256];
    const struct preset *h100 = preset_find("h100");
    struct load *load = load_open("square:100,300,10", 0, 0, error, sizeof error);
    CHECK(load && h100);
    struct sensor sensor;
    sensor_init(&sensor, h100, load, 1, 1, 0, 9 * SECOND);
    CHECK(fabs(sensor.instant_w - 100) < 0.1);
    sensor_advance(&sensor, 10 * SECOND + SECOND / 2);
    CHECK(fabs(sensor.instant_w - 300) < 0.1);
    CHECK(sensor.average_w > 150 && sensor.average_w < 250);
    sensor_advance(&sensor, 12 * SECOND);
    CHECK(fabs(sensor.average_w - 300) < 0.1);
    CHECK(sensor_counter_mj(&sensor, 12 * SECOND) > sensor_counter_mj(&sensor, 11 * SECOND) + 290000);
    load_close(load);
}

int main(void) {
    test_waveforms();
    test_nonsense();
    test_step_response();
    puts("load: ok");
    return 0;
}
