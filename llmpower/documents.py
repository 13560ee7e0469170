"""JSON documents that we wrote, read back with every key checked.

models.json and policy.json are read by other programs and edited by people. What is missing, unknown or of the wrong
kind is refused by the path that leads to it (``models[0].energy.form``), so nobody has to guess which of a thousand
numbers was meant. A key that nothing reads would be a setting without effect, hence unknown keys are refused too.
"""

from __future__ import annotations

import json
import math
import sys
from os import PathLike
from pathlib import Path
from typing import Any

from llmpower.exceptions import InputError

# JSON has integers of any size and, as Python reads it, NaN and Infinity; a float has not, or must not.
LARGEST = sys.float_info.max
LARGEST_INTEGER = 2**63 - 1


class Node:
    """A value of a document with the path that leads to it, which every complaint names.

    ``schema`` is the document's, ``remedy`` what every complaint ends with, such as ``fit again``; the root's path is
    empty.
    """

    def __init__(self, value: Any, schema: str, remedy: str, key: str = "") -> None:
        self.value = value
        self.schema = schema
        self.remedy = remedy
        self.key = key

    def refuse(self, advice: str) -> InputError:
        """The error that says what is wrong with this value."""
        shown = json.dumps(self.value, ensure_ascii=False)
        return InputError(self.key or self.schema, shown if len(shown) <= 60 else f"{shown[:57]}...", advice)

    def only(self, *names: str, optional: tuple[str, ...] = ()) -> None:
        """Hold an object to exactly these keys; the optional ones may be absent."""
        if not isinstance(self.value, dict):
            raise self.refuse(f"is not a JSON object; {self.remedy}")
        for name in names:
            if name not in self.value:
                raise InputError(self._path(name), "missing", f"the key is required; {self.remedy}")
        for name in self.value:
            if name not in (*names, *optional):
                advice = f"not a key of {self.schema} here; upgrade llmpower if a newer one wrote it, or remove it"
                raise InputError(self._path(name), "unknown", advice)

    def at(self, name: str) -> Node:
        """The value of a key that :meth:`only` has found."""
        return self._child(self.value[name], self._path(name))

    def get(self, name: str) -> Node | None:
        """The value of an optional key; ``None`` where it is absent or null."""
        return None if self.value.get(name) is None else self.at(name)

    def items(self, length: int | None = None) -> list[Node]:
        """The values of a list, of ``length`` where one is given."""
        if not isinstance(self.value, list) or (length is not None and len(self.value) != length):
            wanted = "a list" + (f" of length {length}" if length is not None else "")
            raise self.refuse(f"is not {wanted}; {self.remedy}")
        return [self._child(item, f"{self.key}[{number}]") for number, item in enumerate(self.value)]

    def entries(self) -> dict[str, Node]:
        """The values of an object whose keys are names of the user's."""
        if not isinstance(self.value, dict):
            raise self.refuse(f"is not a JSON object; {self.remedy}")
        return {name: self.at(name) for name in self.value}

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            raise self.refuse(f"is not a string; {self.remedy}")
        return self.value

    def flag(self) -> bool:
        """True or false."""
        if not isinstance(self.value, bool):
            raise self.refuse(f"is neither true nor false; {self.remedy}")
        return self.value

    def integer(self) -> int:
        """A whole number from 0 to 2⁶³ − 1."""
        value = self.value
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_INTEGER:
            raise self.refuse(f"is not a whole number ≥ 0 that arrays can hold; {self.remedy}")
        return value

    def number(self) -> float:
        """A finite number."""
        if not isinstance(self.value, int | float) or isinstance(self.value, bool) or not abs(self.value) <= LARGEST:
            raise self.refuse(f"is not a finite number; {self.remedy}")
        return float(self.value)

    def amount(self) -> float:
        """A finite number ≥ 0."""
        number = self.number()
        if number < 0:
            raise self.refuse(f"is below 0; {self.remedy}")
        return number

    def number_or_none(self) -> float | None:
        """A finite number, or ``None`` for null."""
        return None if self.value is None else self.number()

    def number_or_nan(self) -> float:
        """A finite number, or NaN for null."""
        return math.nan if self.value is None else self.number()

    def fraction(self) -> float:
        """A number from 0 to 1."""
        number = self.number()
        if not 0 <= number <= 1:
            raise self.refuse(f"is not from 0 to 1; {self.remedy}")
        return number

    def _child(self, value: Any, key: str) -> Node:
        return Node(value, self.schema, self.remedy, key)

    def _path(self, name: str) -> str:
        return f"{self.key}.{name}" if self.key else name


def read_document(path: str | PathLike[str], schema: str, *, option: str, author: str, remedy: str) -> Node:
    """The root of the JSON document at ``path``, whose key ``schema`` is as it must be.

    ``option`` is where the path was given, ``author`` the command that writes such files.

    Raises:
        InputError: the file cannot be read, is not JSON, says something else, or is of another version.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        advice = f"cannot be read ({error.strerror}); give a file that {author} wrote"
        raise InputError(option, path, advice) from error
    except (ValueError, RecursionError) as error:
        raise InputError(option, path, f"is not JSON ({error}); give a file that {author} wrote") from error
    root = Node(document, schema, remedy)
    if not isinstance(document, dict):
        raise root.refuse(f"is not a JSON object; {remedy}")
    found = document.get("schema")
    if not isinstance(found, str) or found.partition("/")[0] != schema.partition("/")[0]:
        named = "names no schema" if found is None else f"is of schema {found}"
        raise InputError(option, path, f"{named}, and is to be {schema}; give a file that {author} wrote")
    if found != schema:
        raise InputError("schema", found, f"{path} is not of schema {schema}; {remedy} with this version")
    return root
