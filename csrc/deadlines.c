/* deadlines.c - when each channel of a worker is read: on a grid of its own, on its updates, and within the budget. */
#include "deadlines.h"

#include <math.h>

static const int64_t MAX_BACKOFF_NS = 1000000000; /* a device that keeps failing is asked once a second */
static const int64_t SLOWEST_SEARCH_NS = 5000000; /* finds periods from 10 ms on */
static const int64_t FASTEST_SEARCH_NS = 1000000;
static const int64_t SEARCH_COST = 10; /* a search passes a tenth of its time inside reads at most */
static const double REST = 4;          /* factor by which intervals are longer at rest, and may cost less */
static const double LOOK_NS = 250e6;   /* or so long, for what is only looked at */

struct channel *deadlines_earliest(struct worker *worker) {
    struct channel *first = &worker->channels[0];
    for (uint32_t i = 1; i < worker->channel_count; i++)
        if (worker->channels[i].deadline_ns < first->deadline_ns) first = &worker->channels[i];
    return first;
}

/* Whole intervals past now on the fixed grid. One is the rule; more means missed ticks. */
static void advance_uniformly(struct worker *worker, struct channel *channel, int64_t interval_ns, int64_t now_ns) {
    if (channel->failures > 1) { /* one alone is no reason to wait */
        uint32_t doublings = channel->failures < 20 ? channel->failures - 1 : 20;
        int64_t backoff_ns = interval_ns << doublings;
        if (backoff_ns > MAX_BACKOFF_NS) backoff_ns = MAX_BACKOFF_NS;
        if (backoff_ns > interval_ns) interval_ns = backoff_ns;
    }
    channel->deadline_ns += interval_ns;
    if (channel->deadline_ns > now_ns) return;
    int64_t missed = (now_ns - channel->deadline_ns) / interval_ns + 1;
    channel->deadline_ns += missed * interval_ns;
    atomic_fetch_add_explicit(&worker->statistics.missed_ticks, (uint64_t)missed, memory_order_relaxed);
}

/* A search reads faster than was asked for, but no faster than what calls have been seen to cost allows. */
static int64_t search_interval_ns(const struct worker *worker, int64_t interval_ns) {
    int64_t search_ns = interval_ns / 4 < SLOWEST_SEARCH_NS ? interval_ns / 4 : SLOWEST_SEARCH_NS;
    if (search_ns < FASTEST_SEARCH_NS) search_ns = FASTEST_SEARCH_NS;
    int64_t affordable_ns = SEARCH_COST * worker->fastest_sum_ns;
    return search_ns > affordable_ns ? search_ns : affordable_ns;
}

void deadlines_advance(struct worker *worker, struct channel *channel, int64_t now_ns) {
    int64_t interval_ns = worker_get(&channel->interval_ns), next_ns = 0;
    if (channel->follows) {
        struct phase *phase = &channel->phase;
        if (!channel->failures)
            next_ns = phase_next(phase, now_ns, interval_ns, search_interval_ns(worker, interval_ns));
        atomic_store_explicit(&channel->locked, phase->locked && next_ns, memory_order_relaxed);
        worker_set(&channel->period_ns, (int64_t)phase->period_ns);
        worker_set(&channel->jitter_ns, phase_jitter_ns(phase));
        worker_set(&channel->edge_width_ns, phase->width_ns);
    }
    if (next_ns)
        channel->deadline_ns = next_ns;
    else
        advance_uniformly(worker, channel, interval_ns, now_ns);
}

double deadlines_asked_ns(const struct worker *worker, const struct channel *channel) {
    bool resting = atomic_load_explicit(&worker->resting, memory_order_relaxed);
    if (!resting) return (double)channel->requested_interval_ns;
    if (!channel->shown) return REST * (double)channel->requested_interval_ns;
    return fmax((double)channel->requested_interval_ns, LOOK_NS);
}

/* As asked for; unless it rests, up to twice as often where the value moves so fast that its updates could not be
 * followed otherwise. */
static double wanted_interval_ns(const struct worker *worker, const struct channel *channel) {
    double interval_ns = deadlines_asked_ns(worker, channel);
    double enough_ns = channel->phase.period_ns / PHASE_FEWEST_READS;
    bool resting = atomic_load_explicit(&worker->resting, memory_order_relaxed);
    if (resting || enough_ns <= 0 || enough_ns >= interval_ns) return interval_ns;
    return enough_ns > interval_ns / 2 ? enough_ns : interval_ns / 2;
}

/* Loads, latency / interval, are cut at one level, so a channel whose calls are cheap does not pay for one whose calls
 * are expensive. */
void deadlines_throttle(struct worker *worker, int64_t now_ns) {
    double bound = budget_share(&worker->budget, now_ns, worker_get(&worker->statistics.read_ns));
    if (atomic_load_explicit(&worker->resting, memory_order_relaxed)) bound /= REST;
    double load[LLMPOWER_MAX_CHANNELS], low = 0, high = bound;
    for (uint32_t i = 0; i < worker->channel_count; i++)
        load[i] =
            (double)worker_get(&worker->channels[i].latency_ns) / wanted_interval_ns(worker, &worker->channels[i]);
    for (int step = 0; step < 30; step++) {
        double level = (low + high) / 2, sum = 0;
        for (uint32_t i = 0; i < worker->channel_count; i++) sum += load[i] < level ? load[i] : level;
        *(sum > bound ? &high : &low) = level;
    }
    for (uint32_t i = 0; i < worker->channel_count; i++) {
        struct channel *channel = &worker->channels[i];
        double factor = load[i] > low ? load[i] / low : 1;
        worker_set(&channel->interval_ns, (int64_t)(wanted_interval_ns(worker, channel) * factor));
    }
}
