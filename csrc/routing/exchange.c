/* exchange.c - successive shortest paths on the exchange graph of the models.
 *
 * One node per model, and one more, the market, through which a load may move inside its band at no cost. The arc
 * K → L weighs what the cheapest query on K costs to move to L; the arcs to and from the market weigh nothing. Prices
 * keep every arc's reduced weight
 *
 *     w(K → L) + p_L − p_K ≥ 0
 *
 * which is what makes an assignment optimal for its loads. Each step sends as many queries as one path carries from a
 * node with too many to the nearest one with too few, along a shortest path, and lowers the prices by the distances:
 * the weights stay ≥ 0 and become 0 along the path, so the assignment stays optimal until all loads are what they
 * should be (Ahuja, Magnanti, Orlin, Network Flows, 1993, section 9.7). The graph is tiny whatever the number of cells
 * is; the cells wait in a heap for each arc. What a cell costs to move never changes, so an entry is good for as long
 * as the cell has queries on K, and is dropped when it comes up without. */
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "routing.h"

struct entry {
    double weight;
    uint32_t cell;
};

struct heap {
    struct entry *entries;
    size_t length, room;
};

struct exchange {
    const double *costs;
    const int64_t *low, *high;
    int64_t *assigned;
    size_t n_cells, n_models, market, n_nodes;
    struct heap *heaps;       /* of the arc from → to, at from * n_models + to */
    double *price, *distance; /* a node each, as all below */
    int64_t *flow;            /* a model's part in the market: its load, once nothing is left over */
    int64_t *excess;          /* queries too many (> 0) or too few (< 0) */
    size_t *before;           /* on the shortest path */
    bool *settled;
};

static bool before(struct entry a, struct entry b) {
    return a.weight < b.weight || (a.weight == b.weight && a.cell < b.cell);
}

static void sift_down(struct heap *heap, size_t place) {
    struct entry moving = heap->entries[place];
    for (size_t child; (child = 2 * place + 1) < heap->length; place = child) {
        if (child + 1 < heap->length && before(heap->entries[child + 1], heap->entries[child])) child++;
        if (!before(heap->entries[child], moving)) break;
        heap->entries[place] = heap->entries[child];
    }
    heap->entries[place] = moving;
}

static bool append(struct heap *heap, struct entry entry) {
    if (heap->length == heap->room) {
        size_t room = heap->room ? 2 * heap->room : 64;
        struct entry *entries = realloc(heap->entries, room * sizeof *entries);
        if (!entries) return false;
        heap->entries = entries;
        heap->room = room;
    }
    heap->entries[heap->length++] = entry;
    return true;
}

static bool push(struct heap *heap, struct entry entry) {
    if (!append(heap, entry)) return false;
    size_t place = heap->length - 1;
    for (; place > 0 && before(entry, heap->entries[(place - 1) / 2]); place = (place - 1) / 2)
        heap->entries[place] = heap->entries[(place - 1) / 2];
    heap->entries[place] = entry;
    return true;
}

/* The cell whose queries on from are cheapest to move to to; NULL when none can be. */
static const struct entry *cheapest(struct exchange *e, size_t from, size_t to) {
    struct heap *heap = &e->heaps[from * e->n_models + to];
    while (heap->length > 0 && e->assigned[heap->entries[0].cell * e->n_models + from] == 0) {
        heap->entries[0] = heap->entries[--heap->length];
        sift_down(heap, 0);
    }
    return heap->length > 0 ? heap->entries : NULL;
}

/* The cell has come to a model where it had no queries: it can be moved on from there. */
static bool offer(struct exchange *e, size_t cell, size_t from, bool (*add)(struct heap *, struct entry)) {
    const double *cost = e->costs + cell * e->n_models;
    for (size_t to = 0; to < e->n_models; to++) {
        double weight = cost[to] - cost[from];
        if (to != from && weight < INFINITY &&
            !add(&e->heaps[from * e->n_models + to], (struct entry){weight, (uint32_t)cell}))
            return false;
    }
    return true;
}

/* Queries that the arc carries at its present weight, and that weight. 0 when there is no such arc. */
static int64_t capacity(struct exchange *e, size_t from, size_t to, double *weight) {
    *weight = 0;
    if (to == e->market) return e->high[from] - e->flow[from];
    if (from == e->market) return e->flow[to] - e->low[to];
    const struct entry *entry = cheapest(e, from, to);
    if (!entry) return 0;
    *weight = entry->weight;
    return e->assigned[entry->cell * e->n_models + from];
}

