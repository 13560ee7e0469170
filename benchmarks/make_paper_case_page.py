"""Writes docs/paper_case.md from the committed results; run it after benchmarks/paper_case.py.

python benchmarks/make_paper_case_page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sections.markdown import paragraph, percent, table

RESULTS = Path(__file__).parent / "results" / "paper_case.json"
PAGE = Path(__file__).parents[1] / "docs" / "paper_case.md"

HEAD = """# The paper's case study, planned per query

Written by `python benchmarks/make_paper_case_page.py` from `benchmarks/results/paper_case.json`, which
`python benchmarks/paper_case.py` computes from the published measurements. The joules are those of GPUs in the
published grid; nothing was measured again.

Llama-2 7B, 13B and 70B with accuracies 0.5097, 0.5569 and 0.6452; the thesis's figure routes a few hundred queries to
them with shares 0.05/0.20/0.75. The published script weighs every query alike, so its plans cannot depend on the query.
Here each query is planned, exactly. **saved** is how much less the plan takes than the cheapest mix of the three models
that reaches the same accuracy without looking at the query, with its 95 % interval by the coefficients' covariance.
That mix need not keep the shares, so a saving below zero means that the shares cost more than looking at the query
saves. **s** is the mean runtime of a query, **%** the accuracy over tokens.

