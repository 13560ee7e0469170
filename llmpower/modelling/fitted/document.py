"""models.json, schema ``llmpower.models/1``: written by rename, read with every key checked.

A number that was not determined is ``null``, in the file as in the records (NaN inside arrays). Coefficients and
standard errors are keyed by term; the covariance is a list of rows in the order of ``terms``. What the schema gained
since its first version may be absent: older files read as they are. ``screening``, what was found in the measurements,
is for people alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, fields
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from llmpower.documents import Node, read_document
from llmpower.exceptions import InputError
from llmpower.files import write_text
from llmpower.modelling.fitted.models import Alternative, Fit, HeldOut, WorkloadModel, models_of
from llmpower.modelling.fitted.moments_document import dump_moments, load_moments
from llmpower.modelling.forms import FORMS, FloatArray, Form, make_form
from llmpower.modelling.linear import is_covariance

SCHEMA = "llmpower.models/1"
# Keys of a fit and of its held-out errors that older files lack.
OPTIONAL = (
    "alternatives",
    "n_cells",
    "batch_range",
    "extrapolation",
    "replicate_noise",
    "estimator",
    "choice",
    "moments",
    "nested",
)
OPTIONAL_HELDOUT = ("p95_ape", "bias")
T = TypeVar("T")


def dump_models(
    models: WorkloadModel | Iterable[WorkloadModel], screening: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The document as JSON types only, ready for :func:`json.dumps`; ``screening`` is what was found in the rows.

    Raises:
        InputError: a number of a model is none, or infinite.
    """
    document = {"schema": SCHEMA, "models": [_dump_model(model) for model in models_of(models)]}
    for key, number in _numbers_of(document["models"], "models"):
        if not math.isfinite(number):
            raise InputError(key, number, "is not a number that a file can hold; fit again")
    return document if screening is None else {**document, "screening": dict(screening)}


def save_models(
    models: WorkloadModel | Iterable[WorkloadModel],
    path: str | PathLike[str],
    option: str = "-o",
    screening: Mapping[str, Any] | None = None,
) -> None:
    """Write the document to ``path``, whole or not at all.

    Raises:
        InputError: ``path`` (named as ``option``) cannot be written, or as :func:`dump_models`.
    """
    text = json.dumps(dump_models(models, screening), ensure_ascii=False, indent=2, allow_nan=False)
    write_text(Path(path), text + "\n", option)


def load_models(path: str | PathLike[str], option: str = "--models") -> list[WorkloadModel]:
    """Read a document, checking every key.

    Raises:
        InputError: the file cannot be read (named as ``option``), or a key is missing, unknown, or of the wrong
            kind; the error names the key by its path, such as ``models[0].energy.form``.
    """
    root = read_document(path, SCHEMA, option=option, author="llmpower fit", remedy="fit again")
    root.only("schema", "models", optional=("screening",))
    models = [_load_model(node) for node in root.at("models").items()]
    seen: set[tuple[str, str]] = set()
    for number, model in enumerate(models):
        if (key := (model.model_name, model.system)) in seen:
            raise InputError(f"models[{number}].model_name", model.model_name, "appears twice; keep one of the two")
        seen.add(key)
    return models


def load_screening(path: str | PathLike[str], option: str = "--models") -> dict[str, Any] | None:
    """What was found in the rows of the fit, as :meth:`llmpower.modelling.Screening.document`; ``None`` in older files.

    Raises:
        InputError: the file cannot be read, or a key is missing, unknown, or of the wrong kind.
    """
    root = read_document(path, SCHEMA, option=option, author="llmpower fit", remedy="fit again")
    if (node := root.get("screening")) is None:
        return None
    node.only("rows", "rows_left_out", "findings", "not_looked_for")
    texts, counts = ("kind", "model_name", "place", "example", "rule"), ("n_rows", "of_rows")
    findings = []
    for found in node.at("findings").items():
        found.only(*texts, *counts, "left_out")
        findings.append(
            {name: found.at(name).text() for name in texts}
            | {name: found.at(name).integer() for name in counts}
            | {"left_out": found.at("left_out").flag()}
        )
    reasons = node.at("not_looked_for")
    reasons.only(*reasons.value)
    return {
        "rows": node.at("rows").integer(),
        "rows_left_out": node.at("rows_left_out").integer(),
        "findings": findings,
        "not_looked_for": {str(kind): reasons.at(kind).text() for kind in reasons.value},
    }


