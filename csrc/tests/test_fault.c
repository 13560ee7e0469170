/* test_fault.c - faults as functions of time, the distribution of latencies, and texts that are neither. */
#include <math.h>
#include <string.h>

#include "../sim/fault.h"
#include "../sim/latency.h"
#include "check.h"

static const int64_t SECOND = 1000000000;
static char error[512];

static struct faults faults_of(const char *text) {
    struct faults faults;
    CHECK(faults_parse(&faults, text, error, sizeof error));
    return faults;
}

static void test_words(void) {
    struct faults none = faults_of(""), many = faults_of("no_energy@1,freeze:1.5,0.7,mig,lost_after:20@0,reset:3");
    CHECK(none.count == 0 && many.count == 5);
    CHECK(faults_has(&many, FAULT_NO_ENERGY, 1) && !faults_has(&many, FAULT_NO_ENERGY, 0));
    CHECK(faults_has(&many, FAULT_MIG, 0) && faults_has(&many, FAULT_MIG, 7) && !faults_has(&many, FAULT_SKIP, 0));
    CHECK(faults_number(&many, FAULT_LOST_AFTER, 0, -1) == 20 && faults_number(&many, FAULT_LOST_AFTER, 1, -1) == -1);
}

static void test_no_words(void) {
    const char *texts[] = {"gremlins",  "freeze",     "freeze:1",      "freeze:1,2,3",   "freeze:-1,2", "skip:0.95",
                           "skip:",     "skip:0.1x",  "init:1",        "lost:1@",        "lost:1@x",    "mig,,mig",
                           "reset:1,2", "no_energyx", "no_energy@1@2", "lost_after:nan", "hang:1,2e9",  " mig"};
    struct faults faults;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        error[0] = '\0';
        CHECK(!faults_parse(&faults, texts[i], error, sizeof error));
        CHECK(error[0] != '\0');
    }
    char long_text[256] = "mig";
    for (int i = 0; i < MAX_FAULTS; i++) strcat(long_text, ",mig");
    CHECK(!faults_parse(&faults, long_text, error, sizeof error));
}

static void test_times(void) {
    struct faults frozen = faults_of("freeze:2,0.7@0,freeze:5,0.5");
    CHECK(faults_view_ns(&frozen, 0, 2 * SECOND - 1) == 2 * SECOND - 1);
    CHECK(faults_view_ns(&frozen, 0, 27 * SECOND / 10 - 1) == 2 * SECOND);
    CHECK(faults_view_ns(&frozen, 0, 27 * SECOND / 10) == 27 * SECOND / 10);
    CHECK(faults_view_ns(&frozen, 1, 5 * SECOND / 2) == 5 * SECOND / 2);
    CHECK(faults_view_ns(&frozen, 1, 5 * SECOND + 1) == 5 * SECOND);

    struct faults reset = faults_of("reset:4,reset:2");
    CHECK(faults_reset_ns(&reset, 0, SECOND) == -1);
    CHECK(faults_reset_ns(&reset, 0, 3 * SECOND) == 2 * SECOND && faults_reset_ns(&reset, 0, 9 * SECOND) == 4 * SECOND);

    struct faults lost = faults_of("lost:1,0.5,lost:3");
    CHECK(!faults_lost(&lost, 0, SECOND - 1) && faults_lost(&lost, 0, SECOND) && !faults_lost(&lost, 0, 2 * SECOND));
    CHECK(faults_lost(&lost, 0, 1000 * SECOND));
    CHECK(faults_returns(&lost, 0, SECOND) == 0 && faults_returns(&lost, 0, 1000 * SECOND) == 1);

    struct faults hung = faults_of("hang:1,2@3");
    CHECK(faults_hang_ns(&hung, 3, SECOND + 1) == 3 * SECOND && faults_hang_ns(&hung, 3, 3 * SECOND) == 3 * SECOND);
    CHECK(faults_hang_ns(&hung, 2, SECOND + 1) == SECOND + 1);

    struct faults now_and_then = faults_of("zero:0.2,zero:0.4,2");
    CHECK(faults_strike(&now_and_then, FAULT_ZERO, 0, 0, 0.19) && !faults_strike(&now_and_then, FAULT_ZERO, 0, 0, 0.3));
    CHECK(faults_strike(&now_and_then, FAULT_ZERO, 0, 2 * SECOND, 0.3));
    CHECK(!faults_strike(&now_and_then, FAULT_NOT_SUPPORTED, 0, 2 * SECOND, 0));
}

static void test_latency_words(void) {
    const double preset_s[CALLS] = {[CALL_ENERGY] = 2.4e-3, [CALL_USAGE] = 4e-6};
    struct latency latency;
    CHECK(latency_parse(&latency, "", preset_s, error, sizeof error) && latency.p50_s[CALL_ENERGY] == 0);
    CHECK(latency_draw_ns(&latency, CALL_ENERGY, 1, 1) == 0);
    CHECK(latency_parse(&latency, "preset,instant=0.05ms,usage=7us", preset_s, error, sizeof error));
    CHECK(latency.p50_s[CALL_ENERGY] == 2.4e-3 && latency.p50_s[CALL_OTHER] == 0);
    CHECK(fabs(latency.p50_s[CALL_INSTANT] - 50e-6) < 1e-12 && fabs(latency.p50_s[CALL_USAGE] - 7e-6) < 1e-12);
    const char *texts[] = {"slow",        "energy",  "energy=",   "energy=2.4",   "energy=2.4ks",
                           "energy=-1ms", "tea=1ms", "energy=2s", "energy=nanms", "energy=1ms x"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        CHECK(!latency_parse(&latency, texts[i], preset_s, error, sizeof error));
}

/* The board that the spread was taken from: 2.4 ms at the median, 6.6 ms the longest of some hundreds. */
static void test_latency_distribution(void) {
    enum { DRAWS = 20000 };
    struct latency latency = {.p50_s = {[CALL_ENERGY] = 2.4e-3}};
    int below = 0, beyond_double = 0, beyond_worst = 0;
    for (uint64_t i = 0; i < DRAWS; i++) {
        double taken_s = (double)latency_draw_ns(&latency, CALL_ENERGY, 11, i) * 1e-9;
        CHECK(taken_s > 0.3e-3 && taken_s < 20e-3);
        below += taken_s < 2.4e-3;
        beyond_double += taken_s > 4.8e-3;
        beyond_worst += taken_s > 6.6e-3;
    }
    CHECK(abs(below - DRAWS / 2) < DRAWS / 50);
    CHECK(beyond_double > DRAWS / 200 && beyond_double < DRAWS / 50);
    CHECK(beyond_worst > 0 && beyond_worst < DRAWS / 500);
    CHECK(latency_draw_ns(&latency, CALL_ENERGY, 11, 5) == latency_draw_ns(&latency, CALL_ENERGY, 11, 5));
    CHECK(latency_draw_ns(&latency, CALL_ENERGY, 11, 5) != latency_draw_ns(&latency, CALL_ENERGY, 12, 5));
}

int main(void) {
    test_words();
    test_no_words();
    test_times();
    test_latency_words();
    test_latency_distribution();
    puts("fault: ok");
    return 0;
}