![Energy against accuracy: the thesis's plans, plans per query, and blind mixes](../benchmarks/results/paper_case.svg)
"""

NOTES = """## What this shows, and what it does not

- **The form decides more than the router.** On the published case the published form predicts {ratio:.1f} times the
  joules of the form that held-out error prefers: its coefficients were decided by the longest cells of the grid, and
  these queries are short. The figure's kilowatt-hours are the form's, not a meter's.
- **ζ is not an even scale.** Nearly everything may happen between two neighbouring rows, because one query sets the
  scale of ê. `llmpower route` finds plans by budget, floor or knee instead.
- **Shares are expensive.** With three quarters of the queries bound to the largest model, little is left to choose.
- **The figure's cheap end is not reached** under the stated shares: with lengths like these the cheapest plan that
  sends 75 % of the queries to 70B takes {least:.2f} kWh under the published form, the figure has {figure_least:.2f}.
  Either its lengths scatter far more, or its plans keep other shares; its energies also rise and fall along ζ, which
  an optimum's cannot.
- **One length says most of it.** On the conversations without shares and under the held-out form, a threshold on one
  kind of tokens between two models, the best for each ζ, falls short of the plan by {threshold_least:.1f} to
  {threshold_most:.1f} % of its energy, with accuracy counted at the plan's exchange rate. It is a threshold on output
  tokens each time, which a gateway does not know beforehand.
- **The queries are reconstructed**, their spread is a guess, and what is saved depends on it: the last table.
- {azure_beyond:.0f} % of the Azure conversations are longer than anything in the grid. There all forms extrapolate,
  which the intervals do not reflect: they hold if the form is right.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(paper_case_page(), encoding="utf-8")
    print(PAGE)


def paper_case_page() -> str:
    """The page as it has to be."""
    document = json.loads(RESULTS.read_text(encoding="utf-8"))
    cases = {(case["workload"], case["form"], case["shares"]): case for case in document["cases"]}
    published, preferred = cases["published", "paper", True], cases["published", "auto", True]
    forms = ", ".join(f"{name} `{of['energy']}`" for name, of in document["forms"]["auto"].items())
    held_out = {form: [of["heldout_mape"] for of in document["forms"][form].values()] for form in ("paper", "auto")}
    azure = cases["azure", "auto", False]
    left_out = cases["azure", "paper", False]["left_out_share"]
    thresholds = [row["threshold_excess"] for row in azure["rows"] if row["threshold_excess"] is not None]
    sections = [
        HEAD,
        paragraph(
            f"Forms of energy by held-out error: {forms}. Held-out MAPE: published form"
            f" {percent(min(held_out['paper']), 0)} to {percent(max(held_out['paper']), 0)} %, these"
            f" {percent(min(held_out['auto']))} to {percent(max(held_out['auto']))} %."
        ),
        "## The published case, shares 0.05/0.20/0.75\n",
        beside_figure(document, published, preferred),
        "## The published case, no shares\n",
        beside_figure(document, cases["published", "paper", False], cases["published", "auto", False]),
        "## The Azure conversations, shares 0.05/0.20/0.75\n",
        paragraph(
            f"19,366 conversations of an hour. The published form predicts nothing positive for {percent(left_out)} %"
            " of them, which its columns leave out."
        ),
        without_figure(cases["azure", "paper", True], cases["azure", "auto", True]),
        "## The Azure conversations, no shares\n",
        "![The plan at the knee of the frontier, with its baselines](../benchmarks/results/paper_case_azure.svg)\n",
        without_figure(cases["azure", "paper", False], azure),
        "## At equal accuracy, no shares\n",
        paragraph(
            "The cheapest plan that reaches an accuracy (`route --accuracy-floor`) and the cheapest mix that does,"
            " in kWh."
        ),
        at_equal_accuracy(document["equal_accuracy"]),
        "## How the queries were reconstructed\n",
        reconstruction(document["reconstruction"]),
        "## What is saved, by the spread of the answers' lengths\n",
        spreads(document),
        NOTES.format(
            ratio=published["singles"]["Llama-2-70B"]["energy_kwh"] / preferred["singles"]["Llama-2-70B"]["energy_kwh"],
            least=min(row["energy_kwh"] for row in published["rows"]),
            figure_least=min(point["energy_kwh"] for point in document["figure"]),
            threshold_least=100 * min(thresholds),
            threshold_most=100 * max(thresholds),
            azure_beyond=100 * azure["extrapolated_share"],
        ),
    ]
    return "\n".join(sections)


def beside_figure(document: dict[str, Any], published: dict[str, Any], preferred: dict[str, Any]) -> str:
    """ζ; the figure's point; both forms."""
    head = (
        "ζ",
        "thesis: kWh",
        "s",
        "%",
        "published form: kWh",
        "s",
        "%",
        "saved",
        "held-out form: kWh",
        "s",
        "%",
        "saved",
    )
    rows = [
        (
            f"{ours['zeta']:.1f}",
            f"{figure['energy_kwh']:.3f}",
            f"{figure['mean_runtime_s']:.1f}",
            f"{figure['accuracy_pct']:.2f}",
            *plan(ours),
            *plan(theirs),
        )
        for figure, ours, theirs in zip(document["figure"], published["rows"], preferred["rows"], strict=True)
    ]
    return table(head, rows)


def without_figure(published: dict[str, Any], preferred: dict[str, Any]) -> str:
    """ζ; both forms."""
    head = ("ζ", "published form: kWh", "s", "%", "saved", "held-out form: kWh", "s", "%", "saved")
    rows = [
        (f"{ours['zeta']:.1f}", *plan(ours), *plan(theirs))
        for ours, theirs in zip(published["rows"], preferred["rows"], strict=True)
    ]
    return table(head, rows)


def at_equal_accuracy(cases: list[dict[str, Any]]) -> str:
    """Accuracy; plan, mix and saving of every case."""
    names = {"paper": "published form", "auto": "held-out form"}
    titles = [f"{of['workload'].replace('azure', 'Azure')}, {names[of['form']]}: plan" for of in cases]
    head = ("accuracy", *(cell for title in titles for cell in (title, "mix", "saved")))
    rows = []
    for at, first in enumerate(cases[0]["rows"]):
        cells = [
            (f"{row['energy_kwh']:.3f}", f"{row['mix_kwh']:.3f}", f"{percent(row['saving'])} %")
            for row in (of["rows"][at] for of in cases)
        ]
        rows.append((f"{first['floor_pct']:.0f} %", *(cell for of in cells for cell in of)))
    return table(head, rows)


def plan(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Energy, mean runtime, accuracy, and the saving with its interval."""
    saved = "0"
    if abs(row["saving"]) > 5e-5:
        saved = f"{percent(row['saving'])} ({percent(row['saving_low'])} to {percent(row['saving_high'])}) %"
    return f"{row['energy_kwh']:.3f}", f"{row['mean_runtime_s']:.1f}", f"{row['accuracy_pct']:.2f}", saved


def reconstruction(found: dict[str, Any]) -> str:
    """The six numbers, and what they say."""
    counts = ", ".join(f"{queries:.1f}" for queries in found["queries"].values())
    text = paragraph(
        "The figure has energy and mean runtime of each model alone. Under the published form their ratios say how many"
        f" queries there were ({counts} by the three models: 200), and how long their answers are on average"
        f" ({found['output_mean']:.1f} tokens, with inputs of 20, which cost too little to be told from this). Lengths"
        f" are lognormal, log τout with a standard deviation of {found['spread']}; the Azure conversations have 0.86."
    )
    rows = [
        (
            of["model_name"],
            f"{of['published_energy_kwh']:.3f}",
            f"{of['energy_kwh']:.3f}",
            f"{of['published_mean_runtime_s']:.2f}",
            f"{of['mean_runtime_s']:.2f}",
        )
        for of in found["figures"]
    ]
    return text + "\n" + table(("model alone", "thesis: kWh", "here: kWh", "thesis: s", "here: s"), rows)


def spreads(document: dict[str, Any]) -> str:
    """Least and largest saving along ζ."""
    names = {"paper": "published form", "auto": "held-out form"}
    rows = [
        (
            f"{of['spread']}",
            names[of["form"]],
            "published" if of["shares"] else "none",
            f"{percent(of['least'])} to {percent(of['largest'])} %" if of["largest"] > 0 else "nothing",
        )
        for of in document["spreads"]
    ]
    return table(("standard deviation of log τout", "form", "shares", "saved, where anything is"), rows)


if __name__ == "__main__":
    main()
