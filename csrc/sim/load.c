/* load.c - see load.h. */
#include "load.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_STEPS = 100000, HISTORY = 1 << 16 };

static const char OWN[] = "{gpu}";
static const int64_t POLL_NS = 5000000; /* /proc/stat moves every 10 ms: finer polling would only cost */

struct point {
    int64_t time_ns;
    double busy_s; /* of all processors, since boot */
};

struct load {
    /* Waveform: step k lasts until end_s[k] and uses energy_j[k] from the period's start to its own end. */
    size_t steps;
    double *end_s, *energy_j;
    /* CPU drive, when steps is 0: the latest HISTORY polls. */
    double idle_w, max_w, processors, ticks_per_s;
    char *group; /* whose busy time, as a file of its control group; NULL is the machine */
    struct point *history;
    size_t polls;
};

/* --- Waveforms -------------------------------------------------------------------------------------------------- */

static bool append_step(struct load *load, double duration_s, double power_w) {
    if (load->steps == MAX_STEPS || !(duration_s > 0) || !(power_w >= 0) || !isfinite(duration_s + power_w))
        return false;
    if ((load->steps & (load->steps - 1)) == 0) { /* at each power of two the room doubles */
        size_t room = load->steps ? 2 * load->steps : 1;
        double *end_s = realloc(load->end_s, room * sizeof *end_s);
        if (end_s) load->end_s = end_s;
        double *energy_j = realloc(load->energy_j, room * sizeof *energy_j);
        if (energy_j) load->energy_j = energy_j;
        if (!end_s || !energy_j) return false;
    }
    double start_s = load->steps ? load->end_s[load->steps - 1] : 0;
    double start_j = load->steps ? load->energy_j[load->steps - 1] : 0;
    load->end_s[load->steps] = start_s + duration_s;
    load->energy_j[load->steps] = start_j + duration_s * power_w;
    load->steps++;
    return true;
}

static bool parse_square(struct load *load, const char *text) {
    double low_w, high_w, period_s, duty = 0.5;
    char rest;
    int found = sscanf(text, "%lf,%lf,%lf,%lf%c", &low_w, &high_w, &period_s, &duty, &rest);
    if (found != 3 && found != 4) return false;
    return append_step(load, period_s * duty, high_w) && append_step(load, period_s * (1 - duty), low_w);
}

static bool parse_file(struct load *load, const char *text, unsigned int gpu, char *error, size_t error_size) {
    char path[4096];
    const char *own = strstr(text, OWN);
    int length = own ? snprintf(path, sizeof path, "%.*s%u%s", (int)(own - text), text, gpu, own + strlen(OWN))
                     : snprintf(path, sizeof path, "%s", text);
    FILE *stream = length < (int)sizeof path ? fopen(path, "re") : NULL;
    if (!stream) {
        snprintf(error, error_size, "cannot read %s: %s", path, strerror(errno));
        return false;
    }
    char line[256], rest;
    bool good = true;
    for (int number = 1; good && fgets(line, sizeof line, stream); number++) {
        double duration_s, power_w;
        line[strcspn(line, "#\n")] = '\0';
        if (line[strspn(line, " \t")] == '\0') continue;
        good = sscanf(line, "%lf %lf %c", &duration_s, &power_w, &rest) == 2 && append_step(load, duration_s, power_w);
        if (!good) snprintf(error, error_size, "%s, line %d: want SECONDS WATTS, found \"%s\"", path, number, line);
    }
    fclose(stream);
    if (good && load->steps == 0) snprintf(error, error_size, "%s holds no steps", path);
    return good && load->steps > 0;
}

