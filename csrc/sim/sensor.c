/* sensor.c - see sensor.h.
 *
 * Moments of updates are a function of seed and number alone, t_k = k T + jitter(seed, k): nothing depends on who asks
 * or how often, so two processes see one card and a test can say when each update must come. */
#include "sensor.h"

#include <math.h>

static const int64_t STEP_NS = 1000000;
static const int64_t AVERAGE_NS = 1000000000;

static int64_t to_ns(double seconds) { return (int64_t)llround(seconds * 1e9); }

/* A number that looks random and is a function of its arguments (splitmix64's finaliser), uniform in [0, 1). */
static double uniform(uint64_t seed, uint64_t index) {
    uint64_t mixed = seed + (index + 1) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return (double)((mixed ^ (mixed >> 31)) >> 11) * 0x1p-53;
}

/* Near enough to a normal deviate: twelve uniforms, so never beyond 6 standard deviations and updates keep order. */
static double deviate(uint64_t seed, uint64_t index) {
    double sum = -6;
    for (uint64_t i = 0; i < 12; i++) sum += uniform(seed, 12 * index + i);
    return sum;
}

static int64_t moment_ns(uint64_t seed, int64_t number, double period_s, double jitter_s) {
    return to_ns((double)number * period_s + jitter_s * deviate(seed, (uint64_t)number));
}

/* The number of the latest update at or before time_ns. */
static int64_t latest_update(uint64_t seed, int64_t time_ns, double period_s, double jitter_s) {
    int64_t number = (int64_t)floor((double)time_ns * 1e-9 / period_s) + 1;
    while (moment_ns(seed, number, period_s, jitter_s) > time_ns) number--;
    return number;
}

static uint64_t power_seed(const struct sensor *sensor) { return sensor->seed; }
static uint64_t counter_seed(const struct sensor *sensor) { return sensor->seed ^ 0xC0FFEEu; }

/* Integral of the lagged power up to time_ns, which lies within the kept history. */
static double lagged_energy_j(const struct sensor *sensor, int64_t time_ns) {
    if (sensor->steps == 0) return 0;
    double back = (double)(sensor->stepped_to_ns - time_ns) / (double)STEP_NS;
    uint64_t oldest = sensor->steps > SENSOR_HISTORY ? sensor->steps - SENSOR_HISTORY : 0;
    double at = (double)(sensor->steps - 1) - back; /* in steps, fractional */
    if (at <= (double)oldest) at = (double)oldest;
    uint64_t whole = (uint64_t)at;
    double low = sensor->lagged_j[whole % SENSOR_HISTORY];
    if (whole + 1 >= sensor->steps) return low;
    return low + (at - (double)whole) * (sensor->lagged_j[(whole + 1) % SENSOR_HISTORY] - low);
}

static double window_mean_w(const struct sensor *sensor, int64_t end_ns, int64_t window_ns) {
    return (lagged_energy_j(sensor, end_ns) - lagged_energy_j(sensor, end_ns - window_ns)) / ((double)window_ns * 1e-9);
}

static double shown_w(const struct sensor *sensor, double power_w) {
    double value = sensor->gain * power_w + sensor->offset_w;
    return value > 0 ? value : 0;
}

static void update_reading(struct sensor *sensor) {
    const struct preset *preset = sensor->preset;
    sensor->instant_w = shown_w(sensor, window_mean_w(sensor, sensor->next_update_ns, to_ns(preset->window_s)));
    sensor->average_w = shown_w(sensor, window_mean_w(sensor, sensor->next_update_ns, AVERAGE_NS));
    sensor->update++;
    sensor->next_update_ns =
        moment_ns(power_seed(sensor), sensor->update + 1, preset->update_period_s, preset->update_jitter_s);
}

static void push_step(struct sensor *sensor, double step_s) {
    double before_j = sensor->steps ? sensor->lagged_j[(sensor->steps - 1) % SENSOR_HISTORY] : 0;
    sensor->lagged_j[sensor->steps++ % SENSOR_HISTORY] = before_j + sensor->lagged_w * step_s;
}

/* Start over at start_ns as if the power had long been what it is there. */
static void settle(struct sensor *sensor, int64_t start_ns) {
    double before_j, after_j;
    const struct preset *preset = sensor->preset;
    if (load_energy_j(sensor->load, start_ns, &before_j) && load_energy_j(sensor->load, start_ns + STEP_NS, &after_j))
        sensor->lagged_w = (after_j - before_j) / ((double)STEP_NS * 1e-9);
    else
        sensor->lagged_w = preset->idle_w;
    sensor->steps = 0;
    for (int64_t t_ns = 0; t_ns <= AVERAGE_NS + to_ns(preset->window_s); t_ns += STEP_NS)
        push_step(sensor, (double)STEP_NS * 1e-9);
    sensor->stepped_to_ns = start_ns;
    sensor->update = latest_update(power_seed(sensor), start_ns, preset->update_period_s, preset->update_jitter_s) - 1;
    sensor->next_update_ns = start_ns;
    update_reading(sensor);
}

void sensor_init(struct sensor *sensor, const struct preset *preset, struct load *load, uint64_t seed, double gain,
                 double offset_w, int64_t now_ns) {
    *sensor = (struct sensor){.preset = preset, .load = load, .seed = seed, .gain = gain, .offset_w = offset_w};
    int64_t start_ns = now_ns - 2 * AVERAGE_NS;
    int64_t since_ns = load_known_since(load);
    settle(sensor, start_ns > since_ns ? start_ns : since_ns);
    sensor_advance(sensor, now_ns);
}

void sensor_advance(struct sensor *sensor, int64_t time_ns) {
    if (time_ns - sensor->stepped_to_ns > 3 * AVERAGE_NS) {
        /* Nobody has asked for seconds: what lies further back than every window no longer shows. */
        int64_t start_ns = time_ns - 2 * AVERAGE_NS, since_ns = load_known_since(sensor->load);
        settle(sensor, start_ns > since_ns ? start_ns : since_ns);
    }
    const double step_s = (double)STEP_NS * 1e-9;
    const double follow = 1 - exp(-step_s / sensor->preset->rise_s);
    double before_j, after_j;
    if (!load_energy_j(sensor->load, sensor->stepped_to_ns, &before_j)) return;
    while (sensor->stepped_to_ns + STEP_NS <= time_ns) {
        if (!load_energy_j(sensor->load, sensor->stepped_to_ns + STEP_NS, &after_j)) return;
        sensor->lagged_w += follow * ((after_j - before_j) / step_s - sensor->lagged_w);
        push_step(sensor, step_s);
        sensor->stepped_to_ns += STEP_NS;
        before_j = after_j;
        while (sensor->next_update_ns <= sensor->stepped_to_ns) update_reading(sensor);
    }
}

uint64_t sensor_counter_mj(const struct sensor *sensor, int64_t time_ns) {
    const struct preset *preset = sensor->preset;
    double energy_j;
    int64_t number = latest_update(counter_seed(sensor), time_ns, preset->counter_period_s, preset->counter_jitter_s);
    int64_t at_ns = moment_ns(counter_seed(sensor), number, preset->counter_period_s, preset->counter_jitter_s);
    if (!load_energy_j(sensor->load, at_ns, &energy_j)) {
        /* Before our first look at the CPU: the tick that is showing then. */
        at_ns = load_known_since(sensor->load);
        if (!load_energy_j(sensor->load, at_ns, &energy_j)) return 0;
    }
    double shown_j = sensor->gain * energy_j + sensor->offset_w * (double)at_ns * 1e-9;
    return (uint64_t)floor(shown_j * 1e3);
}
