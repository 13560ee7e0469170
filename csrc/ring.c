/* ring.c - see ring.h. Indices run on without wrapping and are masked on use, so full and empty differ. */
#include "ring.h"

#include <stdlib.h>

bool ring_init(struct ring *ring, size_t capacity) {
    size_t size = 1;
    while (size < capacity) size <<= 1;
    ring->slots = calloc(size, sizeof *ring->slots);
    ring->mask = size - 1;
    atomic_init(&ring->head, 0);
    atomic_init(&ring->tail, 0);
    atomic_init(&ring->dropped, 0);
    return ring->slots != NULL;
}

void ring_free(struct ring *ring) {
    free(ring->slots);
    ring->slots = NULL;
}

bool ring_push(struct ring *ring, const struct llmpower_sample *sample) {
    size_t head = atomic_load_explicit(&ring->head, memory_order_relaxed); /* only we write it */
    /* Acquire: the reader must be done with the slot before we write over it. */
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_acquire);
    if (head - tail > ring->mask) {
        atomic_fetch_add_explicit(&ring->dropped, 1, memory_order_relaxed); /* a count, it orders nothing */
        return false;
    }
    ring->slots[head & ring->mask] = *sample;
    /* Release: the slot's content must be visible before the index that announces it. */
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
    return true;
}

size_t ring_pop(struct ring *ring, struct llmpower_sample *out, size_t capacity) {
    size_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed); /* only we write it */
    /* Acquire: pairs with the release in ring_push, so the slots up to head are whole. */
    size_t head = atomic_load_explicit(&ring->head, memory_order_acquire);
    size_t count = head - tail < capacity ? head - tail : capacity;
    for (size_t i = 0; i < count; i++) out[i] = ring->slots[(tail + i) & ring->mask];
    /* Release: our reads of the slots must be over before the writer may use them again. */
    atomic_store_explicit(&ring->tail, tail + count, memory_order_release);
    return count;
}
