"""Routing's only access to C: cffi's module, and pointers to NumPy's arrays that are checked here, because C cannot.

Every array is contiguous, of the type that C reads, and as long as it says. What is called with them stands in
:mod:`~llmpower.routing.solving.kernels` and :mod:`~llmpower.routing.problem.row_kernels`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.linear import FloatArray
from llmpower.routing import _exchange  # compiled from csrc/routing/routing.h

# The package's __getattr__ makes every name of it an object for mypy, this module's too.
extension: Any = _exchange
ffi: Any = extension.ffi
lib: Any = extension.lib

IntArray = NDArray[np.int64]
Choices = NDArray[np.uint16]
Numbers = NDArray[np.uint32]
MODELS_END = 2**16
CELLS_END = 2**32


def checked_shape(matrix: FloatArray | IntArray) -> tuple[int, int]:
    """Numbers of cells and models, which 32 and 16 bits must hold."""
    n_cells, n_models = matrix.shape
    assert 0 < n_models < MODELS_END
    assert n_cells < CELLS_END
    return n_cells, n_models


def double(array: FloatArray, shape: tuple[int, ...]) -> Any:
    """As ``double[]`` of this shape."""
    assert array.dtype == np.float64
    return pointer("double[]", array, shape)


def int64(array: IntArray, shape: tuple[int, ...]) -> Any:
    """As ``int64_t[]`` of this shape."""
    assert array.dtype == np.int64
    return pointer("int64_t[]", array, shape)


def uint32(array: Numbers, shape: tuple[int, ...]) -> Any:
    """As ``uint32_t[]`` of this shape."""
    assert array.dtype == np.uint32
    return pointer("uint32_t[]", array, shape)


def uint16(array: NDArray[np.uint16], shape: tuple[int, ...]) -> Any:
    """As ``uint16_t[]`` of this shape."""
    assert array.dtype == np.uint16
    return pointer("uint16_t[]", array, shape)


def pointer(c_type: str, array: NDArray[Any], shape: tuple[int, ...]) -> Any:
    """An array of this shape as C has it, which must not outlive it."""
    assert array.shape == shape
    assert array.flags.c_contiguous
    return ffi.from_buffer(c_type, array)
