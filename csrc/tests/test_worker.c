/* test_worker.c - what a worker makes of a source that fails, comes back and sleeps: read by read, without its thread.
 */
#include <errno.h>
#include <string.h>

#include "../nvml_abi.h"
#include "../worker.h"
#include "check.h"

static const int64_t SECOND_NS = 1000000000;

/* A source that does what the test says. */
static struct {
    int32_t status;
    int64_t value;
    uint32_t epochs[2];
    bool closed;
    long sleep_ns;
} script;

static struct llmpower_device devices[2] = {{.kind = LLMPOWER_GPU}, {.kind = LLMPOWER_CPU_PACKAGE}};

static int32_t scripted_read(void *state, uint32_t device, uint32_t field, int64_t *value) {
    (void)state, (void)device, (void)field;
    *value = script.value;
    if (script.sleep_ns) nanosleep(&(struct timespec){.tv_nsec = script.sleep_ns}, NULL);
    return script.status;
}

static void scripted_close(void *state, bool forked) {
    (void)state, (void)forked;
    script.closed = true;
}

static struct worker worker;

static void set_up(uint32_t ring_capacity) {
    const struct power_source source = {
        .read = scripted_read,
        .close = scripted_close,
        .device_count = 2,
        .devices = devices,
        .epochs = script.epochs,
    };
    memset(&script, 0, sizeof script);
    memset(&worker, 0, sizeof worker);
    CHECK(worker_init(&worker, &source, ring_capacity, 0.02));
    worker_add(&worker, 0, 5, LLMPOWER_ENERGY, 10000000);
    worker_add(&worker, 0, 5, LLMPOWER_POWER_INSTANT, 10000000);
}

static struct llmpower_sample samples[64];

static size_t read_and_drain(uint32_t channel, int32_t status, int64_t value) {
    script.status = status;
    script.value = value;
    worker_read(&worker, &worker.channels[channel]);
    return ring_pop(&worker.ring, samples, 64);
}

static void test_each_field_is_marked_when_the_device_is_back(void) {
    set_up(64);
    CHECK(read_and_drain(0, 0, 1000) == 1 && samples[0].status == 0 && samples[0].device == 5);
    CHECK(read_and_drain(1, 0, 7) == 1);
    CHECK(read_and_drain(0, NVML_ERROR_GPU_IS_LOST, 0) == 1 && samples[0].status == NVML_ERROR_GPU_IS_LOST);
    script.epochs[0]++;
    CHECK(read_and_drain(0, 0, 10) == 2);
    CHECK(samples[0].status == LLMPOWER_EPOCH && samples[0].field == LLMPOWER_ENERGY && samples[0].device == 5);
    CHECK(samples[0].value == 0 && samples[0].before_ns == samples[0].after_ns);
    CHECK(samples[0].after_ns == samples[1].before_ns);
    CHECK(samples[1].status == 0 && samples[1].value == 10);
    CHECK(read_and_drain(0, 0, 11) == 1);
    CHECK(read_and_drain(1, 0, 8) == 2 && samples[0].status == LLMPOWER_EPOCH);
    CHECK(samples[0].field == LLMPOWER_POWER_INSTANT);
    worker_free(&worker, false);
    CHECK(script.closed);
}

static void test_sleep_parts_the_clocks(void) {
    set_up(64);
    worker_note_clocks(&worker, 40 * SECOND_NS); /* it had slept before we began */
    CHECK(read_and_drain(0, 0, 1000) == 1);
    worker_note_clocks(&worker, 40 * SECOND_NS + 2000000); /* clocks are never read at the very same time */
    CHECK(read_and_drain(0, 0, 1001) == 1);
    worker_note_clocks(&worker, 45 * SECOND_NS);
    CHECK(read_and_drain(0, 0, 1002) == 2 && samples[0].status == LLMPOWER_EPOCH);
    CHECK(read_and_drain(1, 0, 7) == 2 && samples[0].status == LLMPOWER_EPOCH);
    worker_note_clocks(&worker, 45 * SECOND_NS);
    CHECK(read_and_drain(0, 0, 1003) == 1);
    worker_free(&worker, false);
}

