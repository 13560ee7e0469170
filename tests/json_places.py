"""Documents with one place changed, for the tests of everything that reads JSON."""

from __future__ import annotations

import copy
from typing import Any


def places(value: Any, *place: Any) -> list[tuple[Any, ...]]:
    """Every place in a document, as the keys and numbers that lead there."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place] * bool(place) + [found for key, child in children for found in places(child, *place, key)]


def changed(document: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    """A copy with ``value`` at ``place``."""
    document = copy.deepcopy(document)
    parent: Any = document
    for step in place[:-1]:
        parent = parent[step]
    parent[place[-1]] = value
    return document
