/* judged.h - rows of a model that errors are judged by: at most this many, the same whatever order they came in. */
#ifndef LLMPOWER_JUDGED_H
#define LLMPOWER_JUDGED_H

#include "tally.h"

struct judged {
    size_t n, room;
    struct llmpower_judged *rows;
    uint64_t *numbers; /* of each row */
    uint64_t last;     /* rows stay whose numbers are below it, where there were too many */
    int full;
};

/* The number of a row, as if drawn at random. */
uint64_t judged_number(const struct llmpower_judged *row);

/* Whether a row of that number may stay; hardly any may where many were seen. */
static inline int judged_may_stay(const struct judged *j, uint64_t number) { return !j->full || number < j->last; }

/* A row of that number, which stays if it may; 0, or -1 without memory. */
int judged_offer(struct judged *j, const struct llmpower_judged *row, uint64_t number, size_t most);

/* Drop what is more than the most. */
void judged_settle(struct judged *j, size_t most);

void judged_free(struct judged *j);

#endif