def _dump_model(model: WorkloadModel) -> dict[str, Any]:
    return {
        "model_name": model.model_name,
        "system": model.system,
        "simulated": model.simulated,
        "boundary": model.boundary,
        "energy": _dump_fit(model.energy),
        "runtime": _dump_fit(model.runtime),
    }


def _dump_fit(fit: Fit) -> dict[str, Any]:
    return {
        "form": fit.form,
        "terms": list(fit.terms),
        "coefficients": dict(zip(fit.terms, fit.coefficients.tolist(), strict=True)),
        "std_errors": dict(zip(fit.terms, _nulled(fit.std_errors), strict=True)),
        "covariance": [_nulled(row) for row in fit.covariance],
        "n_obs": fit.n_obs,
        "r_squared": fit.r_squared,
        "r_squared_centered": fit.r_squared_centered,
        "r_squared_uncentered": fit.r_squared_uncentered,
        "f_statistic": fit.f_statistic,
        "f_pvalue": fit.f_pvalue,
        "heldout": asdict(fit.heldout),
        "input_range": list(fit.input_range),
        "output_range": list(fit.output_range),
        "warnings": list(fit.warnings),
        "alternatives": [asdict(alternative) for alternative in fit.alternatives],
        "n_cells": fit.n_cells,
        "batch_range": None if fit.batch_range is None else list(fit.batch_range),
        "extrapolation": None if fit.extrapolation is None else asdict(fit.extrapolation),
        "replicate_noise": fit.replicate_noise,
        "estimator": fit.estimator,
        "choice": fit.choice,
        "nested": None if fit.nested is None else asdict(fit.nested),
        "intervals": dict(zip(fit.terms, map(_nulled, _intervals(fit)), strict=True)),
        "moments": None if fit.moments is None else dump_moments(fit.moments),
    }


def _numbers_of(value: object, key: str) -> Iterator[tuple[str, float]]:
    """Every float with its path."""
    if isinstance(value, float):
        yield key, value
    elif isinstance(value, dict):
        for name, of_name in value.items():
            yield from _numbers_of(of_name, f"{key}.{name}")
    elif isinstance(value, list):
        for place, of_place in enumerate(value):
            yield from _numbers_of(of_place, f"{key}[{place}]")


def _intervals(fit: Fit) -> FloatArray:
    """95 % of each coefficient; NaN where there is no telling."""
    with np.errstate(over="ignore", invalid="ignore"):
        intervals = fit.coefficient_intervals()
    return np.where(np.isfinite(intervals), intervals, np.nan)


