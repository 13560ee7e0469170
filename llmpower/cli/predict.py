"""``llmpower predict``: joules and seconds of one query, with an interval, from fitted models."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llmpower.exceptions import InputError

if TYPE_CHECKING:
    from llmpower.modelling import Fit, WorkloadModel

CONFIDENCE = 0.95


@click.command()
@click.option("--models", "path", type=click.Path(path_type=Path), required=True, help="File that llmpower fit wrote.")
@click.option("--model", "name", required=True, metavar="NAME", help="Which model of that file.")
@click.option("--system", metavar="NAME", help="Which system, where the model was fitted on several.")
@click.option("--input-tokens", type=click.IntRange(min=0), required=True, help="Tokens of the prompt.")
@click.option("--output-tokens", type=click.IntRange(min=0), required=True, help="Tokens to be generated.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(path: Path, name: str, system: str | None, input_tokens: int, output_tokens: int, as_json: bool) -> None:
    """Predict joules and seconds of one query from fitted models.

    The interval is the 95 % confidence interval of the mean over such queries; a single query varies more.

    \b
    Example:
      llmpower predict --models models.json --model Llama-2-7B --input-tokens 512 --output-tokens 128
    """
    from llmpower.modelling import load_models

    model = _find(load_models(path), name, system)
    prediction: dict[str, Any] = {
        "model_name": model.model_name,
        "system": model.system,
        "simulated": model.simulated,
        "boundary": model.boundary,
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "inside_fitted_range": bool(model.energy.inside(input_tokens, output_tokens)),
        "confidence": CONFIDENCE,
    }
    for target, unit, fit in (("energy", "j", model.energy), ("runtime", "s", model.runtime)):
        value, low, high = _predict(f"{target}_{unit}", fit, input_tokens, output_tokens)
        prediction |= {f"{target}_{unit}": value, f"{target}_low_{unit}": low, f"{target}_high_{unit}": high}
    if not prediction["inside_fitted_range"]:
        (in_low, in_high), (out_low, out_high) = model.energy.input_range, model.energy.output_range
        click.echo(
            f"llmpower: warning: {input_tokens} input and {output_tokens} output tokens lie outside what was fitted"
            f" ({in_low} to {in_high} and {out_low} to {out_high}); this is an extrapolation",
            err=True,
        )
    if as_json:
        click.echo(json.dumps(prediction, ensure_ascii=False, indent=2, allow_nan=False))
    else:
        click.echo("\n".join(_lines(model, prediction)))


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


def _predict(target: str, fit: Fit, input_tokens: int, output_tokens: int) -> tuple[float, float | None, float | None]:
    """The mean and its interval; bounds are ``None`` where the fit left no degree of freedom to tell."""
    value = float(fit.predict(input_tokens, output_tokens))
    if value <= 0:
        advice = (
            f"the form {fit.form} predicts nothing positive for {input_tokens} input and {output_tokens} output tokens"
            " and cannot be trusted there; fit again with --form auto"
        )
        raise InputError(target, f"{value:.4g}", advice)
    low, high = (float(bound) for bound in fit.interval(input_tokens, output_tokens, CONFIDENCE))
    return value, None if math.isnan(low) else low, None if math.isnan(high) else high


def _lines(model: WorkloadModel, prediction: dict[str, Any]) -> list[str]:
    where = f" on {model.system}" if model.system else ""
    lines = [
        f"{model.model_name}{where}: {prediction['input_tokens']} input, {prediction['output_tokens']} output tokens"
        f"{'  SIMULATED' if model.simulated else ''}"
    ]
    for target, unit, fit in (("energy", "J", model.energy), ("runtime", "s", model.runtime)):
        value, low, high = (prediction[f"{target}{bound}_{unit.lower()}"] for bound in ("", "_low", "_high"))
        spread = "no interval" if low is None else f"95 % of the mean {_figure(low)} to {_figure(high)} {unit}"
        mape = fit.heldout.mape
        held_out = "unknown" if mape is None else f"{100 * mape:.1f} %"
        lines.append(f"{target:<8} {_figure(value)} {unit}  ({spread}; form {fit.form}, held-out MAPE {held_out})")
    return lines


def _figure(value: float) -> str:
    """Four digits, and no exponent where joules are many."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
