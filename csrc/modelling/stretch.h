/* stretch.h - the next rows of a table that are a tally's own and have joules, in the order of their models.
 *
 * Rows of many models come in any order, and each looks for its stratum and cell among those of all models, of which
 * the processor has few in its cache. One model's after another's, they look where the rows before them did. A stretch
 * is short enough to stay in a second-level cache of one megabyte. A model's rows keep their order, so its sums
 * are the same to the last digit. */
#ifndef LLMPOWER_STRETCH_H
#define LLMPOWER_STRETCH_H

#include "models.h"

enum { STRETCH = 1 << 13 };

/* A row as it is summed; its variance is relative to its joules, NaN where it is not known. */
struct entry {
    struct llmpower_judged row;
    double variance;
    uint32_t model;
    uint8_t allocated, modelled;
};

struct stretch {
    size_t n, n_models;
    uint32_t models[STRETCH]; /* that rows are of, in the order in which they first came */
    size_t rows[STRETCH];     /* where they are in the table */
    struct entry entries[STRETCH];
};

/* Fill it with the next rows from i on; where to go on from. Rows with none left are counted by their models as below.
 * Models have place 0, before and after. */
size_t stretch_fill(struct stretch *s, struct model *models, const struct llmpower_rows *rows, size_t i);

#endif
