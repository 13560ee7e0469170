/* phase.h - when to read a value that moves at intervals of its own, so that few reads locate its moves closely.
 *
 * An edge is the interval from just before the last read that still showed the old value to just after the first that
 * showed the new one. Edges on a regular grid can be predicted: poll finely around the next one, sparsely elsewhere.
 * The same number of reads a second that find an edge to within 10 ms by uniform polling then find it to within 1 ms.
 *
 * Where calls are so slow that edges have to be passed over, a read midway between two updates says as much as an edge
 * to whoever knows the grid. So most reads come midway, and edges are located closely as often as needed for the grid
 * to stay known.
 *
 * Pure: it is given reads and says when to read next. It knows no clock, no thread and no NVML. Without a lock (the
 * value does not move, or on no grid, or its updates froze) it has no opinion, and the caller polls uniformly. */
#ifndef LLMPOWER_PHASE_H
#define LLMPOWER_PHASE_H

#include <stdbool.h>
#include <stdint.h>

enum { PHASE_EDGES = 8 }; /* that a grid is recognised by */

/* From one edge that is to be seen closely to the next. */
static const double PHASE_FEWEST_READS = 3.5;

struct phase {
    /* The latest good read. */
    bool primed;
    int64_t value, last_before_ns;

    /* Edges seen while there is no grid, oldest first. */
    int64_t edge_ns[PHASE_EDGES], edge_width_ns[PHASE_EDGES];
    uint32_t edges;
    int64_t width_ns;        /* of all edges, smoothed */
    int64_t search_ns;       /* when the latest burst of faster polling began */
    int64_t search_pause_ns; /* until the next one */
    uint32_t searches;       /* reads that were part of one */

    /* The grid, known when period_ns is not 0; its phase, known when locked. */
    bool locked;
    double period_ns, variance_ns2; /* variance: of edges about their prediction */
    double predicted_ns;            /* the next edge that we mean to see */
    uint32_t stride;                /* periods from one edge that we mean to see to the next */
    uint32_t followed, learnt;      /* edges that the phase and the period rest on */
    double closely_ns, span;        /* the latest edge that was seen closely; updates from the first to it */
    double midway_ns;               /* when the latest midway read was due */
    double call_ns;                 /* what a read takes, smoothed */
    uint32_t misses, doubt;         /* predictions in a row that nothing came of; evidence against the period */
};

void phase_init(struct phase *phase);

/* The device was away: what is known of its phase no longer holds. The period is kept. */
void phase_restart(struct phase *phase);

/* One good read. Failed reads are not told: they widen the edge that they hide. */
void phase_take(struct phase *phase, int64_t before_ns, int64_t after_ns, int64_t value);

/* The moment of the next read after one that ended at now_ns, such that reads come interval_ns apart on average; 0 for
 * uniform polling. While a grid is looked for, in the first two seconds and again from time to time, reads come
 * search_interval_ns apart. */
int64_t phase_next(struct phase *phase, int64_t now_ns, int64_t interval_ns, int64_t search_interval_ns);

/* Standard deviation of updates about the predicted time; 0 without a lock. */
int64_t phase_jitter_ns(const struct phase *phase);

#endif
