"""The columns that screening looks at, as arrays: what is not a number is NaN, and nothing is refused.

Text is read once per distinct value, so a million rows of a few systems cost what a few rows do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from llmpower.modelling.forms import FloatArray
from llmpower.modelling.screening.order import Codes, Mask
from llmpower.modelling.screening.watts import device_count, tdp_w
from llmpower.tables import NO_NUMBERS

if TYPE_CHECKING:
    import pandas as pd

ENERGIES = ("gpu_energy_j", "cpu_energy_j", "energy_j")
PHASES = ("prefill_energy_j", "decode_energy_j")
CODED = ("system", "batch_size", "hostname", "pid", "device_uuids")
TRUE = ("true", "1", "1.0")

NO_TIME = np.iinfo(np.int64).min
"""Of a row without a time: what NumPy makes of one."""

AT_ONCE = 1 << 16
"""Times that are read together: on the way each is an object of its own."""


@dataclass(frozen=True)
class Rows:
    """Arrays of shape (n_rows,); codes number distinct values from 0.

    ``group`` numbers what may be compared with each other: model, system and batch size; ``prompt`` the input lengths
    within, ``cell`` both lengths.
    ``main_energy_j`` is the GPU energy, or whichever energy there is. ``devices`` and ``tdp_w`` [W, one device] are
    NaN where they are not known, ``started_ns`` is ``None`` where the file has no times, and a row's is the least
    integer where it has none. ``code`` has the numbers of :data:`CODED`.
    """

    frame: pd.DataFrame
    code: Mapping[str, Codes]
    model: Codes
    model_names: list[str]
    group: Codes
    prompt: Codes
    cell: Codes
    input_tokens: FloatArray
    output_tokens: FloatArray
    runtime_s: FloatArray
    energies: dict[str, FloatArray]
    main_energy_j: FloatArray
    main_std_j: FloatArray
    devices: FloatArray
    tdp_w: FloatArray
    started_ns: NDArray[np.int64] | None
    allocated: Mask

    def __len__(self) -> int:
        return len(self.frame)

    def has(self, column: str) -> bool:
        """Whether the file has the column, and something in it."""
        return column in self.frame.columns and bool(self.frame[column].notna().any())

    def codes(self, *columns: str) -> Codes:
        """Numbers of the distinct combinations of those of the columns that there are."""
        return combine(*(self.code[name] for name in columns if name in self.code), n=len(self))

    def place(self, position: int) -> str:
        """Where a row stands, for people: its row, and its source where there are several."""
        import pandas as pd

        index = self.frame.index
        if not isinstance(index, pd.MultiIndex) or index.names != ["source", "row"]:
            return f"row {position + 1}"
        source, row = index[position]
        sources = index.codes[0]
        return f"row {row}" if (sources == sources[0]).all() else f"row {row} of {source}"


def rows_of(frame: pd.DataFrame, tdp: float | None) -> Rows:
    """Read the columns; ``tdp`` [W] goes before what names of systems say, and a column ``tdp_w`` before both."""
    import pandas as pd

    n = len(frame)
    names = frame["model_name"].astype("string").fillna("") if "model_name" in frame.columns else None
    model, model_names = pd.factorize(names) if names is not None else (np.zeros(n, dtype=np.intp), [""])
    energies = {name: numbers(frame, name) for name in (*ENERGIES, *PHASES) if name in frame.columns}
    main = next((name for name in ("gpu_energy_j", "energy_j", "cpu_energy_j") if name in energies), None)
    lengths = {name: numbers(frame, name) for name in ("input_tokens", "output_tokens")}
    code = {name: code_of(frame[name]) for name in CODED if name in frame.columns}
    group = combine(np.asarray(model), *(code[name] for name in ("system", "batch_size") if name in code), n=n)
    prompt = combine(group, code_of(pd.Series(lengths["input_tokens"])), n=n)
    named_w = by_text(frame, "system", lambda system: tdp_w(system) or np.nan) if tdp is None else np.full(n, tdp)
    return Rows(
        frame=frame,
        code=code,
        model=np.asarray(model, dtype=np.intp),
        model_names=[str(name) or "(no name)" for name in model_names],
        group=group,
        prompt=prompt,
        cell=combine(prompt, code_of(pd.Series(lengths["output_tokens"])), n=n),
        **lengths,
        runtime_s=numbers(frame, "runtime_s"),
        energies=energies,
        main_energy_j=energies[main] if main else np.full(n, np.nan),
        main_std_j=numbers(frame, f"{main.removesuffix('_j')}_std_j") if main else np.full(n, np.nan),
        devices=_devices(frame),
        tdp_w=_first_known(_positive(numbers(frame, "tdp_w")), named_w),
        started_ns=_started_ns(frame),
        allocated=by_text(frame, "allocated", lambda word: float(word.lower() in TRUE), default=0.0) > 0,
    )


def numbers(frame: pd.DataFrame, column: str) -> FloatArray:
    """The column as numbers; NaN where it has none, or is not there."""
    import pandas as pd

    if column not in frame.columns or frame[column].dtype.kind in NO_NUMBERS:
        return np.full(len(frame), np.nan)
    return np.asarray(pd.to_numeric(frame[column], errors="coerce").astype("float64"))


def code_of(column: pd.Series[Any]) -> Codes:
    """Numbers of the distinct values; an empty cell is a value too."""
    import pandas as pd

    return np.asarray(pd.factorize(column, use_na_sentinel=False)[0], dtype=np.intp)


def combine(*codes: Codes, n: int) -> Codes:
    """One number for each distinct combination, from 0, in the order in which they come."""
    import pandas as pd

    together: Codes = np.zeros(n, dtype=np.intp)
    for code in codes:
        # Most columns of a campaign say one thing only.
        if most := int(code.max(initial=0)):
            together = np.asarray(pd.factorize(together * (most + 1) + code)[0], dtype=np.intp)
    return together


def by_text(
    frame: pd.DataFrame, column: str, reading: Callable[[str], float], default: float = float("nan")
) -> FloatArray:
    """What ``reading`` makes of each distinct text of a column; ``default`` where it is empty or not there."""
    import pandas as pd

    if column not in frame.columns:
        return np.full(len(frame), default)
    code, texts = pd.factorize(frame[column])
    values = np.array([*(reading(str(text)) for text in texts), default])
    return np.asarray(values[code])


def _devices(frame: pd.DataFrame) -> FloatArray:
    """How many devices, by the row's own word: a column of numbers, its UUIDs, or the name of its system."""
    uuids = by_text(frame, "device_uuids", lambda text: float(len(text.split(";"))))
    named = by_text(frame, "system", lambda system: float(device_count(system) or np.nan))
    return _first_known(_positive(numbers(frame, "num_gpus")), _first_known(uuids, named))


def _first_known(first: FloatArray, second: FloatArray) -> FloatArray:
    return np.where(np.isnan(first), second, first)


def _positive(values: FloatArray) -> FloatArray:
    return np.where(values > 0, values, np.nan)


def _started_ns(frame: pd.DataFrame) -> NDArray[np.int64] | None:
    """Nanoseconds since 1970: ISO 8601 in text, or seconds since 1970 in numbers."""
    if "started_at" not in frame.columns:
        return None
    column = frame["started_at"]
    times = np.concatenate(
        [_nanoseconds(column.iloc[start : start + AT_ONCE]) for start in range(0, len(column), AT_ONCE)]
    )
    return None if (times == NO_TIME).all() else times


def _nanoseconds(column: pd.Series[Any]) -> NDArray[np.int64]:
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column.dtype):
        times = pd.to_datetime(column, unit="s", utc=True, errors="coerce")
    else:
        times = pd.to_datetime(column.astype("string"), format="ISO8601", utc=True, errors="coerce")
    return np.asarray(times.dt.tz_localize(None).to_numpy().astype("datetime64[ns]").astype(np.int64))
