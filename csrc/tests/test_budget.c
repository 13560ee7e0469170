/* test_budget.c - what is spent too much is paid back, and no more than that. No clock. */
#include "../budget.h"
#include "check.h"

static const int64_t SECOND = 1000000000;

/* Spend what may be spent for this many seconds. */
static int64_t spend(struct budget *budget, int64_t *now_ns, int64_t spent_ns, int seconds) {
    double share = budget_share(budget, *now_ns, spent_ns);
    for (int second = 0; second < seconds; second++) {
        *now_ns += SECOND;
        spent_ns += (int64_t)(share * (double)SECOND);
        share = budget_share(budget, *now_ns, spent_ns);
    }
    return spent_ns;
}

static void test_a_burst_is_paid_back(void) {
    struct budget budget;
    int64_t now_ns = 5 * SECOND;
    budget_init(&budget, 0.02, now_ns);
    now_ns += 4 * SECOND;
    int64_t burst_ns = SECOND / 2; /* 12.5 % of four seconds */
    double first = budget_share(&budget, now_ns, burst_ns);
    CHECK(first > 0.005 && first < 0.015);
    int64_t spent_ns = spend(&budget, &now_ns, burst_ns, 176);
    CHECK((double)spent_ns < 0.02 * 180e9);
    CHECK((double)spent_ns > 0.015 * 180e9);
}

static void test_what_was_not_spent_is_no_credit(void) {
    struct budget budget;
    budget_init(&budget, 0.02, 0);
    double idle = budget_share(&budget, 3600 * SECOND, 0);
    CHECK(idle > 0.015 && idle <= 0.02);
    CHECK(budget_share(&budget, 3601 * SECOND, SECOND) < idle);
}

static void test_a_call_that_hung_does_not_end_the_sampling(void) {
    struct budget budget;
    int64_t now_ns = 0;
    budget_init(&budget, 0.02, now_ns);
    now_ns += 600 * SECOND;
    CHECK(budget_share(&budget, now_ns, 600 * SECOND) > 0.001);
    spend(&budget, &now_ns, 600 * SECOND, 300);
    CHECK(budget_share(&budget, now_ns + SECOND, budget.spent_ns) > 0.015);
}

int main(void) {
    test_a_burst_is_paid_back();
    test_what_was_not_spent_is_no_credit();
    test_a_call_that_hung_does_not_end_the_sampling();
    return 0;
}
