"""Where the figures come from and what they cover: files, machines, times, quality, and what no driver shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmpower.modelling import WorkloadModel
from llmpower.modelling.rows.frames import floats, words
from llmpower.phrases import plural
from llmpower.report.figure import Table

if TYPE_CHECKING:
    import pandas as pd

MOST_NAMED = 6

COVERS = {
    "gpu": "the GPU boards, as their own sensors have them",
    "cpu": "the CPU packages (RAPL)",
}
NOT_COVERED = (
    "Not in the joules: fans and power supplies of the server, network and storage, cooling and losses of the building"
    " (the PUE stands for these where costs are shown), and making the hardware."
)
GAIN = (
    "A card's own gain error adds to every interval here: external meters have shown −8 % to +13 % between"
    " cards, and no driver shows it. State ±5 % beside absolute figures; comparisons on one card do not suffer from it."
)
QUALITY = (
    "measured: 10 or more ticks of the energy counter inside the request; interpolated: 2 to 9, or 2 readings of the"
    " power in longer ones; modelled: fewer."
    " allocated: the request shared its card with others, and its joules are its share by rule."
)


def boundary_lines(models: Sequence[WorkloadModel]) -> Iterator[str]:
    """What the models' joules cover, and what they do not."""
    kinds = list(dict.fromkeys(model.boundary for model in models))
    for kind in kinds:
        names = "" if len(kinds) == 1 else f"{', '.join(m.model_name for m in models if m.boundary == kind)}: "
        yield f"{names}{_covered(kind)}."
    if len(kinds) > 1:
        yield "These are DIFFERENT things, which are not to be compared."
    yield NOT_COVERED
    yield GAIN


def origin_rows(measurements: pd.DataFrame) -> list[tuple[str, str]]:
    """What the rows say of themselves, as terms and descriptions."""
    rows = [("Measurements", plural(len(measurements), "row"))]
    if "source" in measurements.index.names:
        sources = measurements.index.get_level_values("source")
        names = [f"{name} ({plural(int((sources == name).sum()), 'row')})" for name in dict.fromkeys(sources)]
        rows.append(("Files", _named(names)))
    for column, term in (("hostname", "Hosts"), ("system", "Systems"), ("device_uuids", "Devices")):
        if found := [name for name in words(measurements, column).unique() if name]:
            rows.append((term, _named(sorted(found))))
    if "started_at" in measurements.columns:
        started = measurements["started_at"].dropna().astype(str)
        if len(started):
            rows.append(("Measured", f"{started.min()[:19]} to {started.max()[:19]}"))
    return rows


def quality_table(measurements: pd.DataFrame) -> Table | None:
    """What the energies rest on, by model, quality and method; ``None`` where the rows have no GPU energy."""
    if "gpu_energy_j" not in measurements.columns:
        return None
    keys = [key for key in ("model_name", "quality", "method") if key in measurements.columns]
    energy = floats(measurements, "gpu_energy_j")
    std = floats(measurements, "gpu_energy_std_j") if "gpu_energy_std_j" in measurements.columns else energy * np.nan
    allocated = words(measurements, "allocated").str.lower().isin(["true", "1", "1.0"]).to_numpy()
    rows = []
    for place, index in measurements.reset_index(drop=True).groupby(keys, dropna=False).indices.items():
        names = [str(name) if name == name else "–" for name in (place if isinstance(place, tuple) else (place,))]
        measured, relative = energy[index], std[index] / energy[index]
        rows.append(
            (
                *names,
                len(index),
                int(allocated[index].sum()),
                _median(measured),
                None if (spread := _median(relative)) is None else 100 * spread,
            )
        )
    header = [{"model_name": "Model", "quality": "Quality", "method": "Method"}[key] for key in keys]
    columns = (*header, "Rows", "Allocated", "Median energy [J]", "Median std [%]")
    return Table(columns, rows, n_labels=len(keys))


def finding_table(screening: Mapping[str, Any]) -> Table:
    """What screening found, as :meth:`llmpower.modelling.Screening.document` has it."""
    return Table(
        ("Finding", "Model", "Rows", "Of", "In the fit", "Rule", "The worst"),
        [
            (
                *(found["kind"], found["model_name"], found["n_rows"], found["of_rows"]),
                *("left out" if found["left_out"] else "kept", found["rule"], f"{found['place']}: {found['example']}"),
            )
            for found in screening["findings"]
        ],
        n_labels=2,
    )


def _covered(boundary: str | None) -> str:
    if boundary is None:
        return "The joules cover what the file's column energy_j does, which it does not say"
    devices, net, _ = boundary.partition("-idle")
    parts = " and ".join(COVERS[part] for part in devices.split("+"))
    idle = ", less what they would have drawn with nothing to do" if net else ", idle power included"
    return f"The joules cover {parts}{idle}"


def _named(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _median(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
