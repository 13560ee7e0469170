/* phase.c - see phase.h.
 *
 * The grid is followed by a line through the latest edges, fitted by least squares with a memory of about MEMORY edges
 * (the growing-memory filter): after edge k, of which r is the distance from its prediction,
 *     phase  += r * 2 (2 k - 1) / (k (k + 1))
 *     period += r * 6 / (k (k + 1)),    k <= MEMORY.
 * When the phase was lost and the period was not, k starts again for the phase alone.
 * The window that is polled finely reaches three standard deviations of r to either side of the prediction.
 *
 * Midway reads go on for as many updates as have been followed, up to MOST_UNSEEN: until then the line is off by no
 * more than the edges that it rests on. Where calls are cheap, and few because few were asked for, there are none:
 * edges that are seen closely are worth more. */
#include "phase.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "llmpower.h"

enum { MEMORY = 15, MAX_MISSES = 3, MAX_DOUBT = 8, MOST_UNSEEN = 128 };

static const int64_t FINEST_NS = 500000;           /* between reads inside the window */
static const int64_t UNIFORM_NS = 1000000;         /* who polls this often needs no lock */
static const int64_t SHORTEST_PERIOD_NS = 5000000; /* RAPL's millisecond is not worth following */
static const int64_t SEARCH_NS = 2000000000;       /* 20 updates of 100 ms */
static const int64_t FIRST_PAUSE_NS = 60000000000; /* from one search to the next, doubling */
static const int64_t LONGEST_PAUSE_NS = 600000000000;

void phase_init(struct phase *phase) { *phase = (struct phase){.search_pause_ns = FIRST_PAUSE_NS, .stride = 1}; }

static void unlock(struct phase *phase) {
    phase->locked = false;
    phase->misses = phase->edges = 0;
}

static void forget(struct phase *phase) {
    unlock(phase);
    phase->period_ns = 0;
}

void phase_restart(struct phase *phase) {
    unlock(phase);
    phase->primed = false;
}

/* The first two seconds, and again from time to time. */
static bool searching(struct phase *phase, int64_t now_ns) {
    if (!phase->search_ns) phase->search_ns = now_ns;
    if (now_ns - phase->search_ns >= phase->search_pause_ns) {
        phase->search_ns = now_ns;
        if (phase->search_pause_ns < LONGEST_PAUSE_NS) phase->search_pause_ns *= 2;
    }
    return now_ns - phase->search_ns < SEARCH_NS;
}

/* --- Taking reads in -------------------------------------------------------------------------------------------- */

static double half_window_ns(const struct phase *phase) {
    /* One step more, since the first read may come late. */
    double half_ns = 3 * sqrt(phase->variance_ns2) + (double)FINEST_NS;
    return half_ns > phase->period_ns / 4 ? phase->period_ns / 4 : half_ns;
}

static void lock(struct phase *phase, double edge_ns, double variance_ns2, uint32_t followed) {
    phase->locked = true;
    phase->predicted_ns = edge_ns + phase->period_ns * phase->stride;
    phase->variance_ns2 = variance_ns2;
    phase->followed = followed;
    phase->misses = phase->doubt = 0;
    phase->closely_ns = edge_ns;
    phase->span = followed;
}

