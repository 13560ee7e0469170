"""Rows of a store as a frame that takes little memory, however many they are.

SQLite hands each cell over as an object of its own, so a text that a million rows share is a million objects of a
hundred bytes. Here a batch of rows becomes arrays and is forgotten, and columns whose texts come again and again are
categories, a byte or two a row.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.store.rows import FLAGS

if TYPE_CHECKING:
    import pandas as pd

_REPEATED = ("hostname", "model_name", "system", "device_uuids", "quality", "method")
"""Columns of few texts, each in many rows."""

_COUNTS = ("input_tokens", "output_tokens", "batch_size")

_ROWS_AT_ONCE = 4096


def frame_of(rows: Iterable[tuple[object, ...]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows of ``columns`` as a frame of them: text, categories or numbers, in which what is absent is NaN."""
    import pandas as pd

    left = iter(rows)
    found = [_column(name) for name in columns]
    while some := list(islice(left, _ROWS_AT_ONCE)):
        for column, values in zip(found, zip(*some, strict=True), strict=True):
            column.add(values)
    whole = {name: column.whole() for name, column in zip(columns, found, strict=True)}
    return pd.DataFrame(whole, columns=list(columns), copy=False)


def _column(name: str) -> _Numbers | _Repeated | _Parts:
    if name in _REPEATED:
        return _Repeated()
    if name in _COUNTS:
        return _Numbers(np.int64)
    if name in FLAGS:
        return _Numbers(np.bool_)
    if name.endswith(("_j", "_s")):
        return _Numbers(np.float64)
    return _Parts("Int64" if name == "uid" else "str")


class _Numbers:
    """A column of numbers, in one piece of memory that grows: many small ones would leave holes between them."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._dtype = dtype
        self._bytes = bytearray()

    def add(self, values: Sequence[object]) -> None:
        self._bytes += np.array(values, dtype=self._dtype).tobytes()

    def whole(self) -> np.ndarray[Any, Any]:
        return np.frombuffer(self._bytes, dtype=self._dtype)


class _Repeated:
    """A column of texts that come again and again, by their numbers; −1 is none."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._codes = _Numbers(np.int32)

    def add(self, values: Sequence[object]) -> None:
        number = self._numbers
        self._codes.add([-1 if value is None else number.setdefault(value, len(number)) for value in values])

    def whole(self) -> pd.Categorical:
        import pandas as pd

        texts = pd.Index(list(self._numbers), dtype="str")
        # In the order in which names are sorted everywhere.
        return pd.Categorical.from_codes(self._codes.whole(), texts).reorder_categories(texts.sort_values())


class _Parts:
    """A column of another type, in as many pieces as there were batches."""

    def __init__(self, dtype: str) -> None:
        import pandas as pd

        self._dtype = dtype
        self._parts = [pd.Series([], dtype=dtype)]

    def add(self, values: Sequence[object]) -> None:
        import pandas as pd

        self._parts.append(pd.Series(list(values), dtype=self._dtype))

    def whole(self) -> pd.Series[Any]:
        import pandas as pd

        return pd.concat(self._parts, ignore_index=True)
