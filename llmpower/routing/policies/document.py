"""policy.json, schema ``llmpower.policy/1``: written by rename, read with every key checked.

``boundary``, ``accuracy``, ``accuracy_by_class``, ``output_lengths``, ``max_runtime_s`` and ``tariff`` may be absent or
null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from llmpower.documents import Node, read_document
from llmpower.exceptions import InputError
from llmpower.files import write_text
from llmpower.modelling.fitted.document import load_by_term, load_form, load_range
from llmpower.routing.costing.outcome import Scaling
from llmpower.routing.policies.policy import OutputLengths, PolicyFit, PolicyModel, RoutingPolicy, check_policy
from llmpower.routing.policies.tariff_document import dump_tariff, load_tariff
from llmpower.routing.problem.accuracy import WEIGHTINGS, Weighting

SCHEMA = "llmpower.policy/1"


def dump_policy(policy: RoutingPolicy) -> dict[str, Any]:
    """The document as JSON types only, ready for :func:`json.dumps`."""
    return {
        "schema": SCHEMA,
        "simulated": policy.simulated,
        "boundary": policy.boundary,
        "zeta": policy.zeta,
        "accuracy_weighting": policy.accuracy_weighting,
        "scaling": asdict(policy.scaling),
        "models": [_dump_model(model) for model in policy.models],
        "output_lengths": [asdict(lengths) for lengths in policy.output_lengths],
        "max_runtime_s": policy.max_runtime_s,
        "tariff": None if policy.tariff is None else dump_tariff(policy.tariff),
    }


def save_policy(policy: RoutingPolicy, path: str | PathLike[str], option: str = "--policy") -> None:
    """Write the document to ``path``, whole or not at all.

    Raises:
        InputError: ``policy`` is none, or ``path`` (named as ``option``) cannot be written.
    """
    check_policy(policy)
    text = json.dumps(dump_policy(policy), ensure_ascii=False, indent=2, allow_nan=False)
    write_text(Path(path), text + "\n", option)


def load_policy(path: str | PathLike[str], option: str = "--policy") -> RoutingPolicy:
    """Read a document, checking every key.

    Raises:
        InputError: the file cannot be read (named as ``option``), or a key is missing, unknown, or of the wrong
            kind; the error names the key by its path, such as ``models[0].price``.
    """
    root = read_document(path, SCHEMA, option=option, author="llmpower route --policy", remedy="make the plan again")
    root.only(
        *("schema", "simulated", "zeta", "accuracy_weighting", "scaling", "models"),
        optional=("boundary", "output_lengths", "max_runtime_s", "tariff"),
    )
    boundary, lengths, limit, tariff = (
        root.get(name) for name in ("boundary", "output_lengths", "max_runtime_s", "tariff")
    )
    if limit is not None and limit.number() <= 0:
        raise limit.refuse(f"is not above 0; {root.remedy}")
    policy = RoutingPolicy(
        zeta=root.at("zeta").fraction(),
        accuracy_weighting=_load_weighting(root.at("accuracy_weighting")),
        scaling=_load_scaling(root.at("scaling")),
        simulated=root.at("simulated").flag(),
        boundary=None if boundary is None else boundary.text(),
        models=tuple(_load_model(node) for node in root.at("models").items()),
        output_lengths=() if lengths is None else tuple(_load_lengths(node) for node in lengths.items()),
        max_runtime_s=None if limit is None else limit.number(),
        tariff=None if tariff is None else load_tariff(tariff),
    )
    _check_whole(policy, root)
    return policy


def _dump_model(model: PolicyModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "model_name": model.model_name,
        "system": model.system,
        "price": model.price,
        "share": model.share,
        "share_range": list(model.share_range),
        "accuracy": model.accuracy,
        "accuracy_by_class": dict(model.accuracy_by_class),
        "energy": _dump_fit(model.energy),
        "runtime": _dump_fit(model.runtime),
    }


def _dump_fit(fit: PolicyFit) -> dict[str, Any]:
    return {
        "form": fit.form,
        "terms": list(fit.terms),
        "coefficients": dict(zip(fit.terms, fit.coefficients.tolist(), strict=True)),
        "input_range": list(fit.input_range),
        "output_range": list(fit.output_range),
    }


def _load_weighting(node: Node) -> Weighting:
    for weighting in WEIGHTINGS:
        if node.value == weighting:
            return weighting
    raise node.refuse(f"unknown; use one of {', '.join(WEIGHTINGS)}")


def _load_scaling(node: Node) -> Scaling:
    node.only("energy_max_j", "accuracy_max", "convention")
    if (energy := node.at("energy_max_j")).number() <= 0:
        raise energy.refuse(f"is not above 0; {node.remedy}")
    accuracy = node.get("accuracy_max")
    if accuracy is not None and accuracy.number() < 0:
        raise accuracy.refuse(f"is below 0; {node.remedy}")
    return Scaling(energy.number(), None if accuracy is None else accuracy.number(), node.at("convention").text())


def _load_model(node: Node) -> PolicyModel:
    node.only(
        *("name", "model_name", "system", "price", "share", "share_range", "energy", "runtime"),
        optional=("accuracy", "accuracy_by_class"),
    )
    low, high = (item.fraction() for item in node.at("share_range").items(2))
    if low > high:
        raise node.at("share_range").refuse(f"the lower end lies above the upper one; {node.remedy}")
    accuracy, by_class = node.get("accuracy"), node.get("accuracy_by_class")
    return PolicyModel(
        name=node.at("name").text(),
        model_name=node.at("model_name").text(),
        system=node.at("system").text(),
        price=node.at("price").number(),
        share=node.at("share").fraction(),
        share_range=(low, high),
        energy=_load_fit(node.at("energy")),
        runtime=_load_fit(node.at("runtime")),
        accuracy=None if accuracy is None else accuracy.fraction(),
        accuracy_by_class={}
        if by_class is None
        else {name: value.fraction() for name, value in by_class.entries().items()},
    )


def _load_fit(node: Node) -> PolicyFit:
    node.only("form", "terms", "coefficients", "input_range", "output_range")
    form = load_form(node)
    return PolicyFit(
        form=form.name,
        terms=form.terms,
        coefficients=np.array([value.number() for value in load_by_term(node.at("coefficients"), form.terms)]),
        input_range=load_range(node.at("input_range")),
        output_range=load_range(node.at("output_range")),
    )


def _load_lengths(node: Node) -> OutputLengths:
    node.only("query_class", "input_from", "queries", "mean", "mean_square", "mean_cube")
    query_class = node.get("query_class")
    moments = [node.at(name) for name in ("mean", "mean_square", "mean_cube")]
    for moment in moments:
        if moment.number() < 0:
            raise moment.refuse(f"is below 0; {node.remedy}")
    return OutputLengths(
        None if query_class is None else query_class.text(),
        node.at("input_from").integer(),
        node.at("queries").integer(),
        *(moment.number() for moment in moments),
    )


def _check_whole(policy: RoutingPolicy, root: Node) -> None:
    """What no key says by itself: names are unique, and where ζ weighs accuracy every model has one."""
    models = root.at("models").items()
    if not models:
        raise root.at("models").refuse("holds no model to choose; make the plan again")
    _refuse_twins("name", [model.name for model in policy.models], models)
    for model, node in zip(policy.models, models, strict=True):
        if (model.accuracy is None) != (policy.scaling.accuracy_max is None):
            advice = "scaling.accuracy_max and the models' accuracies are given together; make the plan again"
            raise InputError(f"{node.key}.accuracy", model.accuracy, advice)
        if model.accuracy is None and (model.accuracy_by_class or policy.zeta < 1):
            advice = "a policy that weighs accuracy needs one for each model; make the plan again"
            raise InputError(f"{node.key}.accuracy", "null", advice)
    if policy.output_lengths:
        keys = [(lengths.query_class, lengths.input_from) for lengths in policy.output_lengths]
        _refuse_twins("input_from", keys, root.at("output_lengths").items())


def _refuse_twins(name: str, keys: Sequence[object], nodes: Sequence[Node]) -> None:
    seen: set[object] = set()
    for key, node in zip(keys, nodes, strict=True):
        if key in seen:
            raise node.at(name).refuse("appears twice; keep one of the two")
        seen.add(key)
