/* test_tally.c - sums, judged rows and counts against those of the rows, taken one by one and in portions. */
#include <math.h>
#include <string.h>

#include "../modelling/tally.h"
#include "check.h"

/* More rows than are put in order at a time. */
enum { ROWS = 20000, MODELS = 3, CELLS = 100, JUDGED = 50, LONGEST = 5000 };

/* A 64-bit linear congruential generator (Knuth's MMIX constants): the same rows everywhere. */
static uint64_t state = 1;
static uint32_t chance(uint32_t end) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33) % end;
}

static uint32_t model[ROWS];
static int64_t out[ROWS];
static double in[ROWS], energy[ROWS], std[ROWS], runtime[ROWS], prefill[ROWS];
static uint8_t allocated[ROWS];

/* Lengths of model 0 are few; those of the others too many to be cells. A few rows have nothing left above idle. */
static void make_rows(void) {
    for (int i = 0; i < ROWS; i++) {
        model[i] = chance(MODELS);
        in[i] = chance(model[i] ? LONGEST : 8);
        out[i] = 1 + chance(4);
        energy[i] = chance(20) ? 1.0 + chance(1000) : -1;
        std[i] = chance(10) ? energy[i] / (1 + chance(50)) : NAN;
        runtime[i] = energy[i] > 0 ? energy[i] / 300 + chance(100) : 1;
        prefill[i] = chance(10) ? energy[i] / 5 : NAN;
        allocated[i] = chance(2) != 0;
    }
}

static void add(struct llmpower_tally *tally, size_t start, size_t end, const uint8_t *own) {
    struct llmpower_rows rows = {.n = end - start,
                                 .model = model + start,
                                 .input_tokens = {in + start, NULL},
                                 .output_tokens = {NULL, out + start},
                                 .energy_j = energy + start,
                                 .std_j = std + start,
                                 .runtime_s = runtime + start,
                                 .phases = {prefill + start},
                                 .allocated = allocated + start,
                                 .own = own};
    CHECK(!llmpower_tally_rows(tally, &rows, MODELS));
}

/* What a tally has of a model. */
struct found {
    struct llmpower_sizes sizes;
    struct llmpower_counts counts;
    double lengths[LLMPOWER_LENGTHS * ROWS], sums[LLMPOWER_SUMS * ROWS], sure_sums[LLMPOWER_SURE_SUMS * ROWS];
    double judged[LLMPOWER_JUDGED * ROWS];
    int64_t certainty[ROWS], cells[ROWS], judged_strata[ROWS];
};

static struct llmpower_arrays arrays_of(struct found *f) {
    return (struct llmpower_arrays){f->lengths,   f->sums,   f->cells,        f->certainty,
                                    f->sure_sums, f->judged, f->judged_strata};
}

static void find(struct llmpower_tally *tally, size_t m, struct found *f) {
    const struct llmpower_arrays arrays = arrays_of(f);
    llmpower_tally_sizes(tally, m, &f->sizes, &f->counts);
    CHECK(f->sizes.cells <= ROWS && f->sizes.strata <= ROWS && f->sizes.judged <= ROWS);
    CHECK(!llmpower_tally_model(tally, m, &arrays));
}

static double total(const double *sums, size_t n, size_t sum) {
    double found = 0;
    for (size_t i = 0; i < n; i++) found += sums[sum * n + i];
    return found;
}

/* A value of a judged row, by its place in struct llmpower_judged. */
static double judged(const struct found *f, size_t i, size_t offset) {
    return f->judged[offset / sizeof(double) * f->sizes.judged + i];
}

static int near(double a, double b) { return fabs(a - b) <= 1e-9 * (1 + fabs(b)); }

