"""Writes docs/commands.md, metrics.md, settings.md and files.md and systemd/llmpower.toml from the program itself.

Run it after changing an option or a metric.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import click
from prometheus_client import Metric

from llmpower.cli.daemon import command as daemon_command
from llmpower.cli.main import COMMANDS, cli
from llmpower.daemon.config import default_settings
from llmpower.metrics import (
    DeviceState,
    FieldState,
    LlmpowerCollector,
    ModelAccounts,
    OtlpState,
    SamplerState,
    Snapshot,
    StoreState,
)
from llmpower.types import Device

COMMANDS_HEAD = """# Commands

Written by `python docs/make_reference.py` from the commands' own help. Every option can also be given as an
environment variable `LLMPOWER_<COMMAND>_<OPTION>`. Exit codes: 0 done, 1 the work failed, 2 the input was wrong.
"""

METRICS_HEAD = """# Metrics

Written by `python docs/make_reference.py` from the collector. The daemon serves them on
`http://127.0.0.1:10450/metrics`; base units, request ids never labels. `model_name` is the language model; the card's
name sits on `llmpower_gpu_info`. Over any window, the increases of inference, idle and unattributed joules of a GPU sum
to the increase of its energy counter.

| metric | type | labels | meaning |
|---|---|---|---|
"""

SETTINGS_HEAD = """# Settings

Written by `python docs/make_reference.py` from the options of `llmpower daemon`. A key is set in a TOML file
(`/etc/llmpower/llmpower.toml`, or what `--config` names), as an option `--KEY` on the command line, or in the
environment. The command line beats the environment, which beats the file. An unknown key is refused. An empty variable
counts as unset, so what an empty value turns off is turned off in the file or on the command line.

| key | default | meaning | environment |
|---|---|---|---|
"""

CONFIG_HEAD = """# Settings of the llmpower daemon, each with its default. Remove the # of a line and change it,
# then 'systemctl restart llmpower'; 'journalctl -u llmpower' names a mistake. An unknown key is refused.
# What is set in /etc/default/llmpower beats this file.
"""


def commands_page() -> str:
    """Every command's help."""
    sections = [COMMANDS_HEAD]
    parent = click.Context(cli, info_name="llmpower", auto_envvar_prefix="LLMPOWER")
    for name in sorted(COMMANDS):
        sections += _help_of(name, import_module(f"llmpower.cli.{name}").command, parent)
    return "\n".join(sections)


def _help_of(name: str, command: click.Command, parent: click.Context) -> Iterator[str]:
    """A command's help, then that of the commands below it."""
    with click.Context(command, info_name=name, parent=parent, max_content_width=100, terminal_width=100) as context:
        yield f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"
        if isinstance(command, click.Group):
            for below in command.list_commands(context):
                yield from _help_of(below, command.commands[below], context)


def metrics_page() -> str:
    """Every metric of a daemon that has seen one of everything."""
    rows = [
        f"| `{_exposed_name(family)}` | {family.type} | {', '.join(_labels(family)) or '–'} | {family.documentation} |"
        for family in _families()
    ]
    return METRICS_HEAD + "\n".join(rows) + "\n"


def config_file() -> str:
    """The system daemon's settings file: every key with its meaning and its default, commented out.

    Commented out, so that a default that a newer version improves reaches those who never asked for another.
    """
    defaults = default_settings({}, 0)
    sections = [CONFIG_HEAD]
    sections += [f"# {meaning}\n{_setting(key, defaults[key])}\n" for key, meaning, _ in _settings(defaults)]
    return "\n".join(sections)


def settings_page() -> str:
    """The same as a table, with the variables of the environment."""
    defaults = default_settings({}, 0)
    rows = [
        f"| `{key}` | {_shown(defaults[key])} | {meaning} | `{variable}` |"
        for key, meaning, variable in _settings(defaults)
    ]
    return SETTINGS_HEAD + "\n".join(rows) + "\n"


def _settings(defaults: Mapping[str, object]) -> Iterator[tuple[str, str, str]]:
    """Each key, its meaning and its variable of the environment."""
    for option in daemon_command.params:
        key = option.opts[0].removeprefix("--")
        if not isinstance(option, click.Option) or key not in defaults:
            continue
        assert option.help is not None
        assert option.name is not None
        meaning = re.sub(r"\s*\[default: .*\]$", "", option.help)
        if isinstance(option.type, click.Choice):
            meaning += f" One of {', '.join(option.type.choices)}."
        yield key, meaning, f"LLMPOWER_DAEMON_{option.name.upper()}"


def _shown(default: object) -> str:
    if default is None:
        return "not set"
    if default == "":
        return "empty"
    return f"`{json.dumps(default) if isinstance(default, bool) else default}`"


def _setting(key: str, default: object) -> str:
    if default is None:
        return f'# Not set; to set it: {key} = "…"'
    # JSON's numbers, strings and booleans are TOML's too.
    return f"#{key} = {json.dumps(str(default) if isinstance(default, Path) else default, ensure_ascii=False)}"


def _families() -> Iterator[Metric]:
    gpu = Device("GPU-1", 0, "card", "gpu", False, True, True, "550")
    package = Device("intel-rapl:0", 1, "package-0", "cpu_package", False, True, False, "")
    accounts = ModelAccounts()
    accounts.book("model", "decode", "gpu", 1.0)
    fields = {"energy": FieldState("ok", 100.0, 100.0, edge_width_s=0.001, period_s=0.1)}
    card = DeviceState(gpu, 1.0, 1.0, 1.0, 1.0, {"stalled": 1.0}, fields)
    snapshot = Snapshot(
        version="0",
        backend="nvml",
        devices=(card, DeviceState(package, None, 1.0, 1.0, 1.0, {})),
        models=accounts.freeze(),
        sampler=SamplerState(read_errors={("gpu", 15): 1}, effective_hz={"gpu_energy": 100.0}),
        spans_rejected={"not_json": 1},
        store=StoreState(deleted={"age": 1}),
        otlp=OtlpState(answers={200: 1}),
    )
    return LlmpowerCollector(lambda: snapshot).collect()


def _exposed_name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def _labels(family: Metric) -> list[str]:
    # Families without a sample yet still know their labels.
    names = dict.fromkeys(name for sample in family.samples for name in sample.labels if name != "le")
    return [f"`{name}`" for name in names or getattr(family, "_labelnames", ())]


if __name__ == "__main__":
    from make_files import files_page

    docs = Path(__file__).parent
    docs.joinpath("settings.md").write_text(settings_page(), encoding="utf-8")
    docs.joinpath("files.md").write_text(files_page(), encoding="utf-8")
    docs.joinpath("commands.md").write_text(commands_page(), encoding="utf-8")
    docs.joinpath("metrics.md").write_text(metrics_page(), encoding="utf-8")
    docs.parent.joinpath("systemd/llmpower.toml").write_text(config_file(), encoding="utf-8")
