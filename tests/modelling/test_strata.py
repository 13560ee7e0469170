"""Sums by stratum: the same whatever portions rows came in, and exact where cells are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmpower.modelling import strata as module
from llmpower.modelling.sample import Sample
from llmpower.modelling.strata import EXACT, UNKNOWN, Strata, classes, number, rounded_down


def rows(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    generator = np.random.default_rng(seed)
    model = generator.integers(0, 3, n)
    lengths = np.stack([generator.integers(1, 10 ** (1 + model)), generator.integers(1, 15, n), *np.ones((2, n))])
    return model, lengths.astype(np.float64), classes(generator.lognormal(-8, 1, n)), generator.lognormal(3, 1, n)


def collapsed(n: int, seed: int, cuts: list[int]) -> Strata:
    model, lengths, certainty, y = rows(n, seed)
    edges = sorted({0, n, *(cut % n for cut in cuts)})
    parts = [
        Strata.of_rows(np.full(3, EXACT), model[a:b], lengths[:, a:b], certainty[a:b], {"y": y[a:b]})
        for a, b in pairwise(edges)
    ]
    return Strata.merged(parts)


@pytest.fixture(autouse=True, scope="module")
def _few_cells() -> Iterator[None]:
    """A thousand rows must do what takes millions otherwise."""
    before, module.MOST_CELLS = module.MOST_CELLS, 200
    yield
    module.MOST_CELLS = before


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(0, 2000), max_size=6))
def test_portions_come_down_to_what_all_rows_do(seed: int, cuts: list[int]) -> None:
    whole, parts = collapsed(2000, seed, []), collapsed(2000, seed, cuts)
    np.testing.assert_array_equal(parts.digits, whole.digits)
    assert whole.digits.max() == EXACT
    assert whole.digits.min() < EXACT
    for each in range(3):
        ours, theirs = parts.of_model(each), whole.of_model(each)
        np.testing.assert_array_equal(ours.lengths, theirs.lengths)
        np.testing.assert_array_equal(ours.certainty, theirs.certainty)
        for name, sums in theirs.sums.items():
            np.testing.assert_allclose(ours.sums[name], sums, rtol=1e-12)


def test_sums_are_those_of_the_rows() -> None:
    model, lengths, certainty, y = rows(2000, 1)
    found = collapsed(2000, 1, [])
    assert found.sums["n"].sum() == 2000
    for each in range(3):
        own = found.of_model(each)
        assert own.sums["y"].sum() == pytest.approx(y[model == each].sum())
        assert own.sums["input_tokens"].sum() == lengths[0][model == each].sum()
        one = int(own.sums["n"].argmax())
        kept = rounded_down(lengths, np.full(len(model), own.digits[each]))
        there = (
            (kept == own.lengths[:, one, np.newaxis]).all(axis=0) & (model == each) & (certainty == own.certainty[one])
        )
        assert own.sums["n"][one] == there.sum()
        assert own.sums["y"][one] == pytest.approx(y[there].sum())


@given(length=st.one_of(st.integers(0, 2**53 - 1), st.floats(0, 1e300)), digits=st.sampled_from([EXACT, 8, 4, 1]))
def test_lengths_keep_their_leading_digits(length: float, digits: int) -> None:
    (kept,) = rounded_down(np.array([[length]], dtype=np.float64), np.array([digits]))[0]
    assert 0 <= kept <= length
    if np.finfo(float).tiny <= length:
        assert length - kept < length * 2.0 ** (1 - digits)
        assert kept == length or digits < EXACT


def test_classes_are_powers_of_two() -> None:
    found = classes(np.array([0.3, 0.49, 0.51, 1e-9, 0.0, np.nan]))
    assert found[0] == found[1] == found[2] - 1
    assert (found[4], found[5]) == (UNKNOWN + 1, UNKNOWN)


@given(
    columns=st.lists(
        st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0**45, 1e300, -3.0]), min_size=7, max_size=7), min_size=1, max_size=5
    )
)
def test_distinct_combinations_are_numbered(columns: list[list[float]]) -> None:
    codes, first = number(*(np.array(column) for column in columns))
    tuples = list(zip(*columns, strict=True))
    assert len(first) == len(set(tuples))
    for row, code in enumerate(codes):
        assert tuples[first[code]] == tuples[row]


@settings(max_examples=10)
@given(order=st.permutations(range(60)))
def test_the_same_rows_stay_in_whatever_order_they_come(order: list[int]) -> None:
    generator = np.random.default_rng(3)
    columns = {
        name: generator.lognormal(size=60) for name in ("energy_j", "runtime_s", "input_tokens", "output_tokens")
    }
    model = np.arange(60) % 2

    def drawn(rows: list[int]) -> Sample:
        sample = Sample.empty()
        for some in np.array_split(np.array(rows), 5):
            chosen = {name: column[some] for name, column in columns.items()}
            last = np.full(2, np.iinfo(np.uint64).max, dtype=np.uint64)
            last[: len(sample.last)] = sample.last
            sample = Sample.merged([sample, Sample.of_rows(last, model[some], chosen)], 10)
        return sample

    ours, theirs = drawn(order), drawn(list(range(60)))
    for each in range(2):
        assert len(ours.of_model(each)["energy_j"]) == 10
        np.testing.assert_array_equal(*(np.sort(some.of_model(each)["energy_j"]) for some in (ours, theirs)))
