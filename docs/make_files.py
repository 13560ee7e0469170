"""Writes docs/files.md: what is in every file that llmpower reads or writes.

Columns and keys are the program's own records. One that has no meaning here fails, as does a meaning of none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields

from llmpower.modelling.fitted.document import SCHEMA as MODELS_SCHEMA
from llmpower.modelling.fitted.models import Fit, HeldOut, WorkloadModel
from llmpower.routing.policies.document import SCHEMA as POLICY_SCHEMA
from llmpower.routing.policies.policy import OutputLengths, PolicyFit, PolicyModel, RoutingPolicy
from llmpower.routing.policies.tariff import PolicyTariff
from llmpower.types import MEASUREMENT_COLUMNS

COLUMNS = {
    "span_id": "32 hexadecimal digits, unique",
    "started_at": "when the span began, UTC, ISO 8601",
    "hostname": "of the program's machine or container",
    "model_name": "the language model",
    "system": "the devices that it ran on, such as `2× NVIDIA A100-SXM4-80GB`",
    "device_uuids": "the GPUs, separated by semicolons; empty: not known, or none",
    "input_tokens": "of the whole batch, without padding",
    "output_tokens": "the same",
    "batch_size": "sequences in the call",
    "runtime_s": "from start to end, s",
    "time_to_first_token_s": "from the start to the first token, s",
    "gpu_energy_j": "of its GPUs, gross, J",
    "gpu_energy_std_j": "its standard deviation, J",
    "cpu_energy_j": "of the CPU packages, gross, J",
    "cpu_energy_std_j": "its standard deviation, J",
    "prefill_energy_j": "the part of `gpu_energy_j` before the first token, J",
    "decode_energy_j": "the part from there on, J",
    "quality": "`measured` (10 or more ticks of the counter), `interpolated` (2 to 9, or by power), `modelled`,"
    " `unavailable`",
    "method": "`counter`, `power` (reconstructed, where there is no counter) or `none`",
    "allocated": "whether others ran on the device at the same time, so that this is a share",
    "simulated": "whether the device is simulated",
    "gpu_idle_energy_j": "the part of `gpu_energy_j` that the GPUs would have drawn with nothing to do, J",
    "cpu_idle_energy_j": "the same of `cpu_energy_j`, J",
}

MODEL = {
    "model_name": "the language model",
    "system": "the devices that it was measured on",
    "simulated": "whether these are simulated",
    "energy": "a FIT, of joules",
    "runtime": "a FIT, of seconds",
    "boundary": "what the joules are of: `gpu`, `cpu`, `gpu+cpu`, or one of these less its idle share",
}

FIT = {
    "form": "its name: [what each says](method.md#7-forms)",
    "terms": "names of the coefficients, in the order of the covariance",
    "coefficients": "by term, J or s",
    "std_errors": "by term; null where a coefficient is held at zero by its bound",
    "covariance": "rows in the order of `terms`",
    "n_obs": "rows fitted",
    "r_squared": "what statsmodels prints for the fit",
    "r_squared_centered": "on the raw scale, against the mean",
    "r_squared_uncentered": "on the raw scale, against zero",
    "f_statistic": "what statsmodels prints",
    "f_pvalue": "the same",
    "heldout": "errors on cells held out one at a time, see below",
    "input_range": "least and most input tokens fitted",
    "output_range": "the same of output tokens",
    "warnings": "what a reader of the fit should know",
    "alternatives": "forms that were tried and not chosen, with their held-out errors",
    "n_cells": "distinct lengths",
    "batch_range": "fewest and most requests that shared a decode step; form `batched` alone",
    "extrapolation": "errors with all cells of one length held out at a time",
    "replicate_noise": "relative standard deviation of repeated trials",
    "estimator": "how coefficients and their errors were found",
    "choice": "why this form",
    "moments": "sums from which `fit --update` learns new rows without the old ones",
    "nested": "as `heldout`, of forms chosen without the held-out cell; null where the form was named, a model has"
    " more than 256 cells or 8192 rows, or an update came after",
}

HELD_OUT = {
    "mape": "mean absolute relative error; 0.055 is 5.5 %",
    "median_ape": "its median",
    "worst_ape": "the largest",
    "negative_predictions": "cells predicted at or below zero",
    "scheme": "how rows were held out: `leave_one_cell_out`, `leave_one_length_out`, and what came to it",
    "p95_ape": "what 95 % of the errors stay below",
    "bias": "signed error of the total, Σ(ŷ − y)/Σy",
}

POLICY = {
    "zeta": "ζ, from 0 (accuracy alone) to 1 (energy alone)",
    "accuracy_weighting": "`tokens` or `queries`",
    "scaling": "the energy and the accuracy by which ê and â are divided",
    "simulated": "whether the models' joules are of a simulated device",
    "boundary": "what they are of",
    "models": "the choices, see below, in the order in which ties go to the first",
    "output_lengths": "moments of the output lengths, by class of query and input length",
    "max_runtime_s": "the longest that a query is to be expected to take, where another model is quicker; may be null",
    "tariff": "by what joules are weighted, where the plan pursues money or carbon; may be null",
}

POLICY_TARIFF = {
    "weighs": "`money` or `carbon`",
    "rates": "in ascending order: `hour` of the day (0 to 23) or `timestamp` (ISO) from which it holds, for an hour at"
    " most, and `per_kwh`, EUR or g CO₂; at a moment without one [their mean](decisions/071-policies-by-the-hour.md)",
    "highest_per_kwh": "f_max, the highest rate at which a query of the plan came: e counts times the current f/f_max",
    "zone": "the IANA name of the place whose hours they are; null is UTC",
}

CHOICE = {
    "name": "unique: the model's name, or `model@system` where it runs on several",
    "model_name": "the language model",
    "system": "the devices",
    "price": "λ, added to the cost, in the unit of the objective",
    "share": "the part of the queries that the plan sends here",
    "share_range": "the least and the most that it may be",
    "energy": "`form`, `terms`, `coefficients`, `input_range`, `output_range`, as in models.json",
    "runtime": "the same",
    "accuracy": "0 to 1; null where energy alone counts",
    "accuracy_by_class": "another accuracy for queries of a class",
}

LENGTHS = {
    "query_class": "null is every query, of whatever class",
    "input_from": "input tokens from which this entry holds, up to the next one of its class",
    "queries": "seen",
    "mean": "E[τout], tokens",
    "mean_square": "E[τout²]",
    "mean_cube": "E[τout³]",
}

HEAD = """# Files

