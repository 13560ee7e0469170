"""Routing's door to C: cffi's module, and nothing but calls that turn NumPy arrays into pointers and back.

The three functions of ``csrc/routing/routing.h``, which says what they do. Their arguments are checked here, because C
cannot: every array is contiguous, of the type that C reads, and as long as it says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.routing import _exchange  # compiled from csrc/routing/routing.h
from llmpower.routing.workload import IntArray

# The package's __getattr__ makes every name of it an object for mypy, this module's too.
extension: Any = _exchange
ffi: Any = extension.ffi
lib: Any = extension.lib

Choices = NDArray[np.uint16]
MODELS_END = 2**16
CELLS_END = 2**32


def price(costs: FloatArray, count: IntArray, prices: FloatArray) -> tuple[Choices, Choices, FloatArray, IntArray]:
    """Cheapest and second best model and their margin, each (n_cells,), at these prices, and the loads (n_models,)."""
    n_cells, n_models = _shape(costs)
    choice, runner_up = np.empty(n_cells, np.uint16), np.empty(n_cells, np.uint16)
    margin = np.empty(n_cells)
    loads = np.empty(n_models, np.int64)
    lib.llmpower_price(
        _double(costs, (n_cells, n_models)),
        _int64(count, (n_cells,)),
        n_cells,
        n_models,
        _double(prices, (n_models,)),
        ffi.from_buffer("uint16_t[]", choice),
        ffi.from_buffer("uint16_t[]", runner_up),
        _double(margin, (n_cells,)),
        _int64(loads, (n_models,)),
    )
    return choice, runner_up, margin, loads


def regret(costs: FloatArray, assigned: IntArray, prices: FloatArray) -> tuple[float, float]:
    """Σ x·(c + p − min (c + p)) and Σ x·|c| over what is assigned (n_cells, n_models)."""
    n_cells, n_models = _shape(costs)
    above, paid = ffi.new("double *"), ffi.new("double *")
    lib.llmpower_regret(
        _double(costs, (n_cells, n_models)),
        _int64(assigned, (n_cells, n_models)),
        n_cells,
        n_models,
        _double(prices, (n_models,)),
        above,
        paid,
    )
    return float(above[0]), float(paid[0])


def exchange(costs: FloatArray, low: IntArray, high: IntArray, assigned: IntArray, prices: FloatArray) -> bool:
    """Bring the loads of ``assigned`` within ``low`` and ``high``; both it and ``prices`` are overwritten.

    Whether that was possible. ``assigned`` must be optimal for its own loads at ``prices``.

    Raises:
        MemoryError: there is not enough of it.
    """
    n_cells, n_models = _shape(costs)
    status = lib.llmpower_exchange(
        _double(costs, (n_cells, n_models)),
        n_cells,
        n_models,
        _int64(low, (n_models,)),
        _int64(high, (n_models,)),
        _int64(assigned, (n_cells, n_models)),
        _double(prices, (n_models,)),
    )
    if status == lib.LLMPOWER_EXCHANGE_NO_MEMORY:
        raise MemoryError(f"exchanging {n_cells} cells among {n_models} models")
    return bool(status == lib.LLMPOWER_EXCHANGE_DONE)


def _shape(costs: FloatArray) -> tuple[int, int]:
    n_cells, n_models = costs.shape
    assert 0 < n_models < MODELS_END
    assert n_cells < CELLS_END
    return n_cells, n_models


def _double(array: FloatArray, shape: tuple[int, ...]) -> Any:
    assert array.dtype == np.float64
    return _pointer("double[]", array, shape)


def _int64(array: IntArray, shape: tuple[int, ...]) -> Any:
    assert array.dtype == np.int64
    return _pointer("int64_t[]", array, shape)


def _pointer(c_type: str, array: NDArray[Any], shape: tuple[int, ...]) -> Any:
    assert array.shape == shape
    assert array.flags.c_contiguous
    return ffi.from_buffer(c_type, array)
