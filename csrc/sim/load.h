/* load.h - the true power of the simulated card, as the energy used since CLOCK_MONOTONIC was zero.
 *
 * Two drives. A waveform is a list of (duration, watts) steps that repeats for ever: its energy is known in closed
 * form at any time, so every process that loads the library sees the same card. The CPU drive turns the busy time of
 * this machine's processors into watts between idle and maximum, so that joules follow the work really done. */
#ifndef LLMPOWER_SIM_LOAD_H
#define LLMPOWER_SIM_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct load;

/* From the text of LLMPOWER_SIM_LOAD:
 *   cpu                            busy time of this machine (idle_w .. max_w)
 *   cpu:PATH                       that of a control group, by its cpuacct.usage (v1) or cpu.stat (v2): what a
 *                                  neighbour runs costs nothing
 *   constant:WATTS
 *   square:LOW,HIGH,PERIOD_S[,DUTY]  DUTY is the share of the period at HIGH, 0.5 if left out
 *   file:PATH                      lines "SECONDS WATTS", each a step of that length; # begins a comment.
 *                                  "{gpu}" in PATH stands for the GPU's number, so that each has a load of its own.
 * NULL, with one line in error, when it means none of these. */
struct load *load_open(const char *text, unsigned int gpu, double idle_w, double max_w, char *error, size_t error_size);

/* Whether load_open gives every GPU the same. */
bool load_is_shared(const char *text);
void load_close(struct load *load);

/* Look at the world again if the drive needs it; returns the time up to which the energy is now known. */
int64_t load_known_until(struct load *load, int64_t now_ns);

/* Energy from time 0 to time_ns in joules. False when time_ns is later than known, or longer ago than kept. */
bool load_energy_j(const struct load *load, int64_t time_ns, double *energy_j);

/* Power at time_ns: that of the step of a waveform, or the mean between two looks at the CPU. False as above. */
bool load_power_w(const struct load *load, int64_t time_ns, double *power_w);

/* The earliest time for which load_energy_j answers. */
int64_t load_known_since(const struct load *load);

#endif
