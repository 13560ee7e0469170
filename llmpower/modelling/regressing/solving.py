"""The functions of ``csrc/modelling/normal.h`` and ``folds.h``, called with NumPy arrays.

A form of five terms is little arithmetic, and NumPy takes longer to begin a step than these take to end it. Arguments
are checked as in :mod:`~llmpower.modelling.kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.modelling.kernels import below, ffi, lib, pointer
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.strata import Codes

if TYPE_CHECKING:
    from llmpower.modelling.regressing.cells import Cells

DOUBLE, INT64 = np.dtype(np.float64), np.dtype(np.int64)


@dataclass(frozen=True, slots=True)
class Missed:
    """Errors of ``n`` rows in all: how many are predicted at or below zero, Σŷ, Σy, Σ|ŷ − y|/y and the greatest."""

    n: int
    negative: int
    predicted: float
    measured: float
    errors: float
    greatest: float

    def __add__(self, other: Missed) -> Missed:
        """Of both sets of rows."""
        return Missed(
            self.n + other.n,
            self.negative + other.negative,
            self.predicted + other.predicted,
            self.measured + other.measured,
            self.errors + other.errors,
            max(self.greatest, other.greatest),
        )


def gram(columns: FloatArray, w: FloatArray, wy: FloatArray) -> tuple[FloatArray, FloatArray, tuple[float, float]]:
    """G (n_terms, n_terms) and g (n_terms,) of cells: ``columns`` of their design (n_terms, m), ``w``, ``wy`` (m,).

    Also the least and the greatest eigenvalue of D⁻¹GD⁻¹, D = diag(G)^½; both 0 where a number of it is not above 0.
    """
    n = len(columns)
    G, g, ends = np.empty((n, n)), np.empty(n), ffi.new("double[2]")
    lib.llmpower_gram(_cells(columns, w, wy), _double(G, (n, n)), _double(g, (n,)), ends)
    return G, g, (ends[0], ends[1])


def solve(G: FloatArray, g: FloatArray, *, non_negative: bool) -> FloatArray:
    """β of Gβ = g, of one G (n_terms, n_terms) and g (n_terms,) or of stacks of them.

    Raises:
        LinAlgError: a matrix is singular.
    """
    n = _fits(g.shape[-1])
    G, g, β = np.ascontiguousarray(G), np.ascontiguousarray(g), np.empty(g.shape)
    problems = _double(G, (*g.shape, n)), _double(g, g.shape)
    _solved(lib.llmpower_solve(g.size // n, n, *problems, non_negative, _double(β, β.shape)))
    return β


def inverse(G: FloatArray) -> FloatArray:
    """G⁻¹ (n_terms, n_terms) of a symmetric G, as symmetric as that.

    Raises:
        LinAlgError: there is none.
    """
    n = _fits(len(G))
    G, found = np.ascontiguousarray(G), np.empty((n, n))
    _solved(lib.llmpower_inverse(n, _double(G, (n, n)), _double(found, (n, n))))
    return np.asarray(found + found.T) / 2


def folds(cells: Cells, β: FloatArray, *, non_negative: bool, singular: float, steep: float) -> FloatArray | None:
    """β without each cell (m, n_terms), ``None`` where one cannot be spared; limits are those of C."""
    found = np.empty(cells.columns.shape[::-1])
    whole, limits = _whole(cells, β, non_negative=non_negative), _limits(singular, steep)
    of_cells = _cells(cells.columns, cells.w, cells.wy)
    return found if lib.llmpower_folds(of_cells, whole, limits, _double(found, found.shape)) else None


def parts(cells: Cells, part: Codes, n_parts: int, *, non_negative: bool, singular: float) -> FloatArray:
    """β without the cells of each part (n_parts, n_terms), NaN where the others do not determine it."""
    n = len(cells.columns)
    assert below(part, n_parts)
    G, g, found = np.zeros((n_parts, n, n)), np.zeros((n_parts, n)), np.empty((n_parts, n))
    lib.llmpower_parts(
        _cells(cells.columns, cells.w, cells.wy),
        _whole(cells, None, non_negative=non_negative),
        _limits(singular, 0.0),
        _int64(part, cells.w.shape),
        n_parts,
        _double(G, G.shape),
        _double(g, g.shape),
        _double(found, found.shape),
    )
    return found


def predict(columns: FloatArray, coefficients: FloatArray) -> FloatArray:
    """φ·β of cells (m,), ``columns`` (n_terms, m) of their design, each by its own coefficients (m, n_terms)."""
    n_terms, m = columns.shape
    predicted = np.empty(m)
    of_cells = _double(columns, columns.shape), _double(coefficients, (m, n_terms))
    lib.llmpower_predict(m, n_terms, *of_cells, _double(predicted, (m,)))
    return predicted


def judge(
    y: FloatArray, cells: Codes, coefficients: FloatArray, columns: Sequence[FloatArray] = ()
) -> tuple[FloatArray, Missed]:
    """|ŷ − y|/y of the rows ``y`` (n,) whose prediction is not NaN, and the same in all.

    ŷ is φ·β with the ``columns`` (n,) of the rows' design and ``coefficients`` (n_cells, n_terms) of their cells;
    without columns it is their cells' one coefficient (n_cells,).
    """
    n, m, shape = len(y), len(coefficients), y.shape
    errors, missed = np.empty(n), ffi.new("struct llmpower_missed *")
    pointers = [_double(column, shape) for column in columns]
    design = ffi.new("double *[]", pointers) if columns else ffi.NULL
    rows = ffi.new(
        "struct llmpower_sample *", (n, max(1, len(pointers)), design, _int64(cells, shape), _double(y, shape))
    )
    of_cells = _double(coefficients, (m, len(pointers)) if columns else (m,))
    status = lib.llmpower_judge(rows, of_cells, m, _double(errors, shape), missed)
    assert status == 0, "a row's cell is none"
    of_all = missed.negative, missed.predicted, missed.measured, missed.errors, missed.greatest
    return errors[: missed.n], Missed(missed.n, *of_all)


def _cells(columns: FloatArray, w: FloatArray, wy: FloatArray) -> Any:
    """Good as long as the arrays are, which are the caller's arguments; as those of the two below."""
    n, m = columns.shape
    pointers = _double(columns, (n, m)), _double(w, (m,)), _double(wy, (m,))
    return ffi.new("struct llmpower_cells *", (m, _fits(n), *pointers))


def _whole(cells: Cells, β: FloatArray | None, *, non_negative: bool) -> Any:
    n = len(cells.columns)
    solution = ffi.NULL if β is None else _double(β, (n,))
    return ffi.new(
        "struct llmpower_whole *", (_double(cells.G, (n, n)), _double(cells.g, (n,)), solution, non_negative)
    )


def _limits(singular: float, steep: float) -> Any:
    return ffi.new("struct llmpower_limits *", (singular, steep))


def _fits(n_terms: int) -> int:
    assert 0 < n_terms <= lib.LLMPOWER_TERMS
    return n_terms


def _solved(status: int) -> None:
    if status < 0:
        raise np.linalg.LinAlgError("Singular matrix")


def _double(array: FloatArray, shape: tuple[int, ...]) -> Any:
    return pointer("double[]", array, DOUBLE, shape)


def _int64(array: Codes, shape: tuple[int, ...]) -> Any:
    return pointer("int64_t[]", array, INT64, shape)
