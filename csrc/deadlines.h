/* deadlines.h - when each channel of a worker is read next. It reads nothing and never waits; worker.c does both.
 *
 * A channel whose updates come on a grid is read when the next one is due (phase.h), any other one on a fixed grid of
 * deadlines: a late read never shifts that grid.
 *
 * Reads cost driver time that the workload needs too, so the share of wall time spent in them is bounded: when the
 * channels together would pass the bound, the most expensive ones are read less often. */
#ifndef LLMPOWER_DEADLINES_H
#define LLMPOWER_DEADLINES_H

#include "worker.h"

/* The channel whose turn is next; there must be one. */
struct channel *deadlines_earliest(struct worker *worker);

/* Set the next deadline of a channel that was read just now, and tell what its updates look like. */
void deadlines_advance(struct worker *worker, struct channel *channel, int64_t now_ns);

/* Stretch intervals such that the sum of latency / interval over all channels stays within the budget. */
void deadlines_throttle(struct worker *worker, int64_t now_ns);

/* How far apart reads should be: as the caller asked for, or further at rest. */
double deadlines_asked_ns(const struct worker *worker, const struct channel *channel);

#endif
