"""The page without a browser: whole, readable by its markup alone, and true to what it was made of."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from llmpower.exceptions import InputError
from llmpower.modelling import WorkloadModel, fit, screen
from llmpower.phrases import percent, quantity
from llmpower.report import Factors, Plans, make_figures, read_steps, render
from llmpower.report.amounts import said
from llmpower.report.costs import CARBON_G, PRICE, PUE

ODD = 'large <b>"&amp;"</b> [x]'


class Strict(HTMLParser):
    """Checks that elements close in order; keeps text, elements with their attributes, and references."""

    VOID = ("meta", "link", "br", "img", "hr", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.handle_startendtag(tag, attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attributes for tag, attributes in self.found if tag in tags]


def parsed(page: str) -> Strict:
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_page_is_whole_and_needs_no_network(page: str) -> None:
    found = parsed(page)
    references = [a[name] for _, a in found.found for name in ("src", "href", "xlink:href") if name in a]
    assert references
    assert all(reference.startswith(("#", "data:")) for reference in references)
    urls = set(re.findall(r"url\(([^)]*)\)", page))
    assert all(url.startswith("#") for url in urls)
    ids = [a["id"] for _, a in found.found if "id" in a]
    assert len(ids) == len(set(ids))
    assert {reference[1:] for reference in references if reference.startswith("#")} <= set(ids)
    assert {url[1:] for url in urls} <= set(ids)
    assert len(page.encode()) < 5e6


def test_names_are_text_and_never_markup(page: str) -> None:
    assert ODD in parsed(page).text
    assert '<b>"&amp;"</b>' not in re.sub(r"&quot;|&#34;", '"', page)


def test_who_cannot_see_is_told(page: str) -> None:
    found = parsed(page)
    assert found.all("html")[0]["lang"] == "en"
    assert len(found.all("main")) == len(found.all("h1")) == 1
    headers = found.all("th")
    assert headers
    assert all(header["scope"] in ("col", "row") for header in headers)
    assert page.count("<table") == page.count("<caption>")
    pictures = [a for a in found.all("div") if a.get("role") == "img"]
    assert len(pictures) == len(found.all("figure")) == page.count("<figcaption>")
    assert all(len(a["aria-label"]) > 30 for a in pictures)
    labelled = {a["for"] for a in found.all("label")}
    assert labelled == {a["id"] for a in found.all("input")}
    assert [a["aria-live"] for _, a in found.found if a.get("role") == "status"] == ["polite"]


def test_what_was_copied_is_announced_without_plans_too(models: list[WorkloadModel]) -> None:
    assert [a["id"] for _, a in parsed(render(models)).found if a.get("role") == "status"] == ["live"]


def test_models_may_come_of_a_generator(models: list[WorkloadModel], measurements: pd.DataFrame) -> None:
    found = parsed(render(iter(models), measurements, group_by="model_name"))
    whole = parsed(render(models, measurements, group_by=["model_name"]))
    assert [a["id"] for a in found.all("figure")] == [a["id"] for a in whole.all("figure")]
    assert found.text == whole.text


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ({"model_name": ["a"]}, "measurements = dict: is not a pandas table; give a DataFrame"),
        ("measurements.csv", "measurements = str: is not a pandas table"),
        (pd.DataFrame({"model_name": ["a"]}), "column = input_tokens: is missing from the measurements"),
    ],
)
def test_what_are_no_measurements_is_refused(models: list[WorkloadModel], rows: object, complaint: str) -> None:
    for make in (render, make_figures):
        with pytest.raises(InputError, match=f"^{complaint}"):
            make(models, rows)  # type: ignore[operator]


def test_one_model_may_be_given_as_it_is(models: list[WorkloadModel]) -> None:
    assert render(models[0]) == render(models[:1])


def test_every_section_and_figure_is_there(page: str) -> None:
    figures = [a["id"] for a in parsed(page).all("figure")]
    assert figures == [
        *("frontier", "map", "throughput", "energy-per-token", "predicted-energy", "predicted-runtime"),
        *("residuals-energy", "residuals-runtime", "phases", "idle"),
    ]
    sections = [a["id"] for a in parsed(page).all("section")]
    assert sections == ["plans", "lengths", "judged", "parts", "fits", "findings", "provenance"]
    assert "node-7" in page
    assert "prefill 25.0 %" in page.replace("25.0 % prefill", "prefill 25.0 %")


def test_axes_have_a_space_before_the_sign(page: str) -> None:
    labels = re.findall(r"<text[^>]*>([^<]*)%</text>", page)
    assert labels
    assert all(label.endswith("\u00a0") for label in labels)


def test_rows_without_a_model_are_part_of_no_models_picture(
    models: list[WorkloadModel], measurements: pd.DataFrame
) -> None:
    some = measurements.copy()
    some.loc[3, "model_name"] = None
    (phases,) = (figure for figure in make_figures(models, some) if figure.name == "phases")
    assert [row[:2] for row in phases.table.rows] == [(ODD, 18), ("small", 17)]


def test_a_tariff_bills_in_place_of_factors(models: list[WorkloadModel], hourly: Plans) -> None:
    page = render(models, plans=hourly)
    found = parsed(page)
    assert [a["id"] for a in found.all("figure")] == ["frontier", "hours", "map"]
    assert [a["id"] for a in found.all("input")] == ["zeta"]
    step = hourly.steps[hourly.chosen]
    assert step.flat is not None
    for text in (
        *(said("money", end) for end in (step.cost_eur or 0, *step.intervals["money"], step.flat.cost_eur or 0)),
        *(said("carbon", end) for end in (step.carbon_g or 0, *step.intervals["carbon"])),
        *("Hours ignored", "less than at the same accuracy ignoring the hours", "ζ = 1 is cost alone"),
    ):
        assert text in found.text
    half = replace(hourly, steps=[replace(step, carbon_g=None) for step in hourly.steps])
    assert [a["id"] for a in parsed(render(models, plans=half)).all("input")] == ["zeta", "carbon", "pue"]


def test_simulated_is_said_at_every_figure_and_table(page: str, measurements: pd.DataFrame) -> None:
    found = parsed(page)
    # Tables of coefficients are named after their fit, which says it as well.
    assert found.text.count("SIMULATED") >= len(found.all("figure")) + len(found.all("table")) + len(found.all("h2"))
    real = measurements.assign(simulated=False)
    assert "SIMULATED" not in parsed(render(fit(real, form="cached"), real)).text


def test_models_alone_make_a_page_without_pictures(models: list[WorkloadModel]) -> None:
    page = render(models)
    assert "<svg" not in page
    assert "<script type" not in page
    assert "Held-out MAPE" in parsed(page).text
    assert "The joules cover the GPU boards" in page


def test_the_same_input_gives_the_same_page(
    measurements: pd.DataFrame, models: list[WorkloadModel], plans: Plans
) -> None:
    assert render(models, measurements, plans=plans) == render(models, measurements, plans=plans)


def test_what_screening_found_is_shown(measurements: pd.DataFrame, models: list[WorkloadModel]) -> None:
    wrong = measurements.copy()
    wrong.loc[0, "gpu_energy_j"] *= 4
    screening = screen(wrong)
    assert screening.findings
    kinds = [finding.kind for finding in screening.findings]
    shown = parsed(render(models, screening=screening.document(kinds))).text
    for finding in screening.findings:
        assert finding.kind in shown
        assert finding.example in shown
    assert "left out" in shown
    for reason in screening.not_looked_for.values():
        assert reason in shown
    assert "found nothing" in parsed(render(models, screening=screen(measurements).document())).text


def test_the_slider_has_every_plan(page: str, plans: Plans) -> None:
    document = json.loads(re.search(r'id="plan-data">(.*?)</script>', page)[1])  # type: ignore[index]
    assert len(document["steps"]) == len(plans.steps)
    assert document["models"] == list(plans.model_names)
    assert document["queries"] == 200
    table = page.split('id="map-table"')[1].split("</table>")[0]
    for shown, step in zip(document["steps"], plans.steps, strict=True):
        assert shown["energy_j"] == step.energy_j
        assert sum(shown["shares"]) == pytest.approx(1)
        assert shown["texts"]["energy"] == quantity(step.energy_j, "J")
        assert len(shown["map"]) == len(shown["parts"]) == table.count('<th scope="row">')
    (slider,) = (a for a in parsed(page).all("input") if a["type"] == "range")
    assert (slider["min"], slider["max"], slider["value"]) == ("0", str(len(plans.steps) - 1), str(plans.chosen))
    assert percent(plans.accuracy(plans.steps[plans.chosen])) in slider["aria-valuetext"]


def test_factors_are_the_readers_to_change(models: list[WorkloadModel], plans: Plans) -> None:
    page = render(models, plans=plans, factors=Factors(0.19, 56, 1.1))
    values = {a["id"]: a["value"] for a in parsed(page).all("input")}
    assert (values["price"], values["carbon"], values["pue"]) == ("0.19", "56", "1.1")
    cost = plans.steps[plans.chosen].energy_j / 3.6e6 * 1.1 * 0.19
    assert f"{cost:.4g} €" in page


def test_a_frontier_from_a_file_has_its_slider_too(models: list[WorkloadModel]) -> None:
    frontier = pd.DataFrame(
        {
            "zeta": [0, 0.5, 1],
            "energy_j": [9e3, 5e3, 3e3],
            "runtime_s": [3, 2, 1],
            "accuracy_token_weighted": [0.6, 0.58, 0.4],
            "share:small": [0, 0.5, 1],
            f"share:{ODD}": [1, 0.5, 0],
        }
    )
    plans = read_steps(frontier, simulated=True)
    assert plans.chosen == 1
    page = render(models, plans=plans)
    assert [a["id"] for a in parsed(page).all("figure")] == ["frontier"]
    assert "44.4 % less energy than the most accurate plan, for 2.00 points of accuracy" in page
    # The queries are not known, and neither is what a million of them cost.
    assert "cost_million" not in page.split("<script")[0]


def test_charts_keep_to_their_schema(measurements: pd.DataFrame, models: list[WorkloadModel], plans: Plans) -> None:
    """The page skips this check for speed."""
    for figure in make_figures(models, measurements, plans):
        for panel in figure.panels:
            panel.chart.to_dict(validate=True)


def test_the_factors_are_those_of_the_recording_rules() -> None:
    rules = (Path(__file__).parents[2] / "prometheus" / "llmpower-factors.yml").read_text(encoding="utf-8")
    assert [float(value) for value in re.findall(r"expr: vector\((.+)\)", rules)] == [PRICE, CARBON_G, PUE]
