/* test_load.c - the true energy of waveforms, and texts that are none. */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "../sim/load.h"
#include "check.h"

static const int64_t SECOND = 1000000000;

static void test_waveforms(void) {
    char error[256];
    double energy_j;
    struct load *load = load_open("square:100,500,2,0.25", 0, 0, 0, error, sizeof error);
    CHECK(load);
    CHECK(load_energy_j(load, SECOND / 2, &energy_j) && fabs(energy_j - 250) < 1e-9);
    CHECK(load_energy_j(load, 2 * SECOND, &energy_j) && fabs(energy_j - 400) < 1e-9);
    CHECK(load_energy_j(load, 2001 * SECOND, &energy_j) && fabs(energy_j - (400e3 + 300)) < 1e-6);
    load_close(load);
}

static void test_a_file_for_each_gpu(void) {
    char directory[] = "/tmp/llmpower-load-XXXXXX", path[64], text[80], error[256];
    CHECK(mkdtemp(directory));
    for (unsigned int gpu = 0; gpu < 2; gpu++) {
        snprintf(path, sizeof path, "%s/%u.load", directory, gpu);
        FILE *file = fopen(path, "w");
        CHECK(file && fprintf(file, "1 %u # all the time\n", 100 * (gpu + 1)) > 0 && fclose(file) == 0);
    }
    snprintf(text, sizeof text, "file:%s/{gpu}.load", directory);
    CHECK(!load_is_shared(text) && load_is_shared("cpu"));
    for (unsigned int gpu = 0; gpu < 2; gpu++) {
        double power_w;
        struct load *load = load_open(text, gpu, 0, 0, error, sizeof error);
        CHECK(load && load_power_w(load, SECOND / 2, &power_w) && power_w == 100 * (gpu + 1));
        load_close(load);
        snprintf(path, sizeof path, "%s/%u.load", directory, gpu);
        CHECK(unlink(path) == 0);
    }
    CHECK(load_open(text, 2, 0, 0, error, sizeof error) == NULL);
    CHECK(rmdir(directory) == 0);
}

/* A second of the group's on one of n processors is a second at an n-th of what lies between idle and maximum. */
static void test_a_control_group(const char *format, unsigned long long second) {
    char path[] = "/tmp/llmpower-load-XXXXXX", text[64], error[256];
    CHECK(close(mkstemp(path)) == 0);
    snprintf(text, sizeof text, "cpu:%s", path);
    CHECK(load_open(text, 0, 50, 250, error, sizeof error) == NULL && strstr(error, path)); /* empty */
    struct load *load = NULL;
    for (unsigned long long busy_s = 7; busy_s <= 8; busy_s++) {
        FILE *file = fopen(path, "w");
        CHECK(file && fprintf(file, format, busy_s * second) > 0 && fclose(file) == 0);
        if (!load) load = load_open(text, 0, 50, 250, error, sizeof error);
        CHECK(load && load_known_until(load, (int64_t)busy_s * SECOND) == (int64_t)busy_s * SECOND);
    }
    double power_w;
    CHECK(load_power_w(load, 15 * SECOND / 2, &power_w));
    CHECK(fabs(power_w - (50 + 200.0 / (double)sysconf(_SC_NPROCESSORS_ONLN))) < 1e-6);
    CHECK(unlink(path) == 0); /* the group is gone: nothing runs in it */
    CHECK(load_known_until(load, 9 * SECOND) == 9 * SECOND);
    CHECK(load_power_w(load, 17 * SECOND / 2, &power_w) && fabs(power_w - 50) < 1e-6);
    load_close(load);
}

/* A sum that was read late holds work of after its moment: no poll shows more than the card's most, and nothing is
 * lost. */
static void test_a_late_look_at_the_clock(void) {
    char path[] = "/tmp/llmpower-load-XXXXXX", text[64], error[256];
    CHECK(close(mkstemp(path)) == 0);
    snprintf(text, sizeof text, "cpu:%s", path);
    double processors = (double)sysconf(_SC_NPROCESSORS_ONLN), power_w, first_j, last_j;
    struct load *load = NULL;
    const double busy_s[] = {7, 7 + 1.5 * processors, 7 + 2 * processors};
    for (int poll = 0; poll < 3; poll++) {
        FILE *file = fopen(path, "w");
        CHECK(file && fprintf(file, "usage_usec %.0f\n", busy_s[poll] * 1e6) > 0 && fclose(file) == 0);
        if (!load) load = load_open(text, 0, 50, 250, error, sizeof error);
        CHECK(load && load_known_until(load, (7 + poll) * SECOND) == (7 + poll) * SECOND);
    }
    CHECK(load_power_w(load, 15 * SECOND / 2, &power_w) && fabs(power_w - 250) < 1e-4);
    CHECK(load_energy_j(load, 7 * SECOND, &first_j) && load_energy_j(load, 9 * SECOND, &last_j));
    CHECK(fabs(last_j - first_j - 2 * 250) < 1e-4);
    CHECK(unlink(path) == 0);
    load_close(load);
}

static void test_nonsense(void) {
    const char *texts[] = {"",
                           "cpus",
                           "cpu:",
                           "cpu:/dev/null/none",
                           "constant:",
                           "constant:-1",
                           "constant:1x",
                           "square:1,2",
                           "square:1,2,-1",
                           "square:1,2,3,4",
                           "constant:nan",
                           "file:/dev/null/none"};
    char error[256];
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        CHECK(load_open(texts[i], 0, 0, 0, error, sizeof error) == NULL);
        CHECK(error[0] != '\0');
    }
}

static void test_power(void) {
    char error[256];
    double power_w, idle_j, later_j;
    struct load *load = load_open("square:100,500,2,0.25", 0, 0, 0, error, sizeof error);
    CHECK(load_power_w(load, 0, &power_w) && power_w == 500);
    CHECK(load_power_w(load, SECOND / 2, &power_w) &&
          fabs(power_w - 100) < 1e-9); /* an edge is already the next step */
    CHECK(load_power_w(load, 2001 * SECOND, &power_w) && fabs(power_w - 100) < 1e-9);
    CHECK(!load_power_w(load, -1, &power_w));
    load_close(load);

    load = load_open("cpu", 0, 50, 50, error, sizeof error); /* idle as high as busy: the same on any machine */
    CHECK(load && !load_power_w(load, SECOND, &power_w));
    CHECK(load_known_until(load, SECOND) == SECOND && load_known_until(load, 2 * SECOND) == 2 * SECOND);
    CHECK(load_power_w(load, 3 * SECOND / 2, &power_w) && fabs(power_w - 50) < 1e-9);
    CHECK(load_energy_j(load, SECOND, &idle_j) && load_energy_j(load, 2 * SECOND, &later_j));
    CHECK(fabs(later_j - idle_j - 50) < 1e-9);
    CHECK(!load_energy_j(load, SECOND - 1, &idle_j) && !load_energy_j(load, 2 * SECOND + 1, &idle_j));
    load_close(load);
}

int main(void) {
    test_waveforms();
    test_a_file_for_each_gpu();
    test_a_control_group("%llu\n", 1000000000);
    test_a_control_group("usage_usec %llu\nuser_usec 1\n", 1000000);
    test_a_late_look_at_the_clock();
    test_nonsense();
    test_power();
    puts("load: ok");
    return 0;
}
