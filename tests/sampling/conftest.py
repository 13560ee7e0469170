"""What tests of sampling begin with."""

from __future__ import annotations

import gc

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_other_sampler() -> None:
    """The simulated library takes its settings when its first client comes, and an error that was caught keeps alive
    what it passed through, samplers among it, until the garbage collector comes by.
    """
    gc.collect()
