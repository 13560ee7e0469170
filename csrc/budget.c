/* budget.c - see budget.h.
 *
 * A search for a counter's updates spends at once what polling spends in half a minute, and a call that hangs may spend
 * more. What was spent too much is paid back evenly over PAYBACK; what was not spent is no credit. */
#include "budget.h"

static const double PAYBACK_NS = 60e9;
static const double HEADROOM = 0.9;   /* latencies are known as means of the past, and the bound is one */
static const double MOST_OWED = 0.75; /* of the share over PAYBACK: sampling never stops altogether */

void budget_init(struct budget *budget, double share, int64_t now_ns) {
    *budget = (struct budget){.share = share, .time_ns = now_ns};
}

void budget_pause(struct budget *budget, int64_t now_ns) { budget->time_ns = now_ns; }

double budget_share(struct budget *budget, int64_t now_ns, int64_t spent_ns) {
    double owed_ns = (double)budget->owed_ns + (double)(spent_ns - budget->spent_ns) -
                     budget->share * (double)(now_ns - budget->time_ns);
    double most_ns = MOST_OWED * budget->share * PAYBACK_NS;
    if (owed_ns < 0) owed_ns = 0;
    if (owed_ns > most_ns) owed_ns = most_ns;
    budget->owed_ns = (int64_t)owed_ns;
    budget->time_ns = now_ns;
    budget->spent_ns = spent_ns;
    return HEADROOM * budget->share - owed_ns / PAYBACK_NS;
}
