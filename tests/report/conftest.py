"""Measurements as campaigns and servers leave them, and the page made of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from llmpower.modelling import WorkloadModel, fit, screen
from llmpower.report import Hours, Plans, plan_steps, render
from llmpower.routing import Workload
from llmpower.routing.problem.tariff import Tariff

# A name that markup, selectors and patterns would trip over.
ODD = 'large <b>"&amp;"</b> [x]'


@pytest.fixture(scope="session")
def measurements() -> pd.DataFrame:
    """Two models on a grid of lengths, each cell twice."""
    random = np.random.default_rng(0)
    rows = []
    for name, factor in (("small", 1.0), (ODD, 3.0)):
        for tokens_in in (8, 32, 128):
            for tokens_out in (8, 32, 64):
                for _ in range(2):
                    energy_j = factor * (2 + 0.05 * tokens_in + 1.5 * tokens_out) * random.normal(1, 0.02)
                    rows.append(
                        {
                            "model_name": name,
                            "hostname": "node-7",
                            "started_at": f"2026-01-01T00:{len(rows):02}:00+00:00",
                            "input_tokens": tokens_in,
                            "output_tokens": tokens_out,
                            "runtime_s": 0.01 * tokens_out * random.normal(1, 0.02),
                            "gpu_energy_j": energy_j,
                            "gpu_energy_std_j": 0.1 * energy_j,
                            "prefill_energy_j": 0.25 * energy_j,
                            "decode_energy_j": 0.75 * energy_j,
                            "gpu_idle_energy_j": 0.1 * energy_j,
                            "quality": "measured",
                            "method": "counter",
                            "simulated": True,
                        }
                    )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def models(measurements: pd.DataFrame) -> list[WorkloadModel]:
    return fit(measurements, form="cached")


@pytest.fixture(scope="session")
def plans(models: list[WorkloadModel]) -> Plans:
    random = np.random.default_rng(1)
    workload = Workload.from_tokens(random.integers(8, 129, 200), random.integers(8, 65, 200))
    return plan_steps(models, workload, {"small": 0.5, ODD: 0.6})


@pytest.fixture(scope="session")
def tariff() -> Tariff:
    """Prices that are high in the evening, and carbon that is low at noon."""
    hour = np.arange(24)
    per_kwh = {"eur_per_kwh": 0.1 + 0.2 * (hour >= 17), "g_co2_per_kwh": np.where(abs(hour - 12) < 4, 50.0, 400.0)}
    return Tariff(True, hour, per_kwh)


@pytest.fixture(scope="session")
def day() -> pd.DataFrame:
    """A day of queries, each row one to three of them."""
    random = np.random.default_rng(2)
    return pd.DataFrame(
        {
            "input_tokens": random.integers(8, 129, 300),
            "output_tokens": random.choice([8, 16, 64], 300),
            "timestamp": random.uniform(0, 86_400, 300),
            "count": random.integers(1, 4, 300),
        }
    )


@pytest.fixture(scope="session")
def hourly(models: list[WorkloadModel], tariff: Tariff, day: pd.DataFrame) -> Plans:
    """Its plans of money."""
    hours = Hours.of(tariff, day["timestamp"])
    return plan_steps(models, Workload.from_frame(day, tariff), {"small": 0.5, ODD: 0.6}, hours=hours)


@pytest.fixture(scope="session")
def page(measurements: pd.DataFrame, models: list[WorkloadModel], plans: Plans) -> str:
    """The whole page, simulated."""
    return render(models, measurements, plans, screening=screen(measurements).document())
