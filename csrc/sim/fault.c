/* fault.c - see fault.h. No clock and no state: what happens is a function of the faults and of a time. */
#include "fault.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may stand behind each name: numbers, how many at least and at most. */
static const struct {
    const char *name;
    bool share; /* the first number is one */
    int least, most;
} forms[FAULT_KINDS] = {
    [FAULT_INIT] = {"init", false, 0, 0},
    [FAULT_NO_ENERGY] = {"no_energy", false, 0, 0},
    [FAULT_NO_FIELDS] = {"no_fields", false, 0, 0},
    [FAULT_NO_USAGE] = {"no_usage", false, 0, 0},
    [FAULT_NO_POWER] = {"no_power", false, 0, 0},
    [FAULT_NO_PERMISSION] = {"no_permission", false, 0, 0},
    [FAULT_NO_TEMPERATURE] = {"no_temperature", false, 0, 0},
    [FAULT_NO_PROCESSES] = {"no_processes", false, 0, 0},
    [FAULT_WIDE_PROCESSES] = {"wide_processes", false, 0, 0},
    [FAULT_FREEZE] = {"freeze", false, 2, 2},
    [FAULT_SKIP] = {"skip", true, 1, 1},
    [FAULT_RESET] = {"reset", false, 1, 1},
    [FAULT_LOST] = {"lost", false, 1, 2},
    [FAULT_LOST_AFTER] = {"lost_after", false, 1, 1},
    [FAULT_NOT_SUPPORTED] = {"not_supported", true, 1, 2},
    [FAULT_ZERO] = {"zero", true, 1, 2},
    [FAULT_WILD] = {"wild", true, 1, 2},
    [FAULT_HANG] = {"hang", false, 2, 2},
    [FAULT_GH200] = {"gh200", false, 0, 0},
    [FAULT_MIG] = {"mig", false, 0, 0},
};

static const double MAX_SHARE = 0.9, MAX_NUMBER = 1e6;

static bool is_number(const char *text) { return *text >= '0' && *text <= '9'; }

/* Read one word at *text and move on behind it. */
static bool parse_one(struct fault *fault, const char **text) {
    const char *end = *text + strcspn(*text, ":@,");
    size_t length = (size_t)(end - *text);
    int kind = 0;
    while (kind < FAULT_KINDS && !(strlen(forms[kind].name) == length && !strncmp(forms[kind].name, *text, length)))
        kind++;
    if (kind == FAULT_KINDS) return false;
    *fault = (struct fault){.kind = (enum fault_kind)kind, .gpu = -1, .first = NAN, .second = NAN};
    double *numbers[] = {&fault->first, &fault->second};
    int found = 0;
    /* Names never begin with a digit, so a comma before one belongs to this fault. */
    while (found < 2 && (*end == ':' || (found && *end == ',')) && is_number(end + 1)) {
        char *behind;
        *numbers[found] = strtod(end + 1, &behind);
        if (!(*numbers[found++] <= MAX_NUMBER)) return false;
        end = behind;
    }
    if (found < forms[kind].least || found > forms[kind].most) return false;
    if (forms[kind].share && fault->first > MAX_SHARE) return false;
    if (*end == '@' && is_number(end + 1)) {
        char *behind;
        fault->gpu = (int)strtol(end + 1, &behind, 10);
        end = behind;
    }
    if (*end != ',' && *end != '\0') return false;
    *text = *end ? end + 1 : end;
    return true;
}

bool faults_parse(struct faults *faults, const char *text, char *error, size_t error_size) {
    *faults = (struct faults){0};
    while (*text) {
        if (faults->count == MAX_FAULTS) {
            snprintf(error, error_size, "more than %d faults", MAX_FAULTS);
            return false;
        }
        if (!parse_one(&faults->list[faults->count], &text)) {
            snprintf(error, error_size, "\"%s\" begins with no fault that there is; fault.h lists them", text);
            return false;
        }
        faults->count++;
    }
    return true;
}

static int64_t to_ns(double seconds) { return (int64_t)llround(seconds * 1e9); }
static int64_t begin_ns(const struct fault *fault) { return to_ns(fault->first); }
static int64_t end_ns(const struct fault *fault) { return to_ns(fault->first + fault->second); }

/* The first fault of this kind and GPU at or behind fault; NULL when there is none. */
static const struct fault *next(const struct faults *faults, const struct fault *fault, enum fault_kind kind,
                                unsigned int gpu) {
    for (; fault < faults->list + faults->count; fault++)
        if (fault->kind == kind && (fault->gpu < 0 || (unsigned int)fault->gpu == gpu)) return fault;
    return NULL;
}

#define FOR_EACH(fault, faults, kind, gpu)                                                   \
    for (const struct fault *fault = next((faults), (faults)->list, (kind), (gpu)); (fault); \
         (fault) = next((faults), (fault) + 1, (kind), (gpu)))

bool faults_has(const struct faults *faults, enum fault_kind kind, unsigned int gpu) {
    return next(faults, faults->list, kind, gpu) != NULL;
}

double faults_number(const struct faults *faults, enum fault_kind kind, unsigned int gpu, double otherwise) {
    const struct fault *fault = next(faults, faults->list, kind, gpu);
    return fault ? fault->first : otherwise;
}

int64_t faults_view_ns(const struct faults *faults, unsigned int gpu, int64_t time_ns) {
    FOR_EACH(fault, faults, FAULT_FREEZE, gpu) {
        if (time_ns >= begin_ns(fault) && time_ns < end_ns(fault)) return begin_ns(fault);
    }
    return time_ns;
}

int64_t faults_reset_ns(const struct faults *faults, unsigned int gpu, int64_t time_ns) {
    int64_t latest_ns = -1;
    FOR_EACH(fault, faults, FAULT_RESET, gpu) {
        if (begin_ns(fault) <= time_ns && begin_ns(fault) > latest_ns) latest_ns = begin_ns(fault);
    }
    return latest_ns;
}

bool faults_lost(const struct faults *faults, unsigned int gpu, int64_t time_ns) {
    FOR_EACH(fault, faults, FAULT_LOST, gpu) {
        if (time_ns >= begin_ns(fault) && (isnan(fault->second) || time_ns < end_ns(fault))) return true;
    }
    return false;
}

unsigned int faults_returns(const struct faults *faults, unsigned int gpu, int64_t time_ns) {
    unsigned int returns = 0;
    FOR_EACH(fault, faults, FAULT_LOST, gpu) {
        if (!isnan(fault->second) && time_ns >= end_ns(fault)) returns++;
    }
    return returns;
}

bool faults_strike(const struct faults *faults, enum fault_kind kind, unsigned int gpu, int64_t time_ns,
                   double chance) {
    FOR_EACH(fault, faults, kind, gpu) {
        if (chance < fault->first && (isnan(fault->second) || time_ns >= to_ns(fault->second))) return true;
    }
    return false;
}

int64_t faults_hang_ns(const struct faults *faults, unsigned int gpu, int64_t time_ns) {
    FOR_EACH(fault, faults, FAULT_HANG, gpu) {
        if (time_ns >= begin_ns(fault) && time_ns < end_ns(fault)) return end_ns(fault);
    }
    return time_ns;
}
