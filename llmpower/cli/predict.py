"""``llmpower predict``: joules and seconds of one query, with an interval, from fitted models."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.cli.layout import aligned, compact, covered, echo_lines, in_percent
from llmpower.cli.options import json_option
from llmpower.cli.values import models_of_file
from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from llmpower.modelling import WorkloadModel
    from llmpower.modelling.fitted.prediction import Policy
    from llmpower.modelling.linear import FloatArray

CONFIDENCE = 0.95
POLICIES = ("raise", "warn", "allow")


@click.command()
@click.option("--models", "path", type=click.Path(path_type=Path), required=True, help="File that llmpower fit wrote.")
@click.option(
    "--model",
    "name",
    required=True,
    metavar="NAME",
    shell_complete=models_of_file("path"),
    help="Which model of that file.",
)
@click.option("--system", metavar="NAME", help="Which system, where the model was fitted on several.")
@click.option("--input-tokens", type=click.IntRange(min=0), required=True, help="Tokens of the prompt.")
@click.option("--output-tokens", type=click.IntRange(min=0), required=True, help="Tokens to be generated.")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Requests served at a time, for models of form batched; joules are those of one of them.",
)
@click.option(
    "--outside",
    type=click.Choice(POLICIES),
    default="warn",
    show_default=True,
    help="Lengths outside the fitted range: exit 2, a warning, or nothing.",
)
@click.option(
    "--nonpositive",
    type=click.Choice(POLICIES),
    default="raise",
    show_default=True,
    help="A prediction at or below zero: exit 2, a warning, or nothing.",
)
@json_option
def command(
    path: Path,
    name: str,
    system: str | None,
    input_tokens: int,
    output_tokens: int,
    batch_size: int,
    outside: Policy,
    nonpositive: Policy,
    as_json: bool,
) -> None:
    """Predict joules and seconds of one query from fitted models.

    The interval is the 95 % confidence interval of the mean over such queries; a single query varies more, and what 95
    % of the held-out ones stayed within is printed next to it. Where trials vary, fits without --match-total lie below
    the mean; by how much is said where the interval does not allow for it.

    \b
    Example:
      llmpower predict --models models.json --model Llama-2-7B --input-tokens 512 --output-tokens 128
      llmpower predict --models models.json --model Llama-2-7B --input-tokens 512 --output-tokens 128 --outside raise
    """
    from llmpower.modelling import load_models, predict

    model = _find(load_models(path), name, system)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        predicted = predict(
            model,
            input_tokens,
            output_tokens,
            batch_size=batch_size,
            confidence=CONFIDENCE,
            outside=outside,
            nonpositive=nonpositive,
        )
    for warning in caught:
        click.echo(f"llmpower: warning: {warning.message}", err=True)
    document: dict[str, Any] = {
        "model_name": model.model_name,
        "system": model.system,
        "simulated": model.simulated,
        "boundary": model.boundary,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "batch_size": batch_size,
        "inside_fitted_range": not (predicted.energy_j.outside | predicted.runtime_s.outside),
        "confidence": CONFIDENCE,
    }
    for target, unit, prediction, fit in (
        ("energy", "j", predicted.energy_j, model.energy),
        ("runtime", "s", predicted.runtime_s, model.runtime),
    ):
        document |= {
            f"{target}_{unit}": float(prediction.mean),
            f"{target}_low_{unit}": _bound(prediction.low),
            f"{target}_high_{unit}": _bound(prediction.high),
            f"{target}_p95_error": prediction.p95_ape,
            f"{target}_bias": fit.heldout.bias,
        }
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        echo_lines(_lines(model, document))


def _find(models: list[WorkloadModel], name: str, system: str | None) -> WorkloadModel:
    named = [model for model in models if model.model_name == name]
    if not named:
        known = ", ".join(dict.fromkeys(model.model_name for model in models)) or "none"
        raise InputError("--model", name, f"is not in the file; it has: {known}")
    found = named if system is None else [model for model in named if model.system == system]
    if len(found) != 1:
        systems = ", ".join(repr(model.system) for model in named)
        advice = f"{name} was fitted on {systems}; name one of them with --system"
        raise InputError("--system", "none given" if system is None else system, advice)
    return found[0]


def _bound(value: FloatArray) -> float | None:
    """``None`` where the fit left no degree of freedom to tell."""
    return None if math.isnan(value) else float(value)


def _lines(model: WorkloadModel, document: dict[str, Any]) -> list[str]:
    where = f" on {model.system}" if model.system else ""
    together = f", {document['batch_size']} at a time" if document["batch_size"] > 1 else ""
    head = (
        f"{model.model_name}{where}: {document['input_tokens']} input, {document['output_tokens']} output tokens"
        f"{together}{'  SIMULATED' if model.simulated else ''}"
    )
    header = ("", "PREDICTED", "95 % FROM", "TO", "MAPE [%]", "P95 [%]", "FORM")
    rows = []
    for target, unit, fit in (("energy", "J", model.energy), ("runtime", "s", model.runtime)):
        bounds = (document[f"{target}{bound}_{unit.lower()}"] for bound in ("", "_low", "_high"))
        errors = in_percent(fit.heldout.mape), in_percent(fit.heldout.p95_ape, 0)
        rows.append((f"{target} [{unit}]", *(compact(bound, 4) for bound in bounds), *errors, fit.label))
    return [
        head,
        *aligned(header, rows, right=header[1:6]),
        f"Energy covers {covered(model.boundary)}. 95 % FROM and TO are of the mean over such"
        " queries; MAPE is the mean error on cells held out from the fit, and 95 % of them were within P95.",
        *_short(model, document),
    ]


def _short(model: WorkloadModel, document: dict[str, Any]) -> list[str]:
    """What the interval of the mean does not allow for."""
    found = []
    for target, unit, fit in (("energy", "j", model.energy), ("runtime", "s", model.runtime)):
        mean, high = (document[f"{target}{bound}_{unit}"] for bound in ("", "_high"))
        if high is not None and mean > high * (1 - fit.shortfall):
            found.append(f"{in_percent(fit.shortfall)} % of {target}")
    if not found:
        return []
    return [
        f"Held out, predictions add up to less than was measured, by {' and '.join(found)}: more than FROM and TO allow"
        " for; fit with --match-total."
    ]
