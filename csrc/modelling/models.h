/* models.h - what a tally has of each model. */
#ifndef LLMPOWER_MODELS_H
#define LLMPOWER_MODELS_H

#include "judged.h"
#include "strata.h"
#include "tally.h"

/* Rows that go through each step before the next ones do, so that the processor waits for the memory of many at once.
 */
enum { BLOCK = 16 };

struct model {
    struct llmpower_counts counts;
    struct judged judged;
    struct strata strata;
    size_t place; /* of its next row, while a stretch is filled */
};

struct stretch;

struct llmpower_tally {
    size_t most_cells, most_judged, n_models;
    struct model *models;
    struct stretch *stretch; /* NULL before rows are taken in */
};

/* Have this many models, those that are new without rows; 0, or -1 without memory. */
int tally_models(struct llmpower_tally *tally, size_t n_models);

#endif