/* Dijkstra from every node with too many; the nearest with too few, or n_nodes when none is within reach. */
static size_t nearest_want(struct exchange *e) {
    for (size_t v = 0; v < e->n_nodes; v++) {
        e->distance[v] = e->excess[v] > 0 ? 0 : INFINITY;
        e->before[v] = v;
        e->settled[v] = false;
    }
    for (;;) {
        size_t u = e->n_nodes;
        for (size_t v = 0; v < e->n_nodes; v++)
            if (!e->settled[v] && e->distance[v] < INFINITY && (u == e->n_nodes || e->distance[v] < e->distance[u]))
                u = v;
        if (u == e->n_nodes || e->excess[u] < 0) return u;
        e->settled[u] = true;
        for (size_t v = 0; v < e->n_nodes; v++) {
            double weight;
            if (e->settled[v] || capacity(e, u, v, &weight) <= 0) continue;
            /* Rounding may leave a reduced weight a hair below 0. */
            double distance = e->distance[u] + fmax(0, weight + e->price[v] - e->price[u]);
            if (distance < e->distance[v]) {
                e->distance[v] = distance;
                e->before[v] = u;
            }
        }
    }
}

/* Sends what the path to target carries. False when memory is short. */
static bool augment(struct exchange *e, size_t target) {
    int64_t amount = -e->excess[target];
    size_t source = target;
    double weight;
    for (; e->before[source] != source; source = e->before[source]) {
        int64_t most = capacity(e, e->before[source], source, &weight);
        if (most < amount) amount = most;
    }
    if (e->excess[source] < amount) amount = e->excess[source];
    for (size_t to = target; e->before[to] != to; to = e->before[to]) {
        size_t from = e->before[to];
        if (to == e->market) {
            e->flow[from] += amount;
        } else if (from == e->market) {
            e->flow[to] -= amount;
        } else {
            size_t cell = cheapest(e, from, to)->cell;
            int64_t *x = e->assigned + cell * e->n_models;
            bool came = x[to] == 0;
            x[from] -= amount;
            x[to] += amount;
            if (came && !offer(e, cell, to, push)) return false;
        }
    }
    e->excess[source] -= amount;
    e->excess[target] += amount;
    return true;
}

/* A price says where in its band a load belongs: at the top if it holds off, at the bottom if it draws in. */
static bool start(struct exchange *e) {
    for (size_t c = 0; c < e->n_cells; c++)
        for (size_t k = 0; k < e->n_models; k++) {
            int64_t x = e->assigned[c * e->n_models + k];
            e->excess[k] += x;
            if (x > 0 && !offer(e, c, k, append)) return false;
        }
    for (size_t arc = 0; arc < e->n_models * e->n_models; arc++)
        for (size_t place = e->heaps[arc].length / 2; place-- > 0;) sift_down(&e->heaps[arc], place);
    for (size_t k = 0; k < e->n_models; k++) {
        int64_t load = e->excess[k];
        if (e->price[k] > 0 || (e->price[k] == 0 && load > e->high[k]))
            e->flow[k] = e->high[k];
        else if (e->price[k] < 0 || load < e->low[k])
            e->flow[k] = e->low[k];
        else
            e->flow[k] = load;
        e->excess[k] = load - e->flow[k];
        e->excess[e->market] -= e->excess[k];
    }
    return true;
}

static int run(struct exchange *e) {
    if (!start(e)) return LLMPOWER_EXCHANGE_NO_MEMORY;
    for (;;) {
        bool settled = true;
        for (size_t v = 0; v < e->n_nodes; v++) settled = settled && e->excess[v] <= 0;
        if (settled) return LLMPOWER_EXCHANGE_DONE;
        size_t target = nearest_want(e);
        if (target == e->n_nodes) return LLMPOWER_EXCHANGE_STUCK;
        for (size_t v = 0; v < e->n_nodes; v++) e->price[v] -= fmin(e->distance[v], e->distance[target]);
        if (!augment(e, target)) return LLMPOWER_EXCHANGE_NO_MEMORY;
    }
}

int llmpower_exchange(const double *costs, size_t n_cells, size_t n_models, const int64_t *low, const int64_t *high,
                      int64_t *assigned, double *prices) {
    size_t n_nodes = n_models + 1;
    struct exchange e = {.costs = costs,
                         .low = low,
                         .high = high,
                         .assigned = assigned,
                         .n_cells = n_cells,
                         .n_models = n_models,
                         .market = n_models,
                         .n_nodes = n_nodes};
    e.heaps = calloc(n_models * n_models, sizeof *e.heaps);
    e.price = calloc(n_nodes, sizeof *e.price);
    e.distance = calloc(n_nodes, sizeof *e.distance);
    e.flow = calloc(n_nodes, sizeof *e.flow);
    e.excess = calloc(n_nodes, sizeof *e.excess);
    e.before = calloc(n_nodes, sizeof *e.before);
    e.settled = calloc(n_nodes, sizeof *e.settled);
    int status = LLMPOWER_EXCHANGE_NO_MEMORY;
    if (e.heaps && e.price && e.distance && e.flow && e.excess && e.before && e.settled) {
        memcpy(e.price, prices, n_models * sizeof *prices);
        status = run(&e);
        /* Prices count from the market's: there a load costs nothing. */
        for (size_t k = 0; k < n_models; k++) prices[k] = e.price[k] - e.price[e.market];
        for (size_t arc = 0; arc < n_models * n_models; arc++) free(e.heaps[arc].entries);
    }
    free(e.heaps);
    free(e.price);
    free(e.distance);
    free(e.flow);
    free(e.excess);
    free(e.before);
    free(e.settled);
    return status;
}
