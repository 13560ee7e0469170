"""Passes over cells in C say what NumPy says of the same arrays, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

from llmpower.routing.solving import kernels

N_CELLS, N_MODELS, N_CLASSES = 1000, 3, 2


@pytest.fixture(name="rng")
def make_rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.mark.parametrize("by_tokens", [False, True])
@pytest.mark.parametrize("n_classes", [1, N_CLASSES])
def test_costs_are_joules_less_accuracy(rng: np.random.Generator, by_tokens: bool, n_classes: int) -> None:
    joules, accuracy = rng.lognormal(size=(N_CELLS, N_MODELS)), rng.random((n_classes, N_MODELS))
    tokens = rng.integers(0, 2**31, N_CELLS), rng.integers(1, 2**31, N_CELLS)
    cell_class, costs = rng.integers(0, n_classes, N_CELLS), np.empty_like(joules)
    kernels.weigh((joules, 0.3), tokens if by_tokens else None, (accuracy, 1e-4), cell_class, costs)
    a = accuracy[cell_class]
    if by_tokens:
        a = (tokens[0] + tokens[1])[:, np.newaxis] * a
    np.testing.assert_array_equal(costs, joules * 0.3 - a * 1e-4)


def test_margins_stand_by_pair_and_borders_are_what_is_within(rng: np.random.Generator) -> None:
    costs, count, prices = rng.random((N_CELLS, N_MODELS)), rng.integers(1, 9, N_CELLS), rng.random(N_MODELS)
    choice, runner_up, margin, _ = kernels.price(costs, count, prices)
    pair = choice.astype(int) * N_MODELS + runner_up
    margins, queries = kernels.by_pair(choice, runner_up, margin, count, N_MODELS)
    for number in range(N_MODELS**2):
        np.testing.assert_array_equal(margins[number], margin[pair == number])
        assert queries[number] == count[pair == number].sum()
    limits = rng.random(N_MODELS**2) / 2
    border = kernels.border(choice, runner_up, margin, N_MODELS, limits)
    assert 0 < len(border) < N_CELLS
    np.testing.assert_array_equal(border, np.flatnonzero(margin <= limits[pair]))
