/* budget.h - how much of wall time may pass inside driver calls, when some of it has been spent already. No clock. */
#ifndef LLMPOWER_BUDGET_H
#define LLMPOWER_BUDGET_H

#include <stdint.h>

struct budget {
    double share;    /* of wall time, in the long run */
    int64_t time_ns; /* of the latest account, and what had been spent until then */
    int64_t spent_ns;
    int64_t owed_ns; /* spent beyond the share and not yet paid back */
};

void budget_init(struct budget *budget, double share, int64_t now_ns);

/* Until now nothing could be spent, and nothing is paid back for it. */
void budget_pause(struct budget *budget, int64_t now_ns);

/* The share of the time to come that may be spent, after spent_ns in all until now: less than the whole share while
 * something is owed, and never nothing. */
double budget_share(struct budget *budget, int64_t now_ns, int64_t spent_ns);

#endif
