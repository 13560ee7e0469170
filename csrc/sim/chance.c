/* chance.c - see chance.h. The mixing is splitmix64's finaliser (Steele, Lea and Flood 2014). */
#include "chance.h"

double chance_uniform(uint64_t seed, uint64_t index) {
    uint64_t mixed = seed + (index + 1) * 0x9E3779B97F4A7C15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBu;
    return (double)((mixed ^ (mixed >> 31)) >> 11) * 0x1p-53;
}

double chance_deviate(uint64_t seed, uint64_t index) {
    double sum = -6; /* twelve uniforms: mean 6, variance 1 */
    for (uint64_t i = 0; i < 12; i++) sum += chance_uniform(seed, 12 * index + i);
    return sum;
}
