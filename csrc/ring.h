/* ring.h - a bounded queue of samples between exactly one writer thread and one reader thread.
 *
 * It never blocks and never allocates after ring_init. When full it refuses the new sample and counts it: the reader
 * then knows how many reads it did not see, and what it has seen is in order. It knows nothing of NVML or of time. */
#ifndef LLMPOWER_RING_H
#define LLMPOWER_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "llmpower.h"

struct ring {
    struct llmpower_sample *slots;
    size_t mask;
    /* Writer and reader each own one index; apart by a cache line, so that neither slows the other down. */
    _Alignas(64) _Atomic size_t head; /* next slot to write */
    _Alignas(64) _Atomic size_t tail; /* next slot to read */
    _Alignas(64) _Atomic uint64_t dropped;
};

/* Room for at least capacity samples (rounded up to a power of two). False when memory is short. */
bool ring_init(struct ring *ring, size_t capacity);
void ring_free(struct ring *ring);

/* Writer only. False, and counted, when the ring is full. */
bool ring_push(struct ring *ring, const struct llmpower_sample *sample);

/* Reader only. Moves up to capacity samples to out, oldest first; returns how many. */
size_t ring_pop(struct ring *ring, struct llmpower_sample *out, size_t capacity);

#endif
