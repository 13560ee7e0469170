/* punctual.c - see punctual.h.
 *
 * Two things make a thread late that sleeps until a deadline. The kernel may put off a timer by up to 50 us, to wake
 * several at once. And a busy program on the same processor is left to finish its slice of a few milliseconds, unless
 * the thread that wakes has said that it needs little at a time: EEVDF lets the shorter slice go first (Linux 6.12).
 * The thread gets no more of the processor for it, so this is no real-time priority and nobody has to allow it. */
#include "punctual.h"

#include <sched.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const unsigned long SLACK_NS = 1000;
static const uint64_t SLICE_NS = 100000; /* the least that Linux takes */

/* What sched_setattr(2) takes, in its first version. Declared here, because glibc has it from 2.41 on only. */
struct attributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
};

void punctual(void) {
    prctl(PR_SET_TIMERSLACK, SLACK_NS, 0UL, 0UL, 0UL);
    struct attributes attributes = {.size = sizeof attributes};
    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0)) return;
    if (attributes.policy != SCHED_OTHER) return; /* somebody has chosen for the whole process */
    attributes.runtime_ns = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}