Written by `python docs/make_reference.py` from the program's own records. Outputs are written under another name and
renamed, so whoever reads one finds it whole; one that would take the place of an input is refused. A value that is not
known is an empty cell or `null`, never 0.
Suffixes decide: `.csv`, `.parquet`, `.jsonl`. Headers with other names are given by `--column NAME=HEADER`.

## Measurements

What `export` gives and `fit` takes; one row per span. A fit needs `model_name`, `input_tokens`, `output_tokens`,
`runtime_s`, and `gpu_energy_j` or `energy_j`; it also knows `concurrency`, and the columns that
[screening](screening.md) asks for.
"""

WORKLOAD = """## Workload

What `route` and `simulate` take; one row per query.

| column | meaning |
|---|---|
| `input_tokens` | of the prompt; required |
| `output_tokens` | of the answer; required |
| `count` | how many such queries; 1 where it is left out |
| `timestamp` | when it came, for `simulate` and `route --tariff`: a date (UTC without offset) or seconds since 1970 |
| `query_class` | what it is for, where models are not equally good at everything |

Whatever else a row has, such as `query_id`, goes through to the plan.

## accuracy.csv

| column | meaning |
|---|---|
| `model_name` | as in models.json; required |
| `accuracy` | 0 to 1; required |
| `query_class` | the class of queries that it holds for; empty: all others |
| `share` | fraction of the queries to send there |
| `num_gpus` | GPUs that the model occupies while it is loaded |

## tariff.csv

What a kWh costs and emits, by hour: `route --tariff` ([why so](decisions/079-price-and-carbon-by-hour.md)). Each hour
at which a query came needs a row; other columns are refused.

| column | meaning |
|---|---|
| `hour` | of the day, 0 to 23, local time of `--tariff-zone` where that is given; this or `timestamp` |
| `timestamp` | when the row begins, as in the workload; it holds until the next one, and for an hour at most |
| `eur_per_kwh` | above 0; this or `g_co2_per_kwh`, or both |
| `g_co2_per_kwh` | grams of CO₂ equivalents, above 0 |

## plan.csv, plan.parquet

The workload's rows in their order and a column `model_name`; with `--cells` one row per cell: `input_tokens`,
`output_tokens`, `model_name`, the tariff's rates where there is one, `count`.
"""


def files_page() -> str:
    """The page as it has to be."""
    models = f"""## models.json

`{{"schema": "{MODELS_SCHEMA}", "models": [MODEL, …]}}`, and `screening`: what was found in the rows. An unknown key and
a missing one are refused by name.
"""
    policy = f"""## policy.json

`{{"schema": "{POLICY_SCHEMA}", …}}`: all that a gateway needs to decide a query, by one argmin
([method](method.md#9-plans-and-one-query-at-a-time)).
"""
    names = {field.name for field in fields(PolicyFit)}
    assert all(f"`{name}`" in CHOICE["energy"] for name in names), names
    parts = [
        HEAD,
        table("column", MEASUREMENT_COLUMNS, COLUMNS),
        models,
        table("MODEL", keys(WorkloadModel), MODEL),
        table("FIT", keys(Fit), FIT),
        table("heldout, extrapolation, nested", keys(HeldOut), HELD_OUT),
        WORKLOAD,
        policy,
        table("key", keys(RoutingPolicy), POLICY),
        table("of models", keys(PolicyModel), CHOICE),
        table("of tariff", [*keys(PolicyTariff), "zone"], POLICY_TARIFF),
        table("of output_lengths", keys(OutputLengths), LENGTHS),
    ]
    return "\n".join(parts)


def keys(record: type) -> list[str]:
    """The fields of a record, which are the keys that it has in a document."""
    return [field.name for field in fields(record)]


def table(head: str, names: Iterable[str], meanings: Mapping[str, str]) -> str:
    """Markdown; every name must have a meaning and every meaning a name."""
    names = list(names)
    assert set(names) == set(meanings), f"docs/make_files.py: {sorted(set(names) ^ set(meanings))} of {head}"
    return "\n".join(
        [f"| {head} | meaning |", "|---|---|", *(f"| `{name}` | {meanings[name]} |" for name in names), ""]
    )
