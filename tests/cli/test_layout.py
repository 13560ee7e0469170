"""Tables: decimal points aligned, nothing wider than the terminal, no control sequences in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from terminal import Terminal

from llmpower.cli.layout import (
    FEWEST_CELLS,
    WORDS,
    aligned,
    colours_wanted,
    compact,
    cut,
    energy_unit,
    filled,
    plain,
    shortened,
    width,
)

SENTENCE = "words of what is too-long-a-name for a terminal stand below"
SHOWING = f"""
import click
from llmpower.cli.layout import aligned, echo_labelled, echo_lines

echo_lines(["  {SENTENCE}", click.style("styled: " + 20 * "x", fg="red"), ""])
echo_lines(aligned(("a", "b"), [("meta-llama/Llama-2-7b-chat", "1")]))
echo_labelled("label: ", "{SENTENCE}")
"""

NUMBERS = st.floats(-1e6, 1e6).flatmap(lambda value: st.sampled_from([f"{value:.4g}", f"{value:,.2f}", f"{value:.0f}"]))


def test_decimal_points_stand_under_each_other_and_words_end_where_the_column_ends() -> None:
    lines = aligned(
        ("card", "power [W]", "uuid"),
        [("A100", "251.26", "GPU-a"), ("H100", "7", "GPU-b"), ("", "1,000.5", "GPU-c"), ("L4", "stalled 3 s", "GPU-d")],
        right=("power [W]",),
    )
    assert lines == [
        "card    power [W]  uuid",
        "A100       251.26  GPU-a",
        "H100         7     GPU-b",
        "         1,000.5   GPU-c",
        "L4    stalled 3 s  GPU-d",
    ]


@given(st.lists(NUMBERS, min_size=1, max_size=8))
def test_every_digit_is_kept_and_points_are_in_one_column(cells: list[str]) -> None:
    _, *lines = aligned(("", "x"), [("|", cell) for cell in cells], right=("x",))
    assert [line.split()[1] for line in lines] == cells
    points = [cell.index(".") if "." in cell else len(cell) for cell in cells]
    assert len({line.rindex(cell) + point for line, cell, point in zip(lines, cells, points, strict=True)}) == 1


@given(
    st.lists(st.tuples(st.text(max_size=40), st.text(max_size=40), NUMBERS), max_size=5),
    st.integers(40, 120),
)
def test_a_table_is_no_wider_than_the_terminal(rows: list[tuple[str, str, str]], columns: int) -> None:
    lines = aligned(("a", "b", "number"), rows, right=("number",), columns=columns)
    # Of columns that find no room beside the first, each stands below it.
    widest_number = max(len(cell) for cell in ("number", *(row[2] for row in rows)))
    assert max(map(width, lines)) <= max(columns, FEWEST_CELLS + 2 + max(FEWEST_CELLS, widest_number))
    assert all(any(row[2] in line for line in lines) for row in rows)
    assert all(line.isprintable() for line in lines)


def test_what_finds_no_room_stands_below_and_names_keep_both_ends() -> None:
    rows = [("meta-llama/Llama-2-7b-chat", "1.5", "12"), ("meta-llama/Llama-2-70b-chat", "15.25", "3")]
    assert aligned(("MODEL", "ENERGY [J]", "REQUESTS"), rows, right=("ENERGY [J]", "REQUESTS"), columns=28) == [
        "MODEL         ENERGY [J]",
        "meta-…b-chat        1.5",
        "meta-…b-chat       15.25",
        "",
        "MODEL         REQUESTS",
        "meta-…b-chat        12",
        "meta-…b-chat         3",
    ]
    assert shortened("meta-llama/Llama-2-7b", 12) == "meta-…a-2-7b"


@given(st.text(), st.integers(1, 30))
def test_what_is_cut_fits(text: str, cells: int) -> None:
    text = plain(text)
    for made in (cut(text, cells), shortened(text, cells)):
        assert width(made) <= cells
        assert made == text or width(text) > cells


def test_chinese_letters_take_two_cells() -> None:
    assert aligned(("model", "n"), [("通义千问", "1"), ("llama", "2")], right=("n",)) == [
        "model     n",
        "通义千问  1",
        "llama     2",
    ]


def test_a_name_has_no_power_over_the_terminal() -> None:
    hostile = "llama\x1b]0;owned\x07\x1b[2J\r\n\u202egpj"
    _, line = aligned(("model",), [(hostile,)])
    assert line == "llama?]0;owned??[2J???gpj"


@pytest.mark.parametrize(
    ("energies_j", "unit"),
    [([], "J"), ([0.0, None], "J"), ([5e5, 2e9], "kJ"), ([0.5, 2e9], "J"), ([-3e6, 0.0], "MJ"), ([1e9], "GJ")],
    ids=["none", "nothing", "least", "below one", "negative", "giga"],
)
def test_one_unit_is_chosen_for_all(energies_j: list[float | None], unit: str) -> None:
    assert energy_unit(energies_j)[1] == unit


def test_figures_of_any_size_are_short() -> None:
    figures = (None, 0.0, 1.2345, 999.4, 999.6, 12345.6)
    assert list(map(compact, figures)) == ["–", "0", "1.23", "999", "1,000", "12,346"]
    assert list(map(compact, (0.681, 2, 0.5, -12.0, 1e-7))) == ["0.681", "2.00", "0.500", "-12.0", "1.00e-07"]


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"NO_COLOR": ""}, None),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "0"}, False),
        ({"CLICOLOR_FORCE": "1", "CLICOLOR": "0"}, True),
        ({"CLICOLOR": "0"}, False),
        ({"CLICOLOR": "1"}, None),
        ({"TERM": "dumb"}, False),
    ],
    ids=lambda value: " ".join(f"{name}={said}" for name, said in value.items()) if isinstance(value, dict) else None,
)
def test_who_wants_colours_is_asked_by_the_usual_variables(environ: dict[str, str], wanted: bool | None) -> None:
    assert colours_wanted(environ) is wanted


def test_on_a_terminal_lines_that_are_too_long_go_on_below(on_terminal: Callable[..., Terminal]) -> None:
    terminal = on_terminal(sys.executable, "-c", SHOWING, columns=28)
    assert terminal.wait() == 0
    assert [line for line in terminal.lines if line] == [
        "  words of what is",
        "    too-long-a-name for a",
        "    terminal stand below",
        "styled: xxxxxxxxxxxxxxxxxxxx",  # its colour takes no room
        "a                          b",
        "meta-llama/L…ma-2-7b-chat  1",
        "label: words of what is",
        "       too-long-a-name for a",
        "       terminal stand below",
    ]


def test_a_percent_sign_stays_with_its_figure() -> None:
    assert filled(WORDS.split("worst 56 % of"), 8) == ["worst", "56 % of"]


def test_where_no_terminal_is_lines_have_no_end() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOWING], capture_output=True, text=True, check=True).stdout
    assert shown.splitlines() == [
        f"  {SENTENCE}",
        "styled: xxxxxxxxxxxxxxxxxxxx",  # and no colour
        "",
        "a                           b",
        "meta-llama/Llama-2-7b-chat  1",
        f"label: {SENTENCE}",
    ]
