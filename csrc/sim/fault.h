/* fault.h - what can be made to go wrong, by LLMPOWER_SIM_FAULT.
 *
 * Words separated by commas, NAME[:NUMBER[,NUMBER]][@GPU]; without @GPU every GPU is meant. AT, FOR and SECONDS are
 * seconds, AT since nvmlInit; P is a share of at most 0.9.
 *   init                  nvmlInit finds no driver
 *   no_energy no_fields no_usage no_power
 *                         NOT_SUPPORTED from the counter; fields 185 and 186; nvmlDeviceGetPowerUsage; the last two
 *   no_permission         NO_PERMISSION from the look-up of the GPU, as where a cgroup keeps it from a job
 *   no_temperature        NOT_SUPPORTED from both of its calls
 *   no_processes          NOT_SUPPORTED from the lists of processes
 *   wide_processes        _v3 fills 32 bytes a process, as the R535 drivers do
 *   freeze:AT,SECONDS     sensor and counter stop updating, then show at once what they would have shown
 *   skip:P                a share of the updates, of sensor and counter each, does not come: gaps of two periods
 *   reset:AT              the counter starts again from 0, as after a driver reload
 *   lost:AT[,FOR]         GPU_IS_LOST from AT on, FOR so long or for ever; a handle from before stays lost even when
 *                         the GPU is back, and must be looked up again
 *   lost_after:N          GPU_IS_LOST once N reads of a GPU have been answered
 *   not_supported:P[,AT]  a share of the reads answers NOT_SUPPORTED (from AT on)
 *   zero:P[,AT]           a share of the values read is 0 (from AT on)
 *   wild:P[,AT]           a share of the values read has all bits set (from AT on)
 *   hang:AT,SECONDS       a read begun in that time returns at its end, and holds the driver's lock until then
 *   gh200                 fields 185 and 186 fail in the scope of the GPU and answer in that of the module, which
 *                         draws 100 W more
 *   mig                   MIG is enabled with two instances, whose power and energy are those of their parent
 * For a symbol that is absent, as in an old driver: llmpower.sampling.library_without, which writes such a library. */
#ifndef LLMPOWER_SIM_FAULT_H
#define LLMPOWER_SIM_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MAX_FAULTS = 16 };

enum fault_kind {
    FAULT_INIT,
    FAULT_NO_ENERGY,
    FAULT_NO_FIELDS,
    FAULT_NO_USAGE,
    FAULT_NO_POWER,
    FAULT_NO_PERMISSION,
    FAULT_NO_TEMPERATURE,
    FAULT_NO_PROCESSES,
    FAULT_WIDE_PROCESSES,
    FAULT_FREEZE,
    FAULT_SKIP,
    FAULT_RESET,
    FAULT_LOST,
    FAULT_LOST_AFTER,
    FAULT_NOT_SUPPORTED,
    FAULT_ZERO,
    FAULT_WILD,
    FAULT_HANG,
    FAULT_GH200,
    FAULT_MIG,
    FAULT_KINDS
};

struct fault {
    enum fault_kind kind;
    int gpu;       /* -1: every one */
    double first;  /* the numbers, as written */
    double second; /* NAN when left out */
};

struct faults {
    size_t count;
    struct fault list[MAX_FAULTS];
};

/* False, with one line in error, when a word is no fault. */
bool faults_parse(struct faults *faults, const char *text, char *error, size_t error_size);

bool faults_has(const struct faults *faults, enum fault_kind kind, unsigned int gpu);

/* The first number of the first such fault of this GPU; otherwise when it has none. */
double faults_number(const struct faults *faults, enum fault_kind kind, unsigned int gpu, double otherwise);

/* Below, time_ns is since nvmlInit. */

/* The moment whose readings are showing: time_ns itself, or the beginning of the freeze that it lies in. */
int64_t faults_view_ns(const struct faults *faults, unsigned int gpu, int64_t time_ns);

/* When the counter last started from 0; -1 when it has not. */
int64_t faults_reset_ns(const struct faults *faults, unsigned int gpu, int64_t time_ns);

/* Whether the GPU is lost, and how often it has come back: a handle is good for one return. */
bool faults_lost(const struct faults *faults, unsigned int gpu, int64_t time_ns);
unsigned int faults_returns(const struct faults *faults, unsigned int gpu, int64_t time_ns);

/* Whether a fault with a share strikes a read for which chance, in [0, 1), was drawn. */
bool faults_strike(const struct faults *faults, enum fault_kind kind, unsigned int gpu, int64_t time_ns, double chance);

/* When a read begun at time_ns goes on: time_ns, or the end of the hang that it lies in. */
int64_t faults_hang_ns(const struct faults *faults, unsigned int gpu, int64_t time_ns);

#endif