static void test_a_mark_that_found_no_room_is_made_up_for(void) {
    set_up(2);
    script.value = 1;
    for (int i = 0; i < 2; i++) worker_read(&worker, &worker.channels[0]);
    script.epochs[0]++;
    worker_read(&worker, &worker.channels[0]); /* the ring is full: neither mark nor value */
    CHECK(ring_pop(&worker.ring, samples, 64) == 2 && samples[1].status == 0);
    CHECK(read_and_drain(0, 0, 2) == 2 && samples[0].status == LLMPOWER_EPOCH && samples[1].value == 2);
    struct llmpower_statistics statistics = {0};
    worker_add_statistics(&worker, &statistics);
    CHECK(statistics.dropped == 1 && statistics.samples == 3);
    worker_free(&worker, false);
}

static void test_failures_are_told_apart_by_kind_and_code(void) {
    set_up(64);
    worker_add(&worker, 1, 6, LLMPOWER_ENERGY, 10000000);
    for (int i = 0; i < 3; i++) read_and_drain(0, LLMPOWER_ZERO, 0);
    read_and_drain(1, NVML_ERROR_NOT_SUPPORTED, 0);
    read_and_drain(2, -EACCES, 0);
    struct llmpower_statistics statistics = {0};
    worker_add_statistics(&worker, &statistics);
    CHECK(statistics.error_count == 3);
    CHECK(statistics.errors[0].status == LLMPOWER_ZERO && statistics.errors[0].count == 3);
    CHECK(statistics.errors[2].status == -EACCES && statistics.errors[2].kind == LLMPOWER_CPU_PACKAGE);
    for (int32_t code = 100; code < 100 + LLMPOWER_ERROR_SLOTS; code++) read_and_drain(0, code, 0);
    struct llmpower_statistics more = {0};
    worker_add_statistics(&worker, &more);
    uint64_t total = 0;
    for (uint32_t i = 0; i < more.error_count; i++) total += more.errors[i].count;
    CHECK(total == 5 + LLMPOWER_ERROR_SLOTS); /* more codes than there is room for, and none is lost */
    worker_free(&worker, false);
}

static void test_a_channel_says_how_its_reads_go(void) {
    set_up(64);
    struct llmpower_channel described;
    worker_describe_channel(&worker, &worker.channels[0], &described);
    CHECK(described.last_read_ns == 0 && described.in_call_since_ns == 0 && described.reads == 0);
    int64_t before_ns = llmpower_monotonic_ns();
    read_and_drain(0, 0, 1);
    read_and_drain(0, NVML_ERROR_TIMEOUT, 1);
    worker_describe_channel(&worker, &worker.channels[0], &described);
    CHECK(described.last_read_ns >= before_ns && described.in_call_since_ns == 0);
    CHECK(described.reads == 2 && described.errors == 1 && described.status == NVML_ERROR_TIMEOUT);
    CHECK(described.period_ns == 0 && !described.locked);
    worker_free(&worker, false);
}

static void test_a_call_that_hung_says_little_of_the_next_and_many_say_it_all(void) {
    set_up(64);
    for (int i = 0; i < 8; i++) read_and_drain(0, 0, i);
    script.sleep_ns = 900000000;
    read_and_drain(0, 0, 8);
    CHECK(worker_get(&worker.channels[0].latency_ns) < 5000000);
    script.sleep_ns = 50000000;
    for (int i = 0; i < 24; i++) read_and_drain(0, 0, 9 + i);
    CHECK(worker_get(&worker.channels[0].latency_ns) > 25000000);
    worker_free(&worker, false);
    set_up(64);
    script.sleep_ns = 900000000;
    read_and_drain(0, 0, 1); /* the first of all may be the one that hangs */
    CHECK(worker_get(&worker.channels[0].latency_ns) <= 10000000);
    worker_free(&worker, false);
}

int main(void) {
    test_each_field_is_marked_when_the_device_is_back();
    test_sleep_parts_the_clocks();
    test_a_mark_that_found_no_room_is_made_up_for();
    test_failures_are_told_apart_by_kind_and_code();
    test_a_channel_says_how_its_reads_go();
    test_a_call_that_hung_says_little_of_the_next_and_many_say_it_all();
    puts("worker: ok");
    return 0;
}