/* The step that holds within_s, a time within the first period. */
static size_t step_at(const struct load *load, double within_s) {
    size_t low = 0, high = load->steps - 1; /* the first step that ends after within_s */
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (load->end_s[middle] > within_s)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static double step_power_w(const struct load *load, size_t step) {
    double start_s = step ? load->end_s[step - 1] : 0, start_j = step ? load->energy_j[step - 1] : 0;
    return (load->energy_j[step] - start_j) / (load->end_s[step] - start_s);
}

static double waveform_energy_j(const struct load *load, double time_s) {
    double period_s = load->end_s[load->steps - 1], period_j = load->energy_j[load->steps - 1];
    double whole = floor(time_s / period_s), within_s = time_s - whole * period_s;
    size_t step = step_at(load, within_s);
    double start_s = step ? load->end_s[step - 1] : 0, start_j = step ? load->energy_j[step - 1] : 0;
    return whole * period_j + start_j + (within_s - start_s) * step_power_w(load, step);
}

static double waveform_power_w(const struct load *load, double time_s) {
    double period_s = load->end_s[load->steps - 1];
    return step_power_w(load, step_at(load, time_s - floor(time_s / period_s) * period_s));
}

/* --- CPU drive -------------------------------------------------------------------------------------------------- */

/* Seconds that a control group has run; negative when the file says neither nanoseconds nor usage_usec. */
static double group_busy_s(const char *path) {
    FILE *stream = fopen(path, "re");
    if (!stream) return -1;
    unsigned long long used;
    double busy = -1;
    if (fscanf(stream, "usage_usec %llu", &used) == 1)
        busy = (double)used * 1e-6;
    else if (fscanf(stream, "%llu", &used) == 1)
        busy = (double)used * 1e-9;
    fclose(stream);
    return busy;
}

/* Seconds that processors have been busy, for the group or for all; negative when the kernel does not say. */
static double busy_s(const struct load *load) {
    if (load->group) return group_busy_s(load->group);
    FILE *stream = fopen("/proc/stat", "re");
    if (!stream) return -1;
    unsigned long long user, nice, system, idle, iowait, irq, softirq, steal;
    int found = fscanf(stream, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &user, &nice, &system, &idle, &iowait,
                       &irq, &softirq, &steal);
    fclose(stream);
    return found == 8 ? (double)(user + nice + system + irq + softirq) / load->ticks_per_s : -1;
}

static const struct point *poll_at(const struct load *load, size_t poll) { return &load->history[poll % HISTORY]; }

static void poll_cpu(struct load *load, int64_t now_ns) {
    double busy = busy_s(load);
    if (load->polls) {
        const struct point *before = poll_at(load, load->polls - 1);
        /* The kernel's sums can step back by a tick when an idle processor wakes; energy never does. */
        if (busy < before->busy_s) busy = before->busy_s;
        /* On a crowded machine seconds can pass between the clock and the sum. What was busy in them is not before
         * now_ns: no card draws more than its most, so the rest is left for the next poll. */
        double most = before->busy_s + load->processors * (double)(now_ns - before->time_ns) * 1e-9;
        if (busy > most) busy = most;
    }
    load->history[load->polls++ % HISTORY] = (struct point){now_ns, busy};
}

static double cpu_energy_j(const struct load *load, const struct point *point) {
    return load->idle_w * (double)point->time_ns * 1e-9 +
           (load->max_w - load->idle_w) * point->busy_s / load->processors;
}

/* The polls around time_ns; false when it lies outside what is kept. */
static bool polls_around(const struct load *load, int64_t time_ns, const struct point **before,
                         const struct point **after) {
    if (!load->polls) return false;
    size_t low = load->polls > HISTORY ? load->polls - HISTORY : 0, high = load->polls - 1;
    if (time_ns < poll_at(load, low)->time_ns || time_ns > poll_at(load, high)->time_ns) return false;
    while (high - low > 1) { /* keep low <= time_ns <= high */
        size_t middle = (low + high) / 2;
        if (poll_at(load, middle)->time_ns <= time_ns)
            low = middle;
        else
            high = middle;
    }
    *before = poll_at(load, low);
    *after = poll_at(load, high);
    return true;
}

/* Watts between two polls; a single one, or two at one moment, say nothing and stand for idle. */
static double power_between_w(const struct load *load, const struct point *before, const struct point *after) {
    if (after->time_ns == before->time_ns) return load->idle_w;
    return (cpu_energy_j(load, after) - cpu_energy_j(load, before)) /
           ((double)(after->time_ns - before->time_ns) * 1e-9);
}

static bool open_cpu(struct load *load, const char *group, char *error, size_t error_size) {
    if (group && !(load->group = strdup(group))) return false;
    load->processors = (double)sysconf(_SC_NPROCESSORS_ONLN);
    load->ticks_per_s = (double)sysconf(_SC_CLK_TCK);
    load->history = calloc(HISTORY, sizeof *load->history);
    if (load->history && busy_s(load) >= 0) return true;
    snprintf(error, error_size, "the CPU drive needs %s", group ? group : "/proc/stat");
    return false;
}

/* --- Interface -------------------------------------------------------------------------------------------------- */

bool load_is_shared(const char *text) { return !strstr(text, OWN); }

struct load *load_open(const char *text, unsigned int gpu, double idle_w, double max_w, char *error,
                       size_t error_size) {
    struct load *load = calloc(1, sizeof *load);
    if (!load) return NULL;
    load->idle_w = idle_w;
    load->max_w = max_w;
    double power_w;
    char rest;
    bool good;
    snprintf(error, error_size,
             "\"%s\" is none of cpu, cpu:PATH, constant:W, square:LOW,HIGH,PERIOD_S[,DUTY], file:PATH", text);
    if (strcmp(text, "cpu") == 0)
        good = open_cpu(load, NULL, error, error_size);
    else if (strncmp(text, "cpu:", 4) == 0)
        good = open_cpu(load, text + 4, error, error_size);
    else if (strncmp(text, "constant:", 9) == 0)
        good = sscanf(text + 9, "%lf%c", &power_w, &rest) == 1 && append_step(load, 1, power_w);
    else if (strncmp(text, "square:", 7) == 0)
        good = parse_square(load, text + 7);
    else if (strncmp(text, "file:", 5) == 0)
        good = parse_file(load, text + 5, gpu, error, error_size);
    else
        good = false;
    if (good) return load;
    load_close(load);
    return NULL;
}

void load_close(struct load *load) {
    free(load->end_s);
    free(load->energy_j);
    free(load->history);
    free(load->group);
    free(load);
}

int64_t load_known_until(struct load *load, int64_t now_ns) {
    if (load->steps) return now_ns;
    if (!load->polls || now_ns - poll_at(load, load->polls - 1)->time_ns >= POLL_NS) poll_cpu(load, now_ns);
    return poll_at(load, load->polls - 1)->time_ns;
}

int64_t load_known_since(const struct load *load) {
    if (load->steps || !load->polls) return 0;
    return poll_at(load, load->polls > HISTORY ? load->polls - HISTORY : 0)->time_ns;
}

bool load_energy_j(const struct load *load, int64_t time_ns, double *energy_j) {
    if (load->steps) {
        *energy_j = waveform_energy_j(load, (double)time_ns * 1e-9);
        return time_ns >= 0;
    }
    const struct point *before, *after;
    if (!polls_around(load, time_ns, &before, &after)) return false;
    double elapsed_s = (double)(time_ns - before->time_ns) * 1e-9;
    *energy_j = cpu_energy_j(load, before) + elapsed_s * power_between_w(load, before, after);
    return true;
}

bool load_power_w(const struct load *load, int64_t time_ns, double *power_w) {
    if (load->steps) {
        *power_w = waveform_power_w(load, (double)time_ns * 1e-9);
        return time_ns >= 0;
    }
    const struct point *before, *after;
    if (!polls_around(load, time_ns, &before, &after)) return false;
    *power_w = power_between_w(load, before, after);
    return true;
}
