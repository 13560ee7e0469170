"""Documents that people have edited: what is wrong is named by the path that leads to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmpower.documents import LARGEST_INTEGER, Node, read_document
from llmpower.exceptions import InputError

Ask = Callable[[Node], Any]


def read(path: Path) -> Node:
    return read_document(path, "llmpower.things/2", option="--things", author="llmpower make", remedy="make it again")


def node(value: Any) -> Node:
    return Node({"a": [value]}, "llmpower.things/2", "make it again").at("a").items()[0]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"{", r"--things = \S+: is not JSON \(.*\); give a file that llmpower make wrote"),
        (b"\xff", r"--things = \S+: is not JSON"),
        (b"[" * 100_000, r"--things = \S+: is not JSON"),
        (b"[1]", r"llmpower\.things/2 = \[1\]: is not a JSON object; make it again"),
        (
            b"{}",
            r"--things = \S+: names no schema, and is to be llmpower\.things/2; give a file that llmpower",
        ),
        (b'{"schema": 2}', r"--things = \S+: is of schema 2, and is to be llmpower\.things/2"),
        (b'{"schema": "llmpower.others/2"}', r"--things = \S+: is of schema llmpower\.others/2, and is to be"),
        (b'{"schema": "llmpower.things/3"}', r"schema = llmpower\.things/3: .* make it again with this version"),
    ],
    ids=["torn", "no text", "deep", "list", "no schema", "number", "another", "newer"],
)
def test_what_is_no_such_document_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "things.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint):
        read(path)
    path.unlink()
    with pytest.raises(InputError, match=r"--things = .* cannot be read \(No such file"):
        read(path)


def test_keys_are_exactly_those_that_are_known(tmp_path: Path) -> None:
    path = tmp_path / "things.json"
    path.write_text(json.dumps({"schema": "llmpower.things/2", "a": {"b": None}}))
    root = read(path)
    root.only("schema", optional=("a", "c"))
    assert root.get("c") is None
    assert root.at("a").get("b") is None
    with pytest.raises(InputError, match=r"^a = unknown: not a key of llmpower\.things/2"):
        root.only("schema")
    with pytest.raises(InputError, match=r"^a\.d = missing: the key is required; make it again"):
        root.at("a").only("b", "d")
    with pytest.raises(InputError, match=r"^schema = .*: is not a JSON object"):
        root.at("schema").only("b")


@pytest.mark.parametrize(
    ("ask", "good", "bad"),
    [
        (Node.items, [[], [1]], [{}, None, "ab"]),
        (lambda node: node.items(2), [[1, 2]], [[], [1], [1, 2, 3]]),
        (Node.entries, [{}, {"x": 1}], [[], None]),
        (Node.text, ["", "x"], [1, None]),
        (Node.flag, [True, False], [0, 1, None, "true"]),
        (Node.integer, [0, LARGEST_INTEGER], [-1, LARGEST_INTEGER + 1, 1.0, True, None]),
        (Node.number, [-1, 0, 1.5, 10**300], [10**400, float("nan"), float("inf"), True, "1", None]),
        (Node.amount, [0, 2.5], [-1e-9, None]),
        (Node.number_or_none, [None, -1], [float("nan"), "x", False]),
        (Node.number_or_nan, [None, -1], [float("nan"), "x", False]),
        (Node.fraction, [0, 0.5, 1], [-0.1, 1.1, None]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_value_is_of_its_kind_or_named(ask: Ask, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        ask(node(value))
    for value in bad:
        with pytest.raises(InputError, match=r"^a\[0\] = .*; make it again$"):
            ask(node(value))


def test_long_values_are_cut_short_where_they_are_named() -> None:
    with pytest.raises(InputError, match=r'^a\[0\] = "x{56}\.\.\.: is neither'):
        node("x" * 100).flag()
