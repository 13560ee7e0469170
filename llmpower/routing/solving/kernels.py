"""Passes over cells, in C: what ``csrc/routing/pricing.c``, ``sums.c`` and ``exchange.c`` do, called with arrays.

``csrc/routing/routing.h`` says what they do.
"""

from __future__ import annotations

import numpy as np

from llmpower.modelling.forms import FloatArray
from llmpower.routing.pointers import Choices, IntArray, checked_shape, double, ffi, int64, lib, uint16
from llmpower.routing.stretches import in_stretches

Into = tuple[IntArray, IntArray, FloatArray, FloatArray]
"""Queries and tokens of each class and model (n_classes, n_models); J and s of each model (n_models,)."""
CELLS_AT_ONCE = 2**15


def models_of_cells(assigned: IntArray) -> tuple[Choices, Choices]:
    """Of each cell the last model that has queries of it, and how many models have some; each (n_cells,)."""
    n_cells, n_models = checked_shape(assigned)
    model, models = np.empty(n_cells, np.uint16), np.empty(n_cells, np.uint16)
    pointers = (uint16(array, (n_cells,)) for array in (model, models))
    lib.llmpower_models(int64(assigned, assigned.shape), n_cells, n_models, *pointers)
    return model, models


def assign(choice: Choices, count: IntArray, n_models: int) -> IntArray:
    """The assignment (n_cells, n_models) of every cell's ``count`` to its ``choice``."""
    assigned = np.empty((len(choice), n_models), np.int64)

    def fill(cells: slice) -> None:
        of_cells = choice[cells]
        lib.llmpower_assign(
            uint16(of_cells, of_cells.shape),
            int64(count[cells], of_cells.shape),
            *checked_shape(assigned[cells]),
            int64(assigned[cells], (len(of_cells), n_models)),
        )

    in_stretches(fill, len(choice), CELLS_AT_ONCE)
    return assigned


def add(assigned: IntArray, values: FloatArray, sums: FloatArray) -> None:
    """Add Σ_c x_cK·v_cK of each model to ``sums`` (n_models,), both of shape (n_cells, n_models)."""
    n_cells, n_models = checked_shape(values)
    lib.llmpower_add(
        int64(assigned, values.shape), double(values, values.shape), n_cells, n_models, double(sums, (n_models,))
    )


def sum_up(
    assigned: tuple[Choices, IntArray | None],
    tokens: IntArray,
    cell_class: IntArray,
    joules: FloatArray,
    seconds: FloatArray,
    into: Into,
) -> None:
    """As :func:`count` and, of ``joules`` and ``seconds`` (n_cells, n_models), :func:`add`, in one pass.

    ``assigned`` is the choice of each cell and its queries, all of which go there, each (n_cells,); or queries of each
    cell on each model (n_cells, n_models), and ``None``. ``into`` is added to.
    """
    given, whole = assigned
    queries, of_tokens, of_joules, of_seconds = into
    n_cells, n_models = checked_shape(joules)
    of_classes = (len(queries), n_models)
    further = (
        int64(tokens, (n_cells,)),
        ffi.NULL if len(queries) == 1 else int64(cell_class, (n_cells,)),
        double(joules, joules.shape),
        double(seconds, joules.shape),
        n_cells,
        n_models,
        int64(queries, of_classes),
        int64(of_tokens, of_classes),
        double(of_joules, (n_models,)),
        double(of_seconds, (n_models,)),
    )
    if whole is None:
        lib.llmpower_sum_turns(uint16(given, joules.shape), *further)
    else:
        assert int(given.max()) < n_models
        lib.llmpower_sum_choices(uint16(given, (n_cells,)), int64(whole, (n_cells,)), *further)


def count(assigned: IntArray, tokens: IntArray, cell_class: IntArray, queries: IntArray, of_tokens: IntArray) -> None:
    """Add Σ_c x_cK and Σ_c x_cK·tokens_c of each class and model to ``queries`` and ``of_tokens``.

    Both have shape (n_classes, n_models).
    """
    n_cells, n_models = checked_shape(assigned)
    shape = (len(queries), n_models)
    lib.llmpower_count(
        int64(assigned, assigned.shape),
        int64(tokens, (n_cells,)),
        ffi.NULL if len(queries) == 1 else int64(cell_class, (n_cells,)),
        n_cells,
        n_models,
        int64(queries, shape),
        int64(of_tokens, shape),
    )


def tally(keys: IntArray, n_keys: int, count: IntArray, values: FloatArray) -> FloatArray:
    """Σ count_c·v_cK over the cells of each key 0 … n_keys − 1, shape (n_keys, n_models)."""
    n_cells, n_models = checked_shape(values)
    found = np.zeros((n_keys, n_models))
    lib.llmpower_tally(
        int64(keys, (n_cells,)),
        int64(count, (n_cells,)),
        double(values, values.shape),
        n_cells,
        n_models,
        double(found, found.shape),
    )
    return found


def weigh(
    joules: tuple[FloatArray, float],
    tokens: tuple[IntArray, IntArray] | None,
    accuracy: tuple[FloatArray, float],
    cell_class: IntArray,
    costs: FloatArray,
) -> None:
    """Write ``joules`` less w·``accuracy``, each times its weight, to ``costs``, both (n_cells, n_models).

    w is a query's input and output ``tokens``, each (n_cells,), or 1; ``accuracy`` is (n_classes, n_models).
    """
    n_cells, n_models = checked_shape(costs)
    shape = (n_cells,)
    lib.llmpower_weigh(
        double(joules[0], costs.shape),
        joules[1],
        *((ffi.NULL, ffi.NULL) if tokens is None else (int64(each, shape) for each in tokens)),
        double(accuracy[0], (len(accuracy[0]), n_models)),
        ffi.NULL if len(accuracy[0]) == 1 else int64(cell_class, shape),
        accuracy[1],
        n_cells,
        n_models,
        double(costs, costs.shape),
    )