def _nulled(values: FloatArray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def _load_model(node: Node) -> WorkloadModel:
    node.only("model_name", "system", "simulated", "energy", "runtime", optional=("boundary",))
    boundary = node.at("boundary") if "boundary" in node.value else None
    return WorkloadModel(
        model_name=node.at("model_name").text(),
        system=node.at("system").text(),
        simulated=node.at("simulated").flag(),
        energy=_load_fit(node.at("energy")),
        runtime=_load_fit(node.at("runtime")),
        boundary=None if boundary is None or boundary.value is None else boundary.text(),
    )


def _load_fit(node: Node) -> Fit:
    required = [field.name for field in fields(Fit) if field.name not in OPTIONAL]
    # The intervals are there for readers; they follow from coefficients and standard errors.
    node.only(*required, optional=(*OPTIONAL, "intervals"))
    form = load_form(node)
    terms = form.terms
    covariance = _load_covariance(node.at("covariance"), len(terms))
    std_errors = np.array([value.number_or_nan() for value in load_by_term(node.at("std_errors"), terms)])
    if not np.allclose(std_errors, np.sqrt(np.diag(covariance)), rtol=1e-6, atol=0, equal_nan=True):
        advice = f"are not the square roots of the covariance's diagonal; {node.remedy}"
        raise node.at("std_errors").refuse(advice)
    return Fit(
        form=form.name,
        terms=terms,
        coefficients=np.array([value.number() for value in load_by_term(node.at("coefficients"), terms)]),
        std_errors=std_errors,
        covariance=covariance,
        n_obs=node.at("n_obs").integer(),
        r_squared=node.at("r_squared").number_or_none(),
        r_squared_centered=node.at("r_squared_centered").number_or_none(),
        r_squared_uncentered=node.at("r_squared_uncentered").number_or_none(),
        f_statistic=node.at("f_statistic").number_or_none(),
        f_pvalue=node.at("f_pvalue").number_or_none(),
        heldout=_load_heldout(node.at("heldout")),
        input_range=load_range(node.at("input_range")),
        output_range=load_range(node.at("output_range")),
        warnings=tuple(item.text() for item in node.at("warnings").items()),
        alternatives=tuple(_load_alternative(item) for item in node.at("alternatives").items())
        if "alternatives" in node.value
        else (),
        n_cells=_optional(node, "n_cells", Node.integer),
        batch_range=_optional(node, "batch_range", load_range),
        extrapolation=_optional(node, "extrapolation", _load_heldout),
        replicate_noise=_optional(node, "replicate_noise", Node.amount),
        estimator=_optional(node, "estimator", Node.text) or "",
        choice=_optional(node, "choice", Node.text) or "",
        nested=_optional(node, "nested", _load_heldout),
        moments=_optional(node, "moments", lambda moments: load_moments(moments, len(terms))),
    )


def _load_covariance(node: Node, n_terms: int) -> FloatArray:
    """C, by which no variance xᵀCx is negative; NaN where a term has none."""
    rows = [row.items(n_terms) for row in node.items(n_terms)]
    C = np.array([[cell.number_or_nan() for cell in row] for row in rows])
    for number in np.flatnonzero(np.diag(C) < 0):
        raise rows[number][number].refuse(f"is a variance below 0; {node.remedy}")
    if not is_covariance(C):
        raise node.refuse(f"is not a covariance matrix, symmetric and positive semi-definite; {node.remedy}")
    return C


def _optional(node: Node, name: str, load: Callable[[Node], T]) -> T | None:
    """What ``load`` makes of an optional key; ``None`` where it is absent or null."""
    found = node.get(name)
    return None if found is None else load(found)


def load_form(node: Node) -> Form:
    """The form that the keys ``form`` and ``terms`` of a fit name."""
    terms = tuple(item.text() for item in node.at("terms").items())
    name = node.at("form").text()
    if name not in FORMS:
        raise node.at("form").refuse(f"unknown form; this version knows {', '.join(FORMS)}")
    form = make_form(name, intercept=name == "paper" and "intercept" in terms)
    if terms != form.terms:
        raise node.at("terms").refuse(f"the form {name} has the terms {', '.join(form.terms)}")
    return form


def load_by_term(node: Node, terms: tuple[str, ...]) -> list[Node]:
    """The values of an object keyed by term, in the order of the terms."""
    node.only(*terms)
    return [node.at(term) for term in terms]


def _load_heldout(node: Node) -> HeldOut:
    node.only("mape", "median_ape", "worst_ape", "negative_predictions", "scheme", optional=OPTIONAL_HELDOUT)
    return HeldOut(
        mape=_optional(node, "mape", Node.amount),
        median_ape=_optional(node, "median_ape", Node.amount),
        worst_ape=_optional(node, "worst_ape", Node.amount),
        negative_predictions=_optional(node, "negative_predictions", Node.integer),
        scheme=node.at("scheme").text(),
        p95_ape=_optional(node, "p95_ape", Node.amount),
        bias=_optional(node, "bias", Node.number),
    )


def _load_alternative(node: Node) -> Alternative:
    node.only("form", "heldout")
    return Alternative(node.at("form").text(), _load_heldout(node.at("heldout")))


def load_range(node: Node) -> tuple[int, int]:
    """The lowest and highest token counts of a fit."""
    low, high = (item.integer() for item in node.items(2))
    if low > high:
        raise node.refuse(f"the lower end lies above the upper one; {node.remedy}")
    return low, high