static void test_sums_are_those_of_the_rows(void) {
    static struct found f;
    struct llmpower_tally *tally = llmpower_tally_new(CELLS, ROWS);
    add(tally, 0, ROWS, NULL);
    for (uint32_t m = 0; m < MODELS; m++) {
        double n = 0, below = 0, joules = 0, relative = 0, tokens = 0, told = 0, by_rule = 0, most = 0, uncertain = 0;
        double squares = 0, weighted = 0;
        find(tally, m, &f);
        for (int i = 0; i < ROWS; i++) {
            if (model[i] != m) continue;
            below += energy[i] <= 0;
            if (energy[i] <= 0) continue;
            n++;
            joules += energy[i];
            relative += 1 / (energy[i] * energy[i]);
            tokens += in[i];
            squares += in[i] * in[i];
            weighted += in[i] / (energy[i] * energy[i]);
            told += prefill[i] > 0;
            uncertain += isnan(std[i]) ? 0 : std[i] / energy[i] * (std[i] / energy[i]);
            by_rule += allocated[i];
            most = fmax(most, in[i]);
        }
        CHECK(f.counts.rows == n && f.counts.below == below && f.counts.allocated == by_rule && !f.counts.modelled);
        CHECK(f.counts.high[0] == most && f.counts.low[2] == 1 && f.counts.high[5] == 4);
        size_t m_cells = f.sizes.cells, m_strata = f.sizes.strata;
        CHECK(total(f.sums, m_cells, LLMPOWER_SUMS - 1) == n && total(f.sums, m_cells, 0) == tokens);
        CHECK(near(total(f.sums, m_cells, 4), squares) && total(f.sums, m_cells, 16) == told);
        CHECK(near(total(f.sums, m_cells, 10), joules) && near(total(f.sums, m_cells, 6), relative));
        CHECK(total(f.sure_sums, m_strata, 0) == n && near(total(f.sure_sums, m_strata, 1), uncertain));
        CHECK(near(total(f.sure_sums, m_strata, 2), relative) && near(total(f.sure_sums, m_strata, 4), weighted));
        CHECK(f.sizes.judged == n && f.sizes.cells <= CELLS);
        CHECK(m ? f.sizes.digits < LLMPOWER_EXACT : f.sizes.digits == LLMPOWER_EXACT && f.sizes.cells == 32);
        for (size_t i = 0; i < f.sizes.judged; i++) {
            int64_t at = f.judged_strata[i];
            double length = judged(&f, i, offsetof(struct llmpower_judged, lengths)), kept = f.lengths[f.cells[at]];
            CHECK(f.certainty[at] == judged(&f, i, offsetof(struct llmpower_judged, certainty)) && kept <= length);
            CHECK(length - kept <= ldexp(length, m ? LLMPOWER_FINER + 1 - f.sizes.digits : 1 - LLMPOWER_EXACT));
        }
        for (size_t i = 1; i < f.sizes.strata; i++)
            CHECK(f.cells[i] == f.cells[i - 1] ? f.certainty[i] > f.certainty[i - 1]
                                               : f.cells[i] == f.cells[i - 1] + 1);
        for (size_t c = 1; c < f.sizes.cells; c++) CHECK(f.lengths[c] >= f.lengths[c - 1]);
    }
    llmpower_tally_free(tally);
}

static int same_judged(const struct found *a, const struct found *b) {
    const size_t at = offsetof(struct llmpower_judged, runtime_s);
    for (size_t i = 0; i < a->sizes.judged; i++) {
        size_t k = 0;
        while (k < b->sizes.judged && judged(a, i, at) != judged(b, k, at)) k++;
        if (k == b->sizes.judged) return 0;
    }
    return a->sizes.judged == b->sizes.judged;
}

