"""The page in a real Chromium: it is quiet, asks for nothing, moves, and can be read light, dark, narrow and printed.

Needs Debian's chromium and the extra ``browser``; ``make test-page`` has both, or fails. Pictures of the page are left
in ``LLMPOWER_PAGE_PICTURES``, if that is set, to be looked at.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmpower.modelling import WorkloadModel
from llmpower.phrases import number
from llmpower.report import Plans, render
from llmpower.report.amounts import said

DEMANDED = os.environ.get("LLMPOWER_PAGE_TESTS") == "1"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

try:
    from playwright.sync_api import Browser, Page, sync_playwright
except ImportError:
    sync_playwright = None  # type: ignore[assignment]

MISSING = [
    *([] if CHROMIUM else ["no chromium (Debian: apt-get install chromium)"]),
    *([] if sync_playwright else ["no playwright (pip install 'llmpower[browser]')"]),
]
pytestmark = pytest.mark.skipif(bool(MISSING) and not DEMANDED, reason=f"{' and '.join(MISSING)}; see make test-page")

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    assert not MISSING, " and ".join(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def path(page: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(page, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def hourly_path(hourly: Plans, models: list[WorkloadModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("hourly") / "report.html"
    file.write_text(render(models, plans=hourly), encoding="utf-8")
    return file


@pytest.fixture
def opened(browser: Browser, path: Path) -> Iterator[Open]:
    """Opens the page, and at the end holds it to silence: no message, no error, no request but for itself."""
    heard: list[str] = []
    contexts, files = [], set()

    def open_page(path: Path = path, width: int = 1200, **options: Any) -> Page:
        files.add(path.as_uri())
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: heard.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: heard.append(f"error: {error}"))
        page.on("request", lambda request: heard.append(f"request: {request.url}"))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    asked = {line for line in heard if not line.startswith("request: data:")}
    assert asked == {f"request: {file}" for file in files}


def steps_of(page: Page) -> list[dict[str, Any]]:
    steps: list[dict[str, Any]] = json.loads(page.locator("#plan-data").text_content() or "")["steps"]
    return steps


def shown(page: Page) -> dict[str, Any]:
    """What the slider moves, as it stands in the page."""
    return {
        "zeta": page.locator("#zeta-value").text_content(),
        "energy": page.locator("[data-readout=energy]").text_content(),
        "cost": page.locator("[data-readout=cost]").text_content(),
        "carbon": page.locator("[data-readout=carbon]").text_content(),
        "shares": page.locator("[data-share]").all_text_contents(),
        "ring": page.locator("#frontier .chosen_marks > *").first.get_attribute("transform"),
        "line": page.locator("#frontier .chosen_marks > *").last.get_attribute("transform"),
        "map": page.locator("#map .map_marks > *").evaluate_all(
            "cells => cells.map(cell => cell.getAttribute('fill'))"
        ),
        "table": page.locator("#map-table td:nth-child(4)").all_text_contents(),
    }


def test_the_slider_moves_every_figure_by_its_keys(opened: Open) -> None:
    page = opened()
    steps = steps_of(page)
    slider = page.locator("#zeta")
    before = shown(page)
    assert before["energy"] == steps[slider.evaluate("slider => slider.valueAsNumber")]["texts"]["energy"]
    slider.focus()
    page.keyboard.press("Home")
    first = shown(page)
    page.keyboard.press("ArrowRight")
    second = shown(page)
    page.keyboard.press("End")
    last = shown(page)
    for place, found in ((0, first), (1, second), (len(steps) - 1, last)):
        assert found["zeta"] == steps[place]["zeta"]
        assert found["energy"] == steps[place]["texts"]["energy"]
    for key in ("zeta", "energy", "cost", "carbon", "shares", "ring", "line", "map", "table"):
        assert first[key] != last[key], key
    assert first["ring"] != second["ring"]
    assert (set(first["map"]), set(last["map"])) == ({"var(--c0)"}, {"var(--c1)"})
    # What a reader of the screen hears: at each step the plan, and at rest what it saves and costs.
    assert slider.get_attribute("aria-valuetext") == steps[-1]["say"]
    live = page.locator("#live").text_content() or ""
    assert steps[-1]["saved"] in live
    assert last["cost"] in live


def test_rings_stand_on_their_plans(opened: Open) -> None:
    page = opened()
    for place in range(len(steps_of(page))):
        page.locator("#zeta").evaluate(
            "(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }", place
        )
        for svg in page.locator("#frontier svg").all():
            plan = svg.locator(".plans_marks > *").nth(place)
            assert svg.locator(".chosen_marks > *").get_attribute("transform") == plan.get_attribute("transform")


def test_the_slider_moves_the_hours(opened: Open, hourly_path: Path, hourly: Plans) -> None:
    page = opened(hourly_path)
    by_hour = hourly.by_hour
    assert by_hour is not None
    assert by_hour.flat_j is not None
    top = {}
    for key, place in (("Home", 0), ("ArrowRight", 1), ("End", -1)):
        page.locator("#zeta").press(key)
        step, energy_j, flat_j = hourly.steps[place], by_hour.energy_j[place], by_hour.flat_j[place]
        assert step.flat is not None
        for attribute, figures in (("readout", step), ("flat", step.flat)):
            assert page.locator(f"[data-{attribute}=cost]").text_content() == said("money", figures.cost_eur or 0)
            assert page.locator(f"[data-{attribute}=carbon]").text_content() == said("carbon", figures.carbon_g or 0)
        boxes = page.locator("#hours .hours_marks > *").evaluate_all(
            "bars => bars.map(bar => { const box = bar.getBBox(); return [box.y, box.height]; })"
        )
        heights = np.array(boxes)[:, 1].reshape(energy_j.shape)
        largest = int(energy_j.argmax())
        assert heights == pytest.approx(energy_j * heights.flat[largest] / energy_j.flat[largest], abs=0.02)
        ground = boxes[0][0] + boxes[0][1]
        lines = page.locator("#hours .flat_marks > *").evaluate_all(
            "lines => lines.map(line => { const box = line.getBBox(); return box.y + box.height / 2; })"
        )
        scale = heights.flat[largest] / energy_j.flat[largest]
        assert ground - np.array(lines) == pytest.approx(flat_j * scale, abs=0.05)
        top[place] = ground - heights.sum(axis=1).max()
        of_noon = page.locator("#hours-table tbody tr").nth(12).locator("td").all_text_contents()
        assert of_noon[3:] == [number(float(f"{joules:.5g}")) for joules in (*energy_j[12], flat_j[12])]
    # The axis ends at the largest hour of any step.
    assert min(top.values()) >= -0.05
    assert top[0] < top[-1]


def test_hours_fit_a_narrow_dark_screen(opened: Open, hourly_path: Path) -> None:
    page = opened(hourly_path, width=400, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    assert contrast(page, "#hours svg text") >= 4.5
    page.emulate_media(media="print")
    assert page.locator("#hours svg").first.is_visible()


def test_factors_are_the_readers(opened: Open) -> None:
    page = opened()
    cost = float((page.locator("[data-readout=cost]").text_content() or "").split()[0])
    page.locator("#price").fill("0.5")
    doubled = float((page.locator("[data-readout=cost]").text_content() or "").split()[0])
    assert doubled == pytest.approx(2 * cost, rel=1e-3)
    page.locator("#pue").fill("")
    assert page.locator("[data-readout=cost]").text_content() == "–"
    assert page.locator("[data-readout=carbon]").text_content() == "–"


def test_the_page_writes_numbers_as_the_command_does(opened: Open) -> None:
    page = opened()
    plans = json.loads(page.locator("#plan-data").text_content() or "")
    energy_j = steps_of(page)[page.locator("#zeta").evaluate("slider => slider.valueAsNumber")]["energy_j"]
    kwh = energy_j / plans["joules_per_kwh"] * float(page.locator("#pue").input_value())
    for price in (0.0, 3e-10, 1.23456e-7, 0.00045, 0.0099996, 0.0123, 7.0, 12345.6, 8.5e6):
        page.locator("#price").fill(str(price))
        assert page.locator("[data-readout=cost]").text_content() == f"{number(kwh * price)} €"


def test_numbers_are_copied(opened: Open) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    page.locator("#frontier summary").click()
    page.locator("[data-copy=frontier-table]").click()
    page.wait_for_function("document.querySelector('[data-copy=frontier-table]').textContent === 'Copied'")
    rows = list(csv.reader(io.StringIO(page.evaluate("navigator.clipboard.readText()"))))
    steps = steps_of(page)
    assert rows[0][:2] == ["ζ", "Energy [J]"]
    assert [float(row[1]) for row in rows[1:]] == pytest.approx([step["energy_j"] for step in steps], rel=1e-5)


def test_pictures_are_saved_with_their_colours(opened: Open, tmp_path: Path) -> None:
    page = opened(color_scheme="dark")
    with page.expect_download() as download:
        page.locator("[data-svg=phases]").click()
    download.value.save_as(tmp_path / "phases.svg")
    text = (tmp_path / "phases.svg").read_text(encoding="utf-8")
    assert "var(" not in text
    assert "#15171b" in text  # the dark paper


def test_keys_reach_everything(opened: Open) -> None:
    page = opened()
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
    assert {"zeta", "price", "carbon", "pue", "A", "SUMMARY", "BUTTON"} <= reached


def contrast(page: Page, selector: str) -> float:
    """Contrast of an element's text with the page's paper, as WCAG 2 has it."""
    colours = page.locator(selector).first.evaluate(
        "e => [e.tagName === 'text' ? getComputedStyle(e).fill : getComputedStyle(e).color,"
        " getComputedStyle(document.body).backgroundColor]"
    )
    light = []
    for colour in colours:
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in (int(part) / 255 for part in re.findall(r"\d+", colour)[:3])
        ]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes_can_be_read(opened: Open, scheme: Any) -> None:
    page = opened(color_scheme=scheme)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(21, 23, 27)"}[scheme]
    for selector in ("body", ".quiet", "figcaption", "a", ".simulated", "#throughput svg text", "thead th", "button"):
        assert contrast(page, selector) >= 4.5, selector
    _keep(page, scheme)


def test_a_narrow_screen_does_not_scroll_sideways(opened: Open) -> None:
    page = opened(width=400)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    _keep(page, "narrow")


def test_print_has_all_figures_and_no_controls(opened: Open, tmp_path: Path) -> None:
    page = opened(color_scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("nav").is_hidden()
    assert page.locator("#frontier button").first.is_hidden()
    assert page.locator("#frontier svg").first.is_visible()
    assert page.locator("#zeta-value").is_visible()
    # Dark screens print on white paper.
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    _keep(page, "print")


def test_without_a_script_the_page_is_whole(opened: Open) -> None:
    page = opened(java_script_enabled=False)
    assert page.locator("[data-readout=energy]").text_content()
    assert page.locator("figure svg").count() >= 10


def _keep(page: Page, name: str) -> None:
    if directory := os.environ.get("LLMPOWER_PAGE_PICTURES"):
        page.screenshot(path=Path(directory) / f"report-{name}.png", full_page=True)