static int ascending(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Find the grid that the kept edges lie on, if they do: number each by the median distance, fit a line. */
static void recognise(struct phase *phase) {
    int64_t distances_ns[PHASE_EDGES - 1];
    double width_ns = 0;
    for (int i = 1; i < PHASE_EDGES; i++) {
        distances_ns[i - 1] = phase->edge_ns[i] - phase->edge_ns[i - 1];
        width_ns += (double)phase->edge_width_ns[i] / (PHASE_EDGES - 1);
    }
    qsort(distances_ns, PHASE_EDGES - 1, sizeof *distances_ns, ascending);
    double typical_ns = (double)distances_ns[(PHASE_EDGES - 1) / 2];
    /* When every other read or so shows a change, the distances are those of the reads. */
    if (typical_ns < (double)SHORTEST_PERIOD_NS || width_ns > typical_ns / 1.5) return;

    double n = PHASE_EDGES, sum_k = 0, sum_t = 0, sum_kk = 0, sum_kt = 0, sum_tt = 0, k = 0;
    for (int i = 0; i < PHASE_EDGES; i++) {
        double t_ns = (double)(phase->edge_ns[i] - phase->edge_ns[0]);
        if (i) k += round((double)(phase->edge_ns[i] - phase->edge_ns[i - 1]) / typical_ns);
        sum_k += k, sum_t += t_ns, sum_kk += k * k, sum_kt += k * t_ns, sum_tt += t_ns * t_ns;
    }
    double scatter_kk = sum_kk - sum_k * sum_k / n, scatter_kt = sum_kt - sum_k * sum_t / n;
    double period_ns = scatter_kt / scatter_kk;
    double variance_ns2 = (sum_tt - sum_t * sum_t / n - period_ns * scatter_kt) / (n - 2);
    if (!(variance_ns2 < period_ns * period_ns / 36)) return; /* on no grid */
    /* Edges of coarse polling can lie on a line better than they are known. */
    if (variance_ns2 < width_ns * width_ns / 12) variance_ns2 = width_ns * width_ns / 12;
    double last_ns = (double)phase->edge_ns[0] + sum_t / n + period_ns * (k - sum_k / n);
    phase->period_ns = period_ns;
    phase->edges = 0;
    phase->learnt = PHASE_EDGES;
    lock(phase, last_ns, variance_ns2, PHASE_EDGES);
}

/* An edge while there is no lock. */
static void collect(struct phase *phase, double middle_ns, double width_ns) {
    if (phase->period_ns > 0) {
        /* The period is known already, so one edge gives the phase. */
        if (width_ns < phase->period_ns / 2) lock(phase, middle_ns, width_ns * width_ns / 12, 2);
        return;
    }
    if (phase->edges == PHASE_EDGES) {
        memmove(phase->edge_ns, phase->edge_ns + 1, (PHASE_EDGES - 1) * sizeof *phase->edge_ns);
        memmove(phase->edge_width_ns, phase->edge_width_ns + 1, (PHASE_EDGES - 1) * sizeof *phase->edge_width_ns);
        phase->edges--;
    }
    phase->edge_ns[phase->edges] = (int64_t)middle_ns;
    phase->edge_width_ns[phase->edges++] = (int64_t)width_ns;
    if (phase->edges == PHASE_EDGES) recognise(phase);
}

/* Whether calls take so long that most of them come midway. */
static bool is_slow(const struct phase *phase) { return phase->call_ns > LLMPOWER_SLOW_READ_NS; }

/* An edge under lock, and its residual r. Of a wide one r is the least that explains it: an interval around the
 * prediction teaches nothing. */
static void follow(struct phase *phase, double low_ns, double high_ns) {
    double period_ns = phase->period_ns, half_ns = half_window_ns(phase), width_ns = high_ns - low_ns;
    double middle_ns = (low_ns + high_ns) / 2;
    /* Ticks between the edges that we mean to see show in the first read of the window. */
    if (phase->stride > 1 && width_ns > 2.5 * half_ns && high_ns < phase->predicted_ns) return;
    if (width_ns > period_ns) return; /* it hides whole updates and says nothing about the phase */

    double nearest_ns = phase->predicted_ns + period_ns * round((middle_ns - phase->predicted_ns) / period_ns);
    double r = middle_ns - nearest_ns;
    if (width_ns > half_ns)
        r = nearest_ns < low_ns ? low_ns - nearest_ns : nearest_ns > high_ns ? high_ns - nearest_ns : 0;
    if (fabs(r) > period_ns * 3 / 8) {
        phase->doubt += 2; /* on no grid of ours: one such is a fault, several are another period */
        if (phase->doubt >= MAX_DOUBT) forget(phase);
        return;
    }
    double k = phase->followed < MEMORY ? ++phase->followed : MEMORY;
    double l = phase->learnt < MEMORY ? ++phase->learnt : MEMORY;
    double phase_gain = 2 * (2 * k - 1) / (k * (k + 1)), period_gain = 6 / (l * (l + 1)) / phase->stride;
    double passed = round((nearest_ns - phase->closely_ns) / period_ns);
    if (is_slow(phase) && passed > 2 * phase->stride) {
        /* After midway reads: the line through the edges before, whose middle lies half of their span back. */
        phase_gain = 1;
        period_gain = 1 / (passed + phase->span / 2);
    }
    /* Few reads a window show little of r, only on which side an edge has missed it: this finds the width that few do.
     */
    phase->variance_ns2 += (r * r - phase->variance_ns2) / 16;
    if (fabs(r) > 0.9 * half_ns) phase->variance_ns2 += half_ns * half_ns / 4;
    phase->period_ns += r * period_gain;
    phase->predicted_ns = nearest_ns + r * phase_gain + phase->period_ns * phase->stride;
    phase->misses = 0;
    if (phase->doubt) phase->doubt--;
    if (width_ns > period_ns / 2) return;
    phase->span = fmin(phase->span + passed, MOST_UNSEEN);
    phase->closely_ns = nearest_ns;
}

void phase_take(struct phase *phase, int64_t before_ns, int64_t after_ns, int64_t value) {
    int64_t low_ns = phase->last_before_ns;
    bool moved = phase->primed && value != phase->value;
    phase->primed = true;
    phase->value = value;
    phase->last_before_ns = before_ns;
    phase->call_ns += ((double)(after_ns - before_ns) - phase->call_ns) / 16;
    if (!moved) return;
    int64_t width_ns = after_ns - low_ns;
    phase->width_ns = phase->width_ns ? phase->width_ns + (width_ns - phase->width_ns) / 8 : width_ns;
    if (phase->locked)
        follow(phase, (double)low_ns, (double)after_ns);
    else
        collect(phase, (double)(low_ns + after_ns) / 2, (double)width_ns);
}

int64_t phase_jitter_ns(const struct phase *phase) { return phase->locked ? (int64_t)sqrt(phase->variance_ns2) : 0; }

/* --- Saying when ------------------------------------------------------------------------------------------------ */

/* The middle between two updates, such that midway reads come interval_ns apart on average; 0 when an edge is to be
 * seen closely. */
static int64_t midway(struct phase *phase, double now_ns, double interval_ns) {
    double period_ns = phase->period_ns;
    if (phase->stride == 1 || !is_slow(phase) || now_ns - phase->closely_ns > phase->span * period_ns) return 0;
    if (3 * sqrt(phase->variance_ns2) > period_ns * 3 / 8) return 0; /* it would not be known which update it shows */
    phase->midway_ns += interval_ns;
    if (phase->midway_ns < now_ns || phase->midway_ns > now_ns + 2 * interval_ns)
        phase->midway_ns = now_ns + interval_ns;
    double middle_ns = phase->predicted_ns - period_ns / 2;
    middle_ns += period_ns * round((phase->midway_ns - middle_ns) / period_ns);
    if (middle_ns <= now_ns) middle_ns += period_ns * ceil((now_ns - middle_ns) / period_ns);
    phase->predicted_ns = middle_ns + period_ns / 2; /* the next edge that could be seen closely */
    return (int64_t)middle_ns;
}

int64_t phase_next(struct phase *phase, int64_t now_ns, int64_t interval_ns, int64_t search_interval_ns) {
    if (interval_ns <= UNIFORM_NS) return 0;
    if (!phase->locked) {
        if (search_interval_ns >= interval_ns || !searching(phase, now_ns)) return 0;
        /* Uneven steps: even ones can beat with the period and show another. */
        double golden = (double)phase->searches++ * 0.61803398875;
        return now_ns + (int64_t)((double)search_interval_ns * (0.75 + 0.5 * (golden - floor(golden))));
    }
    double half_ns = half_window_ns(phase), now = (double)now_ns, interval = (double)interval_ns;
    /* Reads that one period has room for. Two can bracket an edge but not tell where it lies, so below three or so
     * edges are passed over, that others can be seen closely. */
    double reads = phase->period_ns / interval;
    phase->stride = reads < PHASE_FEWEST_READS - 0.5 ? (uint32_t)ceil(PHASE_FEWEST_READS / reads) : 1;
    int64_t midway_ns = midway(phase, now, interval);
    if (midway_ns) return midway_ns;
    /* Half of the window is polled before the edge comes, on average; a read and a half go to its ends, one to the
     * middle between windows if there is one. What is left when it is polled as finely as need be goes into a wider
     * window. */
    bool sparsely = phase->period_ns / 2 > 4 * interval;
    double spare = reads * phase->stride - (sparsely ? 2.5 : 1.5);
    if (spare < 0.5) spare = 0.5;
    double widest_ns = phase->period_ns / 4;
    if (half_ns < spare * (double)FINEST_NS)
        half_ns = spare * (double)FINEST_NS < widest_ns ? spare * (double)FINEST_NS : widest_ns;
    double step_ns = half_ns / spare;
    if (step_ns < (double)FINEST_NS) step_ns = (double)FINEST_NS;

    /* Where ticks are passed over, an early edge cannot be told from them, and uniform polling finds no late one: look
     * on for a late one, and when there is none either, it was early. */
    while (now > phase->predicted_ns + half_ns * (phase->stride > 1 ? 2 : 1)) {
        phase->predicted_ns += phase->period_ns * phase->stride;
        if (phase->stride > 1) {
            phase->predicted_ns -= half_ns;
            phase->variance_ns2 *= 2;
        }
        /* A freeze is many misses in a row and says nothing of the period; single ones again and again do. */
        if (!phase->misses++) phase->doubt += 2;
        if (phase->doubt >= MAX_DOUBT) {
            forget(phase);
            return 0;
        }
        if (phase->misses > MAX_MISSES) {
            unlock(phase);
            return 0;
        }
    }
    double open_ns = phase->predicted_ns - half_ns;
    if (now >= open_ns) return now_ns + (int64_t)step_ns;
    /* Elsewhere one read in the middle notices what was not predicted; after a miss the edge may come at any time. */
    double sparse_ns = sparsely ? phase->period_ns / 2 : 4 * interval;
    double next_ns = now + (phase->misses && phase->stride == 1 ? interval : sparse_ns);
    return (int64_t)(next_ns + step_ns < open_ns ? next_ns : open_ns);
}