static void test_portions_come_down_to_what_all_rows_do(void) {
    static struct found whole, part;
    for (int trial = 0; trial < 20; trial++) {
        make_rows();
        size_t cut = chance(ROWS);
        struct llmpower_tally *all = llmpower_tally_new(CELLS, JUDGED), *one = llmpower_tally_new(CELLS, JUDGED);
        struct llmpower_tally *other = llmpower_tally_new(CELLS, JUDGED);
        add(all, 0, ROWS, NULL);
        add(one, cut, ROWS, NULL);
        add(other, 0, cut / 2, NULL);
        add(other, cut / 2, cut, NULL);
        for (uint32_t m = 0; m < MODELS; m++) {
            find(other, m, &part);
            const struct llmpower_arrays arrays = arrays_of(&part);
            CHECK(!llmpower_tally_merge(one, m, &part.counts, &part.sizes, &arrays));
        }
        for (uint32_t m = 0; m < MODELS; m++) {
            find(all, m, &whole);
            find(one, m, &part);
            CHECK(part.sizes.strata == whole.sizes.strata && part.sizes.digits == whole.sizes.digits);
            CHECK(part.sizes.cells == whole.sizes.cells);
            CHECK(!memcmp(part.lengths, whole.lengths, LLMPOWER_LENGTHS * part.sizes.cells * sizeof(double)));
            CHECK(!memcmp(part.cells, whole.cells, part.sizes.strata * sizeof(int64_t)));
            CHECK(!memcmp(part.certainty, whole.certainty, part.sizes.strata * sizeof(int64_t)));
            CHECK(part.sizes.judged == JUDGED && same_judged(&part, &whole));
            CHECK(!memcmp(&part.counts, &whole.counts, sizeof part.counts));
            for (size_t i = 0; i < LLMPOWER_SUMS * part.sizes.cells; i++) CHECK(near(part.sums[i], whole.sums[i]));
            for (size_t i = 0; i < LLMPOWER_SURE_SUMS * part.sizes.strata; i++)
                CHECK(near(part.sure_sums[i], whole.sure_sums[i]));
        }
        llmpower_tally_free(all);
        llmpower_tally_free(one);
        llmpower_tally_free(other);
    }
}

static void test_a_tally_takes_in_its_own_models_alone(void) {
    static struct found of_all, of_own;
    const uint8_t own[MODELS] = {1, 0, 1};
    struct llmpower_tally *all = llmpower_tally_new(CELLS, JUDGED), *some = llmpower_tally_new(CELLS, JUDGED);
    add(all, 0, ROWS, NULL);
    add(some, 0, ROWS, own);
    for (uint32_t m = 0; m < MODELS; m++) {
        find(all, m, &of_all);
        find(some, m, &of_own);
        if (!own[m]) {
            CHECK(!of_own.counts.rows && !of_own.counts.below && !of_own.sizes.strata && !of_own.sizes.judged);
            continue;
        }
        CHECK(!memcmp(&of_own.counts, &of_all.counts, sizeof of_all.counts));
        CHECK(of_own.sizes.cells == of_all.sizes.cells && same_judged(&of_own, &of_all));
        CHECK(!memcmp(of_own.sums, of_all.sums, LLMPOWER_SUMS * of_all.sizes.cells * sizeof(double)));
    }
    llmpower_tally_free(all);
    llmpower_tally_free(some);
}

static void test_rows_that_are_the_same_stay_as_many_as_may(void) {
    static struct found f;
    struct llmpower_tally *tally = llmpower_tally_new(CELLS, JUDGED);
    for (int i = 0; i < ROWS; i++) model[i] = 0, in[i] = out[i] = energy[i] = runtime[i] = 1;
    add(tally, 0, ROWS, NULL);
    find(tally, 0, &f);
    CHECK(f.sizes.judged == JUDGED && f.counts.rows == ROWS && f.sizes.cells == 1);
    find(tally, 1, &f);
    CHECK(!f.sizes.strata && !f.counts.rows);
    llmpower_tally_free(tally);
}

int main(void) {
    make_rows();
    test_sums_are_those_of_the_rows();
    test_portions_come_down_to_what_all_rows_do();
    test_a_tally_takes_in_its_own_models_alone();
    test_rows_that_are_the_same_stay_as_many_as_may();
    puts("tally: ok");
    return 0;
}
