from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from llmpower.modelling import fit
from llmpower.report import render


@pytest.fixture(scope="module")
def measurements() -> pd.DataFrame:
    random = np.random.default_rng(0)
    rows = []
    for name, factor in (("small", 1.0), ("large <b>", 3.0)):
        for tokens_in in (8, 32, 128):
            for tokens_out in (8, 32, 64):
                energy_j = factor * (2 + 0.05 * tokens_in + 1.5 * tokens_out) * random.normal(1, 0.02)
                rows.append(
                    {
                        "model_name": name,
                        "input_tokens": tokens_in,
                        "output_tokens": tokens_out,
                        "runtime_s": 0.01 * tokens_out * random.normal(1, 0.02),
                        "gpu_energy_j": energy_j,
                        "gpu_energy_std_j": 0.1 * energy_j,
                        "quality": "measured",
                        "method": "counter",
                        "simulated": True,
                    }
                )
    return pd.DataFrame(rows)


class Strict(HTMLParser):
    """Checks that elements close in order and collects text and references."""

    VOID = ("meta", "link", "br", "img", "hr")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 (its signature)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_needs_no_network(measurements: pd.DataFrame) -> None:
    frontier = pd.DataFrame(
        {"zeta": [0, 0.5, 1], "energy_j": [9, 5, 3], "runtime_s": [3, 2, 1], "accuracy_token_weighted": [0.6, 0.5, 0.4]}
    )
    page = render(fit(measurements), measurements, frontier)
    found = parsed(page)
    assert page.count("<svg") == 3
    assert all(reference.startswith("#") for reference in found.references)
    assert "large <b>" in found.text  # a model's name is text, never markup
    assert re.search(r"ζ = 1 minimises energy", found.text)


def test_simulated_is_said_at_every_figure(measurements: pd.DataFrame) -> None:
    found = parsed(render(fit(measurements), measurements))
    assert found.text.count("SIMULATED") >= 6
    real = measurements.assign(simulated=False)
    assert "SIMULATED" not in parsed(render(fit(real), real)).text


def test_models_alone_make_a_page_without_plots(measurements: pd.DataFrame) -> None:
    page = render(fit(measurements))
    assert "<svg" not in page
    assert "Held-out MAPE" in parsed(page).text


def test_the_same_input_gives_the_same_page(measurements: pd.DataFrame) -> None:
    models = fit(measurements)
    assert render(models, measurements) == render(models, measurements)
