"""Modelling's only access to C: cffi's module, and nothing but calls that turn NumPy arrays into pointers and back.

The functions of ``csrc/modelling/tally.h``, which says what they do; those of ``normal.h`` and ``folds.h`` are called
in :mod:`~llmpower.modelling.regressing.solving`. Their arguments are checked here, because C cannot: every array is
contiguous, of the type that C reads, and as long as it says. C runs without Python's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling import _tally  # compiled from csrc/modelling/tally.h
from llmpower.modelling.linear import FloatArray
from llmpower.modelling.rows.strata import EXACT, FINER, JUDGED, LENGTHS, PHASES, SPANNED, SUMS, SURE_SUMS, Codes

# The package's __getattr__ makes every name of it an object for mypy, this module's too.
extension: Any = _tally
ffi: Any = extension.ffi
lib: Any = extension.lib

COUNTS = ("input_tokens", "output_tokens", "batch_size", "concurrency")
"""Columns that may be whole numbers."""

COLUMNS = ("energy_j", "std_j", "runtime_s")
GIVEN = PHASES[:3]
"""What is left of a runtime is the last one."""

FLAGS = ("allocated", "modelled")
MODELS_END = 2**32

AHEAD = 2
"""Additions that may wait to be summed while further rows are looked at: all of their columns stay in memory."""

HELD_ROWS = 1 << 16
"""Of a model: their sums take about as long as what is made of them. Of more, all threads should sum."""

MORE_TALLIES = 4
"""Beyond a first one: the more, the sooner the first sums are ready, and the more often rows are looked through."""

assert (len(LENGTHS), len(PHASES)) == (lib.LLMPOWER_LENGTHS, lib.LLMPOWER_PHASES)
assert (len(SPANNED), len(SUMS)) == (lib.LLMPOWER_SPANNED, lib.LLMPOWER_SUMS)
assert (len(SURE_SUMS), len(JUDGED)) == (lib.LLMPOWER_SURE_SUMS, lib.LLMPOWER_JUDGED)
assert (EXACT, FINER) == (lib.LLMPOWER_EXACT, lib.LLMPOWER_FINER)


@dataclass(frozen=True, slots=True)
class Summed:
    """What a summer has of one model, as C lays it out.

    Of its cells ``lengths`` is (4, n_cells) and ``sums`` (35, n_cells); of its strata ``cells`` and ``certainty`` are
    (m,), ``sure_sums`` (6, m). ``judged`` is (11, n) and ``judged_strata`` (n,). ``low`` and ``high`` have shape (6,).
    """

    digits: int
    lengths: FloatArray
    sums: FloatArray
    cells: Codes
    certainty: Codes
    sure_sums: FloatArray
    judged: FloatArray
    judged_strata: Codes
    rows: int
    below: int
    allocated: int
    modelled: int
    low: FloatArray
    high: FloatArray


class Summer:
    """Sums, judged rows and counts of models 0 … ``n_models`` − 1, which may be pickled.

    ``threads`` is how many look at rows at a time, each with a tally of its own models; what is found is the same. They
    do so while the caller goes on to its next rows. Where all of ``held_rows`` stay in memory and are of many models,
    the caller is one of the threads: the others sum some models after others, and it may make something of the first.
    """

    def __init__(self, most_cells: int, most_judged: int, threads: int = 1, *, held_rows: int = 0) -> None:
        self._most = most_cells, most_judged, threads
        self._held_rows = held_rows
        self._tallies: list[Any] = []
        self._pools = [ThreadPoolExecutor(1) for _ in range(threads)]  # a tally's additions are made one by one
        self._under_way: list[deque[Future[None]]] = []
        self._waiting: list[tuple[int, dict[str, Any], int]] = []  # additions to tallies after each thread's first
        self._models_a_turn = MODELS_END
        self._more_tallies(threads)
        self._arrived: list[Summed] = []  # what was unpickled, until something is added to it
        self.n_models = 0

    def add(self, model: NDArray[np.uint32], n_models: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Rows (n,) of models below ``n_models``; ``columns`` by the names of C, those of phases among them.

        They are read until they are summed, which is after this returns: nobody may write to them any more.
        """
        assert model.max(initial=0) < n_models < MODELS_END
        self._unpack()
        n = len(model)
        # Pointers that own what they point into, for as long as this is read.
        rows: dict[str, Any] = {
            "n": n,
            "model": pointer("uint32_t[]", model, np.uint32, (n,)),
            "phases": [_double(columns[name], (n,)) if name in columns else ffi.NULL for name in GIVEN],
        }
        for name in COUNTS:
            if name in columns:
                whole = columns[name].dtype == np.int64
                rows[name] = {"wholes" if whole else "reals": (_int64 if whole else _double)(columns[name], (n,))}
        for name in COLUMNS:
            if name in columns:
                rows[name] = _double(columns[name], (n,))
        for name in FLAGS:
            if name in columns:
                rows[name] = pointer("uint8_t[]", columns[name].view(np.uint8), np.uint8, (n,))
        if not self.n_models:
            self._plan(n_models)
        number = self._tally_of(np.arange(n_models))
        for tally in range(len(self._tallies)):
            rows["own"] = pointer("uint8_t[]", (number == tally).view(np.uint8), np.uint8, (n_models,))
            addition = tally, rows.copy(), n_models
            if tally < len(self._pools):
                self._take_in(*addition)
            else:
                self._waiting.append(addition)
        for under_way in self._under_way if self._models_a_turn == MODELS_END else ():
            while len(under_way) > AHEAD:
                under_way.popleft().result()
        self.n_models = max(self.n_models, n_models)

    def _plan(self, n_models: int) -> None:
        """Which of about this many models are summed after others."""
        threads = len(self._pools) - 1
        if threads and 0 < self._held_rows <= HELD_ROWS * n_models:
            turns = 1 + MORE_TALLIES // threads
            self._models_a_turn = -(-n_models // turns)
            self._pools.pop()
            self._more_tallies(turns * threads)

    def _more_tallies(self, n: int) -> None:
        while len(self._tallies) < n:
            tally = _there(lib.llmpower_tally_new(*self._most[:2]))
            self._tallies.append(ffi.gc(tally, lib.llmpower_tally_free))
            self._under_way.append(deque())

    def _take_in(self, tally: int, rows: dict[str, Any], n_models: int) -> None:
        def take_in() -> int:
            of_rows = ffi.new("struct llmpower_rows *", rows)
            return int(lib.llmpower_tally_rows(self._tallies[tally], of_rows, n_models))

        self._begin(tally, take_in)

    def _begin(self, tally: int, call: Callable[[], int]) -> None:
        """The tally's thread makes the call when it has done what was begun before."""
        under_way = self._under_way[tally]
        before = under_way[-1] if under_way else None

        def made() -> None:
            if before is not None:
                before.result()  # a tally that had no memory for those takes no more
            _done(call())

        under_way.append(self._pools[tally % len(self._pools)].submit(made))

    def merge(self, model: int, theirs: Summed) -> None:
        """What another has of a model, which is read until it is merged, after this returns."""
        assert 0 <= model < MODELS_END
        self._unpack()
        n_cells, m, n = theirs.lengths.shape[1], len(theirs.certainty), len(theirs.judged_strata)
        assert below(theirs.cells, n_cells)
        counts = ffi.new("struct llmpower_counts *")
        for name in ("rows", "below", *FLAGS, "low", "high"):
            value = getattr(theirs, name)
            setattr(counts, name, value if isinstance(value, int) else value.tolist())
        self._begin_waiting()
        tally = int(self._tally_of(np.int64(model)))

        def merge() -> int:
            sizes = ffi.new("struct llmpower_sizes *", (n_cells, m, n, theirs.digits))
            return int(
                lib.llmpower_tally_merge(self._tallies[tally], model, counts, sizes, _arrays(theirs, n_cells, m, n))
            )

        self._begin(tally, merge)
        self.n_models = max(self.n_models, model + 1)

    def of_model(self, model: int) -> Summed:
        """What there is of a model."""
        assert 0 <= model < self.n_models
        if self._arrived:
            return self._arrived[model]
        tally = self._settled(model)
        sizes, counts = ffi.new("struct llmpower_sizes *"), ffi.new("struct llmpower_counts *")
        lib.llmpower_tally_sizes(tally, model, sizes, counts)
        n_cells, m, n = sizes.cells, sizes.strata, sizes.judged
        found = Summed(
            digits=sizes.digits,
            lengths=np.empty((len(LENGTHS), n_cells)),
            sums=np.empty((len(SUMS), n_cells)),
            cells=np.empty(m, np.int64),
            certainty=np.empty(m, np.int64),
            sure_sums=np.empty((len(SURE_SUMS), m)),
            judged=np.empty((len(JUDGED), n)),
            judged_strata=np.empty(n, np.int64),
            rows=counts.rows,
            below=counts.below,
            allocated=counts.allocated,
            modelled=counts.modelled,
            low=np.array(list(counts.low)),
            high=np.array(list(counts.high)),
        )
        _done(lib.llmpower_tally_model(tally, model, _arrays(found, n_cells, m, n)))
        return found

    def _settled(self, model: int) -> Any:
        """The tally of a model, when all that was added is summed there."""
        self._begin_waiting()
        number = int(self._tally_of(np.int64(model)))
        for future in self._under_way[number]:
            future.result()
        return self._tallies[number]

    def _begin_waiting(self) -> None:
        """Additions to tallies after each thread's first, one tally after another."""
        waiting, self._waiting = self._waiting, []
        for addition in sorted(waiting, key=itemgetter(0)):
            self._take_in(*addition)

    def _tally_of(self, model: Codes | np.int64) -> Codes:
        """The number of a model's, or of each one's."""
        threads = len(self._pools)
        turn = np.minimum(model // self._models_a_turn, len(self._tallies) // threads - 1)
        return np.asarray(turn * threads + model % threads)

    def __getstate__(self) -> tuple[tuple[int, int, int], list[Summed]]:
        return self._most, [self.of_model(model) for model in range(self.n_models)]

    def __setstate__(self, state: tuple[tuple[int, int, int], list[Summed]]) -> None:
        # Most of what arrives is only read, to be merged into another's or to be fitted.
        most, models = state
        Summer.__init__(self, *most)
        self._arrived, self.n_models = models, len(models)

    def _unpack(self) -> None:
        arrived, self._arrived = self._arrived, []
        for model, summed in enumerate(arrived):
            self.merge(model, summed)


def _there(tally: Any) -> Any:
    if tally == ffi.NULL:
        raise MemoryError("a tally")
    return tally


def _done(status: int) -> None:
    if status:
        raise MemoryError("the sums of a tally's models")


def _arrays(summed: Summed, n_cells: int, m: int, n: int) -> Any:
    """Good as long as its arrays are."""
    of_cells = _double(summed.lengths, (len(LENGTHS), n_cells)), _double(summed.sums, (len(SUMS), n_cells))
    of_strata = (
        _int64(summed.cells, (m,)),
        _int64(summed.certainty, (m,)),
        _double(summed.sure_sums, (len(SURE_SUMS), m)),
    )
    of_judged = _double(summed.judged, (len(JUDGED), n)), _int64(summed.judged_strata, (n,))
    return ffi.new("struct llmpower_arrays *", (*of_cells, *of_strata, *of_judged))


def below(numbers: Codes, n: int) -> bool:
    """Whether all are from 0 to n − 1; those below zero are great without a sign."""
    return bool(numbers.view(np.uint64).max(initial=0) < max(1, n))


def _double(array: FloatArray, shape: tuple[int, ...]) -> Any:
    return pointer("double[]", array, np.float64, shape)


def _int64(array: Codes, shape: tuple[int, ...]) -> Any:
    return pointer("int64_t[]", array, np.int64, shape)


def pointer(c_type: str, array: NDArray[Any], dtype: type | np.dtype[Any], shape: tuple[int, ...]) -> Any:
    """Where C finds an array, which has to outlive it; of this type and shape, one row after another."""
    assert array.dtype == dtype
    assert array.shape == shape
    assert array.flags.c_contiguous
    return ffi.from_buffer(c_type, array)
