"""What shells are offered for the values of options: looked up where it is cheap, and nothing where there is none.

A shell asks at every press of a key and waits: nothing here imports NumPy, and whatever fails offers nothing, since
there is nobody to tell.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from collections.abc import Callable

    Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]

PATIENCE_S = 0.3
"""For so long a daemon is waited for."""

FORMS = (
    *("auto", "paper", "paper+intercept", "quadratic"),
    *("recompute", "recompute+call", "roofline", "cached", "batched", "phases"),
)
"""What ``llmpower fit --form`` takes; ``auto`` and those with an intercept are no forms of a campaign."""


def models_of_file(parameter: str, after: str = "") -> Completer:
    """Names of the models in the file that another parameter names; ``after`` follows each, as in ``MODEL=``."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        path = context.params.get(parameter)
        return _beginning(incomplete, (name + after for name in _names_in(path)) if path else ())

    return complete


def models_of_daemon(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Names of the models that the daemon has seen most joules of."""
    from llmpower.exceptions import LlmpowerError
    from llmpower.spans.daemon_socket import default_socket_path, request_status

    try:
        status = request_status(context.params.get("socket") or default_socket_path(), PATIENCE_S)
        return _beginning(incomplete, (model["model_name"] for model in status["models"]))
    except (LlmpowerError, LookupError, TypeError):
        return []


def forms(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """Forms that cells can be chosen for."""
    return _beginning(incomplete, (form for form in FORMS if form != "auto" and "intercept" not in form))


def _names_in(path: Any) -> Iterable[str]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        return dict.fromkeys(model["model_name"] for model in document["models"])
    except (OSError, ValueError, LookupError, TypeError):
        return ()


def _beginning(incomplete: str, values: Iterable[str]) -> list[CompletionItem[str]]:
    return [CompletionItem(value) for value in values if isinstance(value, str) and value.startswith(incomplete)]