def price(costs: FloatArray, count: IntArray, prices: FloatArray) -> tuple[Choices, Choices, FloatArray, IntArray]:
    """Cheapest and second best model and their margin, each (n_cells,), at these prices, and the loads (n_models,)."""
    n_cells, n_models = checked_shape(costs)
    choice, runner_up = np.empty(n_cells, np.uint16), np.empty(n_cells, np.uint16)
    margin = np.empty(n_cells)

    def fill(cells: slice) -> IntArray:
        n = cells.stop - cells.start
        loads = np.empty(n_models, np.int64)
        lib.llmpower_price(
            double(costs[cells], (n, n_models)),
            int64(count[cells], (n,)),
            n,
            n_models,
            double(prices, (n_models,)),
            uint16(choice[cells], (n,)),
            uint16(runner_up[cells], (n,)),
            double(margin[cells], (n,)),
            int64(loads, (n_models,)),
        )
        return loads

    loads = sum(in_stretches(fill, n_cells, CELLS_AT_ONCE), np.zeros(n_models, np.int64))
    return choice, runner_up, margin, loads


def by_pair(
    choice: Choices, runner_up: Choices, margin: FloatArray, count: IntArray, n_models: int
) -> tuple[list[FloatArray], IntArray]:
    """The margins of the cells of each pair of best and second best model, best · n_models + second best, and queries.

    A list and an array of n_models² each.
    """
    shape, n_pairs = (len(choice),), n_models * n_models
    assert max(choice.max(), runner_up.max()) < n_models
    ends, queries, margins = np.empty(n_pairs, np.int64), np.empty(n_pairs, np.int64), np.empty(shape)
    lib.llmpower_by_pair(
        uint16(choice, shape),
        uint16(runner_up, shape),
        double(margin, shape),
        int64(count, shape),
        len(choice),
        n_models,
        int64(ends, (n_pairs,)),
        int64(queries, (n_pairs,)),
        double(margins, shape),
    )
    return np.split(margins, ends[:-1]), queries


def border(choice: Choices, runner_up: Choices, margin: FloatArray, n_models: int, limits: FloatArray) -> IntArray:
    """The cells whose ``margin`` is at most the limit of their pair (n_models²,), in ascending order."""
    shape, cells = (len(choice),), np.empty(len(choice), np.int64)
    assert max(choice.max(), runner_up.max()) < n_models
    n = lib.llmpower_border(
        uint16(choice, shape),
        uint16(runner_up, shape),
        double(margin, shape),
        len(choice),
        n_models,
        double(limits, (n_models * n_models,)),
        int64(cells, shape),
    )
    return cells[:n]


def regret(costs: FloatArray, assigned: IntArray, prices: FloatArray) -> tuple[float, float]:
    """Σ x·(c + p − min (c + p)) and Σ x·|c| over what is assigned (n_cells, n_models)."""
    n_cells, n_models = checked_shape(costs)

    def add_up(cells: slice) -> tuple[float, float]:
        shape = cells.stop - cells.start, n_models
        above, paid = ffi.new("double *"), ffi.new("double *")
        lib.llmpower_regret(
            double(costs[cells], shape),
            int64(assigned[cells], shape),
            *shape,
            double(prices, (n_models,)),
            above,
            paid,
        )
        return float(above[0]), float(paid[0])

    above, paid = zip((0.0, 0.0), *in_stretches(add_up, n_cells, CELLS_AT_ONCE), strict=True)
    return sum(above), sum(paid)


def regret_of_choices(costs: FloatArray, choice: Choices, whole: IntArray, prices: FloatArray) -> tuple[float, float]:
    """As :func:`regret`, of all ``whole`` queries of each cell (n_cells,) on its ``choice``."""
    n_cells, n_models = checked_shape(costs)

    def add_up(cells: slice) -> tuple[float, float]:
        n = cells.stop - cells.start
        above, paid = ffi.new("double *"), ffi.new("double *")
        assert int(choice[cells].max()) < n_models
        lib.llmpower_regret_of_choices(
            double(costs[cells], (n, n_models)),
            uint16(choice[cells], (n,)),
            int64(whole[cells], (n,)),
            n,
            n_models,
            double(prices, (n_models,)),
            above,
            paid,
        )
        return float(above[0]), float(paid[0])

    above, paid = zip((0.0, 0.0), *in_stretches(add_up, n_cells, CELLS_AT_ONCE), strict=True)
    return sum(above), sum(paid)


def exchange(costs: FloatArray, low: IntArray, high: IntArray, assigned: IntArray, prices: FloatArray) -> bool:
    """Bring the loads of ``assigned`` within ``low`` and ``high``; both it and ``prices`` are overwritten.

    Whether that was possible. ``assigned`` must be optimal for its own loads at ``prices``.

    Raises:
        MemoryError: there is not enough of it.
    """
    n_cells, n_models = checked_shape(costs)
    status = lib.llmpower_exchange(
        double(costs, (n_cells, n_models)),
        n_cells,
        n_models,
        int64(low, (n_models,)),
        int64(high, (n_models,)),
        int64(assigned, (n_cells, n_models)),
        double(prices, (n_models,)),
    )
    if status == lib.LLMPOWER_EXCHANGE_NO_MEMORY:
        raise MemoryError(f"exchanging {n_cells} cells among {n_models} models")
    return bool(status == lib.LLMPOWER_EXCHANGE_DONE)
