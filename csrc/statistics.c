/* statistics.c - see statistics.h. Single values, between which no order matters, unless it says so. */
#include "statistics.h"

static const int64_t lateness_bounds_ns[LLMPOWER_LATENESS_BUCKETS - 1] = {
    10000, 25000, 50000, 100000, 250000, 500000, 1000000, 2500000, 10000000, 100000000, 1000000000};

const int64_t *llmpower_lateness_bounds_ns(void) { return lateness_bounds_ns; }

void statistics_count_tick(struct statistics *statistics, int64_t late_ns) {
    uint32_t bucket = 0;
    while (bucket < LLMPOWER_LATENESS_BUCKETS - 1 && late_ns > lateness_bounds_ns[bucket]) bucket++;
    atomic_fetch_add_explicit(&statistics->lateness[bucket], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&statistics->lateness_sum_ns, late_ns, memory_order_relaxed);
    atomic_fetch_add_explicit(&statistics->ticks, 1, memory_order_relaxed);
}

void statistics_count_error(struct statistics *statistics, uint32_t kind, int32_t status) {
    uint32_t used = atomic_load_explicit(&statistics->error_count, memory_order_relaxed);
    struct error_slot *errors = statistics->errors;
    uint32_t slot = 0;
    while (slot < used && (errors[slot].kind != kind || errors[slot].status != status)) slot++;
    if (slot == STATISTICS_ERROR_SLOTS) slot--;
    if (slot == used) {
        atomic_store_explicit(&errors[slot].kind, kind, memory_order_relaxed);
        atomic_store_explicit(&errors[slot].status, status, memory_order_relaxed);
        /* Release: a reader that sees the new length must see the slot's key. */
        atomic_store_explicit(&statistics->error_count, used + 1, memory_order_release);
    }
    atomic_fetch_add_explicit(&errors[slot].count, 1, memory_order_relaxed);
}

void statistics_add(const struct statistics *statistics, struct llmpower_statistics *out) {
    out->samples += atomic_load_explicit(&statistics->samples, memory_order_relaxed);
    out->ticks += atomic_load_explicit(&statistics->ticks, memory_order_relaxed);
    out->missed_ticks += atomic_load_explicit(&statistics->missed_ticks, memory_order_relaxed);
    out->read_ns += atomic_load_explicit(&statistics->read_ns, memory_order_relaxed);
    out->lateness_sum_ns += atomic_load_explicit(&statistics->lateness_sum_ns, memory_order_relaxed);
    out->cpu_ns += atomic_load_explicit(&statistics->ended_cpu_ns, memory_order_relaxed);
    for (uint32_t i = 0; i < LLMPOWER_LATENESS_BUCKETS; i++)
        out->lateness[i] += atomic_load_explicit(&statistics->lateness[i], memory_order_relaxed);
    /* Acquire: pairs with the release in statistics_count_error. */
    uint32_t errors = atomic_load_explicit(&statistics->error_count, memory_order_acquire);
    for (uint32_t i = 0; i < errors && out->error_count < LLMPOWER_ERROR_SLOTS; i++) {
        struct llmpower_error_count *error = &out->errors[out->error_count++];
        error->kind = atomic_load_explicit(&statistics->errors[i].kind, memory_order_relaxed);
        error->status = atomic_load_explicit(&statistics->errors[i].status, memory_order_relaxed);
        error->count = atomic_load_explicit(&statistics->errors[i].count, memory_order_relaxed);
    }
}
