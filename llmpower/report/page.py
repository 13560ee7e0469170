"""The page: fits, pictures, plans, findings and where it all comes from, in one file that needs no network.

Everything is there as text before any script runs: pictures are ``<svg>``, every picture has its numbers in a table,
and the plan at the knee is shown. The script moves the slider's plan, copies tables and saves pictures; the page's own
policy (``Content-Security-Policy``) lets it load nothing from anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower import __version__
from llmpower.exceptions import LlmpowerError
from llmpower.modelling import WorkloadModel
from llmpower.modelling.fitted.models import models_of
from llmpower.modelling.rows.measurements import REQUIRED
from llmpower.phrases import number, percent
from llmpower.report import provenance, slider
from llmpower.report.amounts import AIMS
from llmpower.report.costs import Factors
from llmpower.report.drawing import MISSING, check_drawing, inline_svg, themed
from llmpower.report.figure import Figure
from llmpower.report.fits import fit_details, fit_table
from llmpower.report.judged import judge
from llmpower.report.lengths import length_figures
from llmpower.report.parts import part_figures
from llmpower.report.plan_figures import plan_figures, zeta_words
from llmpower.report.plans import Plans
from llmpower.report.residuals import predicted_figures, residual_figures
from llmpower.tables import check_frame

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent


def make_figures(
    models: WorkloadModel | Iterable[WorkloadModel],
    measurements: pd.DataFrame | None = None,
    plans: Plans | None = None,
    group_by: str | Sequence[str] | None = None,
) -> list[Figure]:
    """All figures that these make possible, in the order of the page."""
    models = models_of(models)
    figures = [] if plans is None else list(plan_figures(plans))
    if measurements is not None:
        check_frame(measurements, "measurements", REQUIRED)
    if measurements is not None and len(measurements):
        judged = judge(models, measurements, group_by)
        for made in (length_figures(judged), predicted_figures(judged), residual_figures(judged)):
            figures += made
        figures += part_figures(measurements)
    return figures


def render(
    models: WorkloadModel | Iterable[WorkloadModel],
    measurements: pd.DataFrame | None = None,
    plans: Plans | None = None,
    *,
    figures: Sequence[Figure] | None = None,
    group_by: str | Sequence[str] | None = None,
    screening: Mapping[str, Any] | None = None,
    factors: Factors | None = None,
    title: str = "Energy per request",
) -> str:
    """The page's HTML.

    Args:
        models: what ``models.json`` holds.
        measurements: the rows they were fitted to; without them there are no pictures of data.
        plans: from :func:`llmpower.report.plan_steps` or :func:`llmpower.report.read_steps`, for the slider.
        figures: what :func:`make_figures` made of these, where it was asked before.
        group_by: the columns that models were fitted by, if others than ``model_name`` and ``system``.
        screening: what was found in the measurements, as :meth:`llmpower.modelling.Screening.document` has it.
        factors: what a kilowatt-hour costs and emits.
        title: heading of the page.

    Raises:
        LlmpowerError: the extra ``report`` is not installed.
        InputError: what should be models or measurements is something else.
        FitError: a measurement cannot be what it claims.
    """
    check_drawing()
    try:
        from jinja2 import Environment, FileSystemLoader
    except ImportError as error:
        raise LlmpowerError(MISSING) from error

    models = models_of(models)
    if measurements is not None:
        check_frame(measurements, "measurements", REQUIRED)
    made = make_figures(models, measurements, plans, group_by) if figures is None else figures
    factors = factors or Factors()
    environment = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"cell": _cell, "full": _full, "percent": percent, "themed": themed, "zeta": zeta_words}
    style, script = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        title=title,
        version=__version__,
        simulated=any(model.simulated for model in models),
        style=style,
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        fits=fit_table(models),
        details=list(fit_details(models)),
        sections=_sections(made),
        draw=_draw,
        plans=plans,
        aim="" if plans is None else AIMS[plans.weighs],
        flat=plans is not None and plans.steps[plans.chosen].flat is not None,
        readouts=[] if plans is None else slider.readouts(plans, factors),
        share_rows=[] if plans is None else slider.share_rows(plans),
        saved="" if plans is None else slider.saved(plans, plans.steps[plans.chosen]),
        spoken="" if plans is None else slider.spoken(plans, plans.steps[plans.chosen]),
        data="" if plans is None else _json(slider.document(plans)),
        factors=factors,
        screening=screening,
        findings=None if screening is None else provenance.finding_table(screening),
        origin=[] if measurements is None else provenance.origin_rows(measurements),
        quality=None if measurements is None else provenance.quality_table(measurements),
        quality_words=provenance.QUALITY,
        boundary=list(provenance.boundary_lines(models)),
    )


def _draw(figure: Figure) -> list[tuple[str, str]]:
    """Title and picture of each panel."""
    return [(panel.title, inline_svg(panel.chart, f"{figure.name}-{n}")) for n, panel in enumerate(figure.panels)]


def _sections(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Figures by the section of the page that they stand in."""
    places = {
        "plan": ("frontier", "hours", "map"),
        "lengths": ("throughput", "energy-per-token"),
        "fit": ("predicted-energy", "predicted-runtime", "residuals-energy", "residuals-runtime"),
        "parts": ("phases", "idle"),
    }
    return {section: [figure for figure in figures if figure.name in names] for section, names in places.items()}


def _cell(value: str | float | None) -> str:
    """A cell as people read it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return value if isinstance(value, str) else number(value)


def _full(value: str | float | None) -> str:
    """A number as it is copied: to six digits, which is more than any measurement has."""
    return "" if value is None or isinstance(value, str) or not math.isfinite(value) else f"{value:.6g}"


def _json(document: Mapping[str, Any]) -> str:
    """JSON that may stand inside a ``<script>``."""
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
