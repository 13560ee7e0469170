"""Numbers on the command line, in every command: what is not a finite number in range is refused by Click already."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from llmpower.cli.main import cli


def ranges(command: click.Command, *path: str) -> Iterator[tuple[str, click.Option]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from ranges(below, *path, name)
    for option in command.params:
        if isinstance(option.type, click.FloatRange):
            assert isinstance(option, click.Option)
            yield " ".join((*path, option.opts[0])), option


RANGES = dict(ranges(cli))


def test_some_options_are_ranges_of_numbers() -> None:
    assert {"devices --seconds", "top --interval", "profile --settle"} <= RANGES.keys()


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("option", RANGES.values(), ids=RANGES.keys())
def test_a_range_holds_no_number_that_is_none(option: click.Option, number: str) -> None:
    with pytest.raises(click.BadParameter):
        option.type.convert(number, option, None)
