/* chance.h - numbers that look random and are functions of their arguments alone.
 *
 * Nothing draws from a stream: two processes that ask for the same seed and index see the same card, and a test can
 * state in advance what must come. */
#ifndef LLMPOWER_SIM_CHANCE_H
#define LLMPOWER_SIM_CHANCE_H

#include <stdint.h>

/* Uniform in [0, 1). */
double chance_uniform(uint64_t seed, uint64_t index);

/* Mean 0, standard deviation 1, near enough to normal; never beyond 6. */
double chance_deviate(uint64_t seed, uint64_t index);

#endif
