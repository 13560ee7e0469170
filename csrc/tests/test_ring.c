/* test_ring.c - order, overflow, and two threads at once (run it under ThreadSanitizer). */
#include <pthread.h>
#include <sched.h>

#include "../ring.h"
#include "check.h"

enum { TOTAL = 200000 };

static void *write_all(void *argument) {
    struct ring *ring = argument;
    for (int64_t i = 0; i < TOTAL; i++) {
        struct llmpower_sample sample = {.before_ns = i, .after_ns = -i, .value = 3 * i};
        ring_push(ring, &sample);
        if (i % 64 == 0) sched_yield();
    }
    return NULL;
}

static void test_two_threads(void) {
    struct ring ring;
    struct llmpower_sample out[100];
    CHECK(ring_init(&ring, 1000));
    CHECK(ring.mask == 1023);
    pthread_t writer;
    CHECK(pthread_create(&writer, NULL, write_all, &ring) == 0);
    int64_t last = -1;
    uint64_t seen = 0;
    while (last < TOTAL - 1) {
        size_t count = ring_pop(&ring, out, 100);
        for (size_t i = 0; i < count; i++) {
            CHECK(out[i].before_ns > last);
            CHECK(out[i].after_ns == -out[i].before_ns && out[i].value == 3 * out[i].before_ns);
            last = out[i].before_ns;
        }
        seen += count;
        /* The last sample may have been the one that found the ring full. */
        if (!count && seen + atomic_load(&ring.dropped) == TOTAL) break;
        if (!count) sched_yield();
    }
    pthread_join(writer, NULL);
    seen += ring_pop(&ring, out, 100);
    CHECK(seen + atomic_load(&ring.dropped) == TOTAL);
    ring_free(&ring);
}

static void test_overflow_refuses_the_newest(void) {
    struct ring ring;
    struct llmpower_sample out[8];
    CHECK(ring_init(&ring, 4));
    for (int64_t i = 0; i < 7; i++) {
        struct llmpower_sample sample = {.value = i};
        CHECK(ring_push(&ring, &sample) == (i < 4));
    }
    CHECK(atomic_load(&ring.dropped) == 3);
    CHECK(ring_pop(&ring, out, 3) == 3);
    CHECK(out[0].value == 0 && out[2].value == 2);
    CHECK(ring_pop(&ring, out, 8) == 1);
    CHECK(out[0].value == 3);
    CHECK(ring_pop(&ring, out, 8) == 0);
    ring_free(&ring);
}

int main(void) {
    test_overflow_refuses_the_newest();
    test_two_threads();
    puts("ring: ok");
    return 0;
}
