"""Each measured request beside what models.json predicts for it; the charts of drift follow from that.

Only like is compared with like, and what is not compared is counted with its reason: a simulated model with requests of
a simulated card, a model of one system with requests on that system, the same devices on both sides, lengths that were
fitted, energies that were measured well enough. Requests that ran alone and those that shared their card have charts of
their own, for what a request costs among others is another figure than what it costs alone.

Requests wait until the step is over and are predicted together, as arrays. The file is read again when it changes;
models that stay the same keep their charts.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llmpower.daemon.comparing.drift import Chart
from llmpower.exceptions import InputError
from llmpower.files import file_state
from llmpower.metrics import MAX_MODEL_NAMES, DriftState, ModelDrift
from llmpower.modelling.fitted.document import load_models
from llmpower.modelling.fitted.models import Fit, WorkloadModel
from llmpower.phrases import plural
from llmpower.types import Measurement

OPTION = "--models"

LEAST_TOLERANCE = 0.02
"""Cards of one make differ by more, and a card from itself by about as much."""

UNKNOWN_TOLERANCE = 0.1
"""For a model that has no held-out error."""

MAX_RELATIVE_STD = 0.2
"""A less certain energy says little, and its logarithm is biased."""

MOST = 1e6
"""A factor beyond this is another unit, and how far beyond tells nothing."""

LOOK_S = 10.0
"""How often the file is looked at."""

OUTCOMES = (
    "compared",
    "no_model",
    "simulated",
    "other_system",
    "other_boundary",
    "not_measured",
    "uncertain",
    "batch",
    "outside_range",
    "too_many_models",
)
"""What may come of a request, in the order in which it is asked; ``simulated``: only one of model and card is."""

_IDLE = "-idle"

logger = logging.getLogger("llmpower.daemon")

Key = tuple[str, str, str, bool]
"""Name and system of the model, how its requests shared their card, and whether all of it is simulated."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """A request that waits to be compared."""

    key: Key
    model: WorkloadModel
    measurement: Measurement
    energy_j: float


class Comparison:
    """Compares measurements with the models of ``file``.

    Args:
        file: models.json.
        on_error: told when the file has changed and cannot be read; the former models stay.
        now_s: a clock that is never set.

    Raises:
        InputError: the file cannot be used now, at the start.
    """

    def __init__(
        self, file: Path, on_error: Callable[[str], None] = lambda _: None, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._file = file
        self._on_error = on_error
        self._now_s = now_s
        self._charts: dict[Key, tuple[WorkloadModel, Chart]] = {}
        self._outcomes: Counter[str] = Counter()
        self._waiting: list[_Pair] = []
        self._models: dict[str, list[WorkloadModel]] = {}
        self._seen = file_state(file)
        self._looked_s = now_s()
        self._take(load_models(file, OPTION))

    @property
    def models(self) -> tuple[WorkloadModel, ...]:
        """Those that requests are compared with."""
        return tuple(model for models in self._models.values() for model in models)

    def add(self, measurement: Measurement) -> None:
        """One request has been measured."""
        found = self._pair(measurement)
        if isinstance(found, str):
            self._outcomes[found] += 1
        else:
            self._waiting.append(found)

    def state(self) -> DriftState:
        """Compare what waits, and tell where the charts are."""
        if self._now_s() - self._looked_s >= LOOK_S:
            self._look()
        self._compare()
        return DriftState(
            models_file=str(self._file),
            models=len(self.models),
            outcomes={name: self._outcomes[name] for name in OUTCOMES},
            charts=tuple(_frozen(key, chart) for key, (_, chart) in self._charts.items() if chart.spans),
        )

    def _pair(self, measurement: Measurement) -> _Pair | str:
        """The request with its model and joules, or what is amiss."""
        span = measurement.span
        models = self._models.get(span.model_name)
        if models is None:
            return "no_model"
        models = [model for model in models if model.simulated == measurement.simulated]
        if not models:
            return "simulated"
        models = [model for model in models if _of_system(model, measurement.system)]
        if not models:
            return "other_system"
        # What names the system before what names none.
        model = next((model for model in models if model.system), models[0])
        parts = _parts(model.boundary)
        if parts is None:
            return "other_boundary"
        energy_j, std_j = _energy(measurement, parts, net=model.boundary is not None and model.boundary.endswith(_IDLE))
        if energy_j is None or energy_j <= 0:
            return "not_measured"
        if std_j is None or std_j > MAX_RELATIVE_STD * energy_j:
            return "uncertain"
        if span.batch_size != 1 and model.energy.batch_range is None:
            return "batch"
        sharing = "shared" if measurement.allocated else "alone"
        key = (model.model_name, model.system, sharing, model.simulated)
        return _Pair(key, model, measurement, energy_j)

    def _compare(self) -> None:
        waiting, self._waiting = self._waiting, []
        by_model: dict[int, list[_Pair]] = {}
        for pair in waiting:
            by_model.setdefault(id(pair.model), []).append(pair)
        for pairs in by_model.values():
            fit = pairs[0].model.energy
            spans = [pair.measurement.span for pair in pairs]
            # A fit is of one request in a batch of this size, a span of all of them.
            batch = np.array([span.batch_size for span in spans])
            τin = np.array([span.input_tokens for span in spans]) / batch
            τout = np.array([span.output_tokens for span in spans]) / batch
            with np.errstate(over="ignore", invalid="ignore"):
                predicted_j = batch * fit.predict(τin, τout, batch)
            known = fit.inside(τin, τout, batch) & (predicted_j > 0) & np.isfinite(predicted_j)
            for pair, of_range, expected_j in zip(pairs, known.tolist(), predicted_j.tolist(), strict=True):
                if of_range:
                    self._note(pair, _bounded(math.log(pair.energy_j) - math.log(expected_j)))
                else:
                    self._outcomes["outside_range"] += 1

    def _note(self, pair: _Pair, log_ratio: float) -> None:
        found = self._charts.get(pair.key)
        if found is None:
            # Models are the file's, so there are as many as somebody wrote there; metrics have a bound all the same.
            if len({key[:2] for key in self._charts} | {pair.key[:2]}) > MAX_MODEL_NAMES:
                self._outcomes["too_many_models"] += 1
                return
            found = self._charts[pair.key] = (pair.model, Chart(tolerance_of(pair.model.energy)))
        self._outcomes["compared"] += 1
        found[1].add(log_ratio, pair.measurement.span.end_ns)

    def _look(self) -> None:
        self._looked_s = self._now_s()
        state = file_state(self._file)
        if state == self._seen:
            return
        self._seen = state
        try:
            models = load_models(self._file, OPTION)
        except InputError as error:
            self._on_error(f"{error}; until then requests are compared with the former models")
            return
        self._compare()
        self._take(models)
        logger.info("%s has changed: requests are compared with its %s", self._file, plural(len(models), "model"))

    def _take(self, models: Sequence[WorkloadModel]) -> None:
        self._models = {}
        for model in models:
            self._models.setdefault(model.model_name, []).append(model)
        self._charts = {key: each for key, each in self._charts.items() if each[0] in models}


def tolerance_of(fit: Fit) -> float:
    """How far off the mean of many requests may be by the model's own word, as a logarithm; 2 % at least.

        tolerance = √(MAPE² − (2/π)·ν²)

    The held-out MAPE has two parts: what the form gets wrong, and the noise ν of single trials, whose mean absolute
    value is √(2/π)·ν where it is normal and which the mean of many requests does not have. Where no trial was repeated
    ν is not known, and the whole of the MAPE is allowed.
    """
    mape = UNKNOWN_TOLERANCE if fit.heldout.mape is None else min(fit.heldout.mape, MOST)
    noise = min(fit.replicate_noise or 0.0, MOST)
    return math.log1p(max(math.sqrt(max(mape**2 - 2 / math.pi * noise**2, 0.0)), LEAST_TOLERANCE))


def _frozen(key: Key, chart: Chart) -> ModelDrift:
    assert chart.mean is not None  # it has spans
    return ModelDrift(
        model_name=key[0],
        system=key[1],
        sharing=key[2],
        simulated=key[3],
        ratio=math.exp(chart.mean),
        std_error=chart.std_error,
        tolerance=math.expm1(chart.tolerance),
        spans=chart.spans,
        drifted=chart.drifted,
    )


def _bounded(log_ratio: float) -> float:
    most = math.log(MOST)
    return min(max(log_ratio, -most), most)


def _of_system(model: WorkloadModel, system: str) -> bool:
    """Whether a model was fitted on the system; one whose measurements named none is taken to be."""
    return not model.system or model.system == system or system in model.system.split(" + ")


def _parts(boundary: str | None) -> tuple[str, ...] | None:
    """The devices whose joules a boundary sums; ``None`` where that is not known."""
    parts = tuple((boundary or "").removesuffix(_IDLE).split("+"))
    return parts if set(parts) <= {"gpu", "cpu"} else None


def _energy(measurement: Measurement, parts: Sequence[str], *, net: bool) -> tuple[float | None, float | None]:
    """Joules of these devices and their standard deviation, ``None`` where one of them was not measured."""
    joules = [getattr(measurement, f"{part}_energy_j") for part in parts]
    deviations = [getattr(measurement, f"{part}_energy_std_j") for part in parts]
    if net:
        idle = [getattr(measurement, f"{part}_idle_energy_j") for part in parts]
        joules = [None if j is None or i is None else j - i for j, i in zip(joules, idle, strict=True)]
    energy_j = None if None in joules else sum(joules)
    return energy_j, None if None in deviations else math.hypot(*deviations)
