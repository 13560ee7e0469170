/* latency.c - see latency.h. */
#include "latency.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "chance.h"

/* One board's energy call took 2.4 ms at the median and 6.6 ms at worst: a factor of e^(3.4 x 0.3). */
static const double SPREAD = 0.3;
static const double LONGEST_S = 1;

static const char *const names[CALLS] = {"other", "energy", "instant", "average", "usage", "samples", "processes"};

static bool parse_one(struct latency *latency, const char *word) {
    char name[16], unit[4], rest;
    double number;
    if (sscanf(word, "%15[a-z]=%lf%3[a-z]%c", name, &number, unit, &rest) != 3) return false;
    double unit_s = strcmp(unit, "s") == 0 ? 1 : strcmp(unit, "ms") == 0 ? 1e-3 : strcmp(unit, "us") == 0 ? 1e-6 : NAN;
    if (!(number >= 0 && number * unit_s <= LONGEST_S)) return false;
    for (int call = 0; call < CALLS; call++) {
        if (strcmp(names[call], name) != 0) continue;
        latency->p50_s[call] = number * unit_s;
        return true;
    }
    return false;
}

bool latency_parse(struct latency *latency, const char *text, const double preset_s[CALLS], char *error,
                   size_t error_size) {
    char copy[256], *rest = NULL;
    *latency = (struct latency){0};
    snprintf(copy, sizeof copy, "%s", text);
    for (char *word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest)) {
        if (strcmp(word, "preset") == 0) {
            memcpy(latency->p50_s, preset_s, sizeof latency->p50_s);
        } else if (!parse_one(latency, word)) {
            snprintf(error, error_size,
                     "\"%s\": want preset, or NAME=NUMBERunit of at most one second, NAME being other, energy, "
                     "instant, average, usage, samples or processes and the unit us, ms or s",
                     word);
            return false;
        }
    }
    return true;
}

int64_t latency_draw_ns(const struct latency *latency, enum call call, uint64_t seed, uint64_t number) {
    double p50_s = latency->p50_s[call];
    return p50_s > 0 ? (int64_t)(p50_s * exp(SPREAD * chance_deviate(seed, number)) * 1e9) : 0;
}
