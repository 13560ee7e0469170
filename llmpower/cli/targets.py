"""What ``llmpower profile`` measures: a model that it loads itself, or a server."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmpower.cli.progress import without_bars_in_pipes
from llmpower.exceptions import InputError
from llmpower.phrases import plural

if TYPE_CHECKING:
    from llmpower.profiling import Cell, Workload

Options = dict[str, Any]
"""The command's options by name, as Click gives them."""


@dataclass(frozen=True)
class Target:
    """What is measured.

    ``settings`` are those that a campaign must not change midway; ``check_cells`` refuses what cannot be run; ``open``
    gives the workload; ``notes`` says, given when the first trial began, what is to be known of the measurements and
    how to get them.
    """

    name: str
    settings: dict[str, object]
    check_cells: Callable[[Sequence[Cell]], None]
    open: Callable[[], AbstractContextManager[Workload]]
    notes: Callable[[datetime | None], list[str]]


def check(model: str | None, options: Options) -> None:
    """Refuse what the kind of target does not have, before anything is asked or loaded."""
    endpoint = options["endpoint"]
    if model is None and endpoint is None:
        raise InputError("MODEL", "none", "name a model, or a server with --endpoint")
    if endpoint is None and options["concurrency"] != "1":
        advice = "one model in this process answers one call at a time; use --batch-size, or --endpoint"
        raise InputError("--concurrency", options["concurrency"], advice)
    if endpoint is not None and options["batch_size"] != "1":
        raise InputError("--batch-size", options["batch_size"], "a server makes its own batches; use --concurrency")
    if endpoint is not None and options["no_kv_cache"]:
        raise InputError("--no-kv-cache", endpoint, "whether a server keeps a cache is its own setting; leave it out")


def local(model: str | None, socket_path: Path, store: Path | None, options: Options) -> Target:
    """A model in this process. From here on torch is needed, and with it seconds."""
    without_bars_in_pipes()
    from llmpower.profiling import Generation, check_lengths, find_model, load_model, quieten_transformers, read_config
    from llmpower.spans import SpanClient

    quieten_transformers()
    source = find_model(str(model))
    if source.on_hub:
        # Without a network its client tries for half a minute.
        print(f"llmpower: looking for {source.name} on the Hugging Face hub, or in its cache", file=sys.stderr)
    use_cache = not options["no_kv_cache"]
    # Without the cache a token costs otherwise: the two must not end up in one fit because they share a name.
    name = options["model_name"] or (source.name if use_cache else f"{source.name} (no KV cache)")

    def opened() -> AbstractContextManager[Workload]:
        return Generation(
            load_model(source, device=options["device"], dtype=options["dtype"]),
            SpanClient(socket_path),
            model_name=name,
            use_cache=use_cache,
            pause_s=options["pause"],
            seed=options["seed"],
        )

    settings = {"model_name": name, "kv_cache": use_cache, "device": options["device"], "dtype": options["dtype"]}
    return Target(
        name,
        settings,
        lambda cells: check_lengths(cells, read_config(source)),
        opened,
        lambda _began: _export(name, store),
    )


def served(model: str | None, socket_path: Path, store: Path | None, options: Options) -> Target:
    """A model of a server."""
    from llmpower.profiling import ClientSpans, Endpoint, Requests, ServerSpans, is_heard
    from llmpower.spans import SpanClient, request_status

    endpoint = Endpoint(options["endpoint"], model, options["api_key"], seed=options["seed"])
    name = options["model_name"] or str(endpoint.model)
    side = options["spans"]
    if side == "auto":
        side = "server" if is_heard(lambda: request_status(socket_path), endpoint) else "client"
    whose = {"server": "the server's own spans", "client": "a span of this command around its requests"}[side]
    print(f"llmpower: {options['endpoint']}: speaks {endpoint.dialect.name}; a trial is {whose}", file=sys.stderr)
    if not endpoint.is_exact:
        print("llmpower: the server decides when answers end; its usage is what counts", file=sys.stderr)
    requests = Requests(endpoint, options["pause"])
    names: set[str] = set()

    @contextmanager
    def opened() -> Iterator[Workload]:
        if side == "client":
            yield ClientSpans(requests, SpanClient(socket_path), name)
            return
        status = request_status(socket_path)
        workload = ServerSpans(requests, Path(status["store"]["path"]), float(status["settle_delay_s"]))
        yield workload
        names.update(workload.names)

    def notes(began: datetime | None) -> list[str]:
        strays = [f"{plural(requests.strays, 'trial')} had other lengths than asked for"] if requests.strays else []
        if side == "client":
            return [*strays, *_export(name, store)]
        # What the server measured before the first trial are warm-ups; of chosen names there may be several.
        return [*strays, *(line for one in sorted(names) or [name] for line in _export(one, store, began))]

    settings = {"model_name": name, "endpoint": options["endpoint"], "spans": side}
    return Target(name, settings, lambda _cells: None, opened, notes)


def _export(name: str, store: Path | None, since: datetime | None = None) -> list[str]:
    """How to get the measurements, from a store that is not where ``export`` looks too."""
    from llmpower.daemon.config import find_store_path

    asked = "" if since is None else f" --since {since.isoformat(timespec='seconds')}"
    if store not in (None, find_store_path()):
        asked += f" --store {shlex.quote(str(store))}"
    command = f"llmpower export --model {shlex.quote(name)}{asked} -o measurements.csv && llmpower fit measurements.csv"
    return ["Their joules are in the daemon's store:", f"  {command}"]
