/* tally.h - the whole of what modelling asks of C: rows go in, and what a fit needs to know of them comes out.
 *
 * C includes this file and cffi reads it, so apart from lines for the preprocessor it has only plain declarations. All
 * arrays are the caller's, and as long as their comments say. A tally is used by one thread at a time; each model
 * of one may be taken out by its own.
 *
 * Functions that give an int give 0, or -1 where there is not enough memory; the tally may then only be freed. */
#ifndef LLMPOWER_TALLY_H
#define LLMPOWER_TALLY_H

#include <stddef.h>
#include <stdint.h>

enum {
    LLMPOWER_LENGTHS = 4,
    LLMPOWER_PHASES = 4,
    LLMPOWER_SPANNED = 6,
    LLMPOWER_JUDGED = 11,
    LLMPOWER_EXACT = 53,
    LLMPOWER_FINER = 2
};

/* Sums of a cell, and of a stratum: those that fits take by how sure rows are. */
enum { LLMPOWER_SUMS = 35, LLMPOWER_SURE_SUMS = 6 };

/* A column of lengths as it stands in a table: numbers, or whole numbers. */
struct llmpower_column {
    const double *reals;
    const int64_t *wholes;
};

/* Columns of ``n`` rows; one that is not there is NULL, but for the model, tokens, energy and runtime. Phases are
 * joules of prefill and decode, and seconds of prefill. */
struct llmpower_rows {
    size_t n;
    const uint32_t *model;
    struct llmpower_column input_tokens, output_tokens, batch_size, concurrency;
    const double *energy_j, *std_j, *runtime_s, *phases[3];
    const uint8_t *allocated, *modelled;
    const uint8_t *own; /* of each model, whether its rows are taken in; without it all are */
};

/* A row as errors are judged by: lengths are input and output tokens, requests, and requests that shared a step;
 * certainty is the class of its relative variance. Phases are joules of prefill and decode, seconds of prefill and
 * decode, NaN where they are not known. */
struct llmpower_judged {
    double energy_j, runtime_s, lengths[4], certainty, phases[4];
};

/* Of one model: how many rows are summed, had nothing left above idle, had shares by rule for joules, saw too few
 * ticks; the least and most of each length, and of input and output tokens of one request. */
struct llmpower_counts {
    uint64_t rows, below, allocated, modelled;
    double low[6], high[6];
};

/* How much there is of a model. Numbers of requests are kept to this many leading binary digits, tokens to
 * LLMPOWER_FINER fewer, and at least to one. */
struct llmpower_sizes {
    size_t cells, strata, judged;
    int digits;
};

struct llmpower_tally;

/* An empty tally that keeps at most this many cells of a model (it rounds lengths until it does), and this many of its
 * rows to judge errors by; NULL where there is not enough memory. */
struct llmpower_tally *llmpower_tally_new(size_t most_cells, size_t most_judged);
void llmpower_tally_free(struct llmpower_tally *tally);

/* Take in rows of models 0 … n_models - 1, of its own ones. */
int llmpower_tally_rows(struct llmpower_tally *tally, const struct llmpower_rows *rows, size_t n_models);

/* What there is of a model that rows were given of; drops judged rows that are too many. */
void llmpower_tally_sizes(struct llmpower_tally *tally, size_t model, struct llmpower_sizes *sizes,
                          struct llmpower_counts *counts);

/* What a tally has of a model beside its counts: cells in the order of their lengths, with lengths (LLMPOWER_LENGTHS
 * columns, one after another) and sums (LLMPOWER_SUMS); strata in the order of their cells and certainty, with both and
 * sums (LLMPOWER_SURE_SUMS); the values of judged rows (LLMPOWER_JUDGED), and the stratum of each. */
struct llmpower_arrays {
    double *lengths, *sums;
    int64_t *cells, *certainty;
    double *sure_sums, *judged;
    int64_t *judged_strata;
};

/* All of a model into arrays of its sizes. */
int llmpower_tally_model(struct llmpower_tally *tally, size_t model, const struct llmpower_arrays *arrays);

/* Take in what another tally has of a model; of judged rows it needs no strata. */
int llmpower_tally_merge(struct llmpower_tally *tally, size_t model, const struct llmpower_counts *counts,
                         const struct llmpower_sizes *sizes, const struct llmpower_arrays *arrays);

#endif
