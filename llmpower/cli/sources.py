"""Measurements that a command is given: tables and daemons' stores, read alike by ``fit`` and ``report``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmpower.exceptions import StoreError

if TYPE_CHECKING:
    import pandas as pd


def read_sources(
    sources: Sequence[str], option: str, *, columns: Mapping[str, str] | None = None, where: str | None = None
) -> pd.DataFrame:
    """As :func:`~llmpower.modelling.load_measurements`, of stores too; complaints name the option that they came by."""
    from llmpower.modelling import load_measurements
    from llmpower.store import read_measurements

    def read_store(path: Path) -> pd.DataFrame:
        try:
            return read_measurements(path)
        except StoreError as error:
            raise type(error)(option, error.value, error.advice) from error

    return load_measurements(sources, columns=columns, where=where, readers={".db": read_store}, option=option)
