/* lanes.h - numbers that are added and multiplied as one. */
#ifndef LLMPOWER_LANES_H
#define LLMPOWER_LANES_H

#include <stdint.h>

enum { LANES = 2 };
/* What GCC and Clang add and multiply as one. Longer ones are slower where they are not the processor's own. */
typedef double lanes __attribute__((vector_size(LANES * sizeof(double))));
typedef int64_t whole_lanes __attribute__((vector_size(LANES * sizeof(int64_t))));

#endif
