"""From charts to what is shown: ``<svg>`` for the page, and SVG and PNG files.

Vega runs inside vl-convert, without a browser and without a network. The first picture takes about half a second, which
is the engine's start; each further one some ten milliseconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower.exceptions import InputError, LlmpowerError
from llmpower.files import replacing, write_text
from llmpower.report.style import PAPER, PROPERTIES, THEME

if TYPE_CHECKING:
    from llmpower.report.figure import Figure

SUFFIXES = (".png", ".svg")
MISSING = "pictures need altair and vl-convert-python; pip install 'llmpower[report]'"
PNG_SCALE = 2.0
INLINE = {"background": "transparent", "autosize": {"type": "fit", "contains": "padding"}}
"""All pictures of the page are of one size, so that their letters are; the paper is the page's."""


def check_drawing() -> None:
    """Refuse before anything is computed for a picture that cannot be drawn.

    Raises:
        LlmpowerError: the extra ``report`` is not installed.
    """
    try:
        import altair  # noqa: F401  # the question is whether they are there
        import vl_convert  # noqa: F401
    except ImportError as error:
        raise LlmpowerError(MISSING) from error


def inline_svg(chart: Any, prefix: str) -> str:
    """The chart as an ``<svg>`` element for a page that has many.

    Colours become properties of the page's style sheet, ids begin with ``prefix``, and what Vega says of each mark for
    screen readers becomes ``data-tip``, for a pointer: readers are told by the figure's text and table, once.
    """
    import vl_convert

    spec = _without_legends(_spec(chart)) | INLINE
    svg = vl_convert.vegalite_to_svg(spec)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' (?:role|aria-roledescription|aria-hidden)="[^"]*"', "", svg)
    svg = re.sub(r' aria-label="(?:[XY]-axis|[^"]*legend)[^"]*"', "", svg)
    svg = svg.replace(' aria-label="', ' data-tip="')
    svg = re.sub(r' (transform|d|[xy][12]?|width|height)="([^"]*)"', _rounded, svg)
    return themed(_numbered(svg, f"{prefix}-"))


def themed(text: str) -> str:
    """The text with properties of the style sheet for our colours."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _property(found.group()), text)


def save_chart(chart: Any, path: Path, option: str) -> None:
    """Draw one chart into a file, by rename.

    Raises:
        InputError: the name ends in neither ``.png`` nor ``.svg``, or the place cannot be written to.
    """
    import vl_convert

    check_suffix(path, option)
    spec = _spec(chart) | {"background": PAPER, "padding": 10}
    if path.suffix == ".svg":
        svg = vl_convert.vegalite_to_svg(spec)
        # Declared, since other programs than browsers take it for ASCII otherwise.
        write_text(path, '<?xml version="1.0" encoding="utf-8"?>\n' + _numbered(svg) + "\n", option)
        return
    picture = vl_convert.vegalite_to_png(spec, scale=PNG_SCALE)
    with replacing(path, option) as temporary:
        temporary.write_bytes(picture)


def check_suffix(path: Path, option: str) -> None:
    """Refuse a name that does not say what picture it is to be."""
    if path.suffix not in SUFFIXES:
        raise InputError(option, path, f"cannot tell the format from the name; end it in {' or '.join(SUFFIXES)}")


def save_figures(
    figures: Sequence[Figure],
    directory: Path,
    option: str,
    *,
    simulated: bool,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Each figure as NAME.svg and NAME.png, its panels side by side under its title.

    ``progress`` is called with the number of figures written and of all.

    Raises:
        InputError: the directory cannot be made or written to.
    """
    make_directory(directory, option)
    for done, figure in enumerate(figures, 1):
        chart = whole(figure, simulated=simulated)
        for suffix in SUFFIXES:
            save_chart(chart, directory / f"{figure.name}{suffix}", option)
        if progress is not None:
            progress(done, len(figures))


def make_directory(directory: Path, option: str) -> None:
    """The directory, and those above it.

    Raises:
        InputError: it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(option, directory, f"cannot be made ({error.strerror}); name another directory") from error


def whole(figure: Figure, *, simulated: bool) -> Any:
    """The figure as one chart, for a file that stands by itself."""
    import altair as alt

    panels = [panel.chart.properties(title=panel.title) if panel.title else panel.chart for panel in figure.panels]
    title = f"SIMULATED: {figure.title}" if simulated else figure.title
    return alt.concat(*panels, columns=3 if len(panels) > 4 else 2, title=unescape(title))


def _spec(chart: Any) -> dict[str, Any]:
    # Altair would check each against its schema, for longer than Vega takes to draw it; the tests draw all of them.
    spec: dict[str, Any] = chart.to_dict(validate=False)
    # In place of Altair's own theme, which sets sizes and a background.
    return {**spec, "config": THEME}


def _without_legends(spec: Any) -> Any:
    """The page names the models once a figure, in text."""
    if isinstance(spec, list):
        return [_without_legends(part) for part in spec]
    if not isinstance(spec, dict):
        return spec
    found = {key: _without_legends(part) for key, part in spec.items() if key != "datasets"}
    for channel in ("color", "shape"):
        if isinstance(found.get(channel), dict) and "field" in found[channel]:
            found[channel] = {**found[channel], "legend": None}
    return found | ({"datasets": spec["datasets"]} if "datasets" in spec else {})


def _numbered(svg: str, prefix: str = "") -> str:
    """Ids in the order of the picture: Vega counts on from one to the next, and the same rows give the same file."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg)))}
    svg = re.sub(r'\bid="([^"]+)"', lambda found: f'id="{prefix}{numbers[found[1]]}"', svg)
    return re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{prefix}{numbers[found[1]]})", svg)


def _rounded(attribute: re.Match[str]) -> str:
    """A hundredth of a pixel is enough, and a page has thousands of places."""
    places = re.sub(r"-?\d+\.\d{3,}(?:e-\d+)?", lambda found: f"{float(found.group()):.2f}", attribute[2])
    return f' {attribute[1]}="{places}"'


def _property(colour: str) -> str:
    name = PROPERTIES.get(colour)
    return colour if name is None else f"var({name})"
