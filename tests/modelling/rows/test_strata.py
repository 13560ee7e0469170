"""Sums by stratum: the same whatever portions rows came in, and exact where cells are."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmpower.modelling.kernels import Summed, Summer
from llmpower.modelling.rows.strata import EXACT, JUDGED, SUMS, SURE_SUMS, UNKNOWN, token_digits

MODELS = 3
Columns = dict[str, NDArray[np.float64]]


def rows(n: int, seed: int) -> tuple[NDArray[np.uint32], Columns]:
    """The lengths of model 0 are few, those of the others too many to be cells."""
    generator = np.random.default_rng(seed)
    model = generator.integers(0, MODELS, n).astype(np.uint32)
    energy_j = generator.lognormal(3, 1, n)
    columns = {
        "input_tokens": generator.integers(1, 10 ** (1 + model.astype(int))).astype(float),
        "output_tokens": generator.integers(1, 15, n).astype(float),
        "energy_j": energy_j,
        "std_j": energy_j * generator.lognormal(-4, 1, n),
        "runtime_s": generator.lognormal(size=n),
        "energy_prefill": np.where(generator.random(n) < 0.9, energy_j / 5, np.nan),
    }
    return model, columns


def summed(n: int, seed: int, cuts: list[int], *, most_judged: int = 100) -> Summer:
    """Of portions: each a summer of its own, pickled and merged, as workers' are; the whole by two threads."""
    model, columns = rows(n, seed)
    whole = Summer(200, most_judged, threads=2)
    for a, b in pairwise(sorted({0, n, *(cut % n for cut in cuts)})):
        part = Summer(200, most_judged) if cuts else whole
        part.add(model[a:b], MODELS, {name: column[a:b] for name, column in columns.items()})
        if cuts:
            part = pickle.loads(pickle.dumps(part))
            for each in range(MODELS):
                whole.merge(each, part.of_model(each))
            whole = pickle.loads(pickle.dumps(whole))
    return whole


def judged(found: Summed) -> NDArray[np.float64]:
    return found.judged[:, np.lexsort(found.judged[:3])]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000), cuts=st.lists(st.integers(1, 1999), max_size=6))
def test_portions_come_down_to_what_all_rows_do(seed: int, cuts: list[int]) -> None:
    whole, parts = summed(2000, seed, []), summed(2000, seed, cuts)
    for each, digits in enumerate((True, False, False)):
        ours, theirs = parts.of_model(each), whole.of_model(each)
        assert (ours.digits == EXACT) is digits
        for name in ("digits", "rows", "below", "allocated", "modelled"):
            assert getattr(ours, name) == getattr(theirs, name)
        for name in ("lengths", "certainty", "cells", "low", "high"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        np.testing.assert_allclose(ours.sums, theirs.sums, rtol=1e-12)
        np.testing.assert_allclose(ours.sure_sums, theirs.sure_sums, rtol=1e-12)
        # The same rows stay to be judged, in whatever order they come.
        assert len(ours.judged_strata) == 100
        np.testing.assert_array_equal(judged(ours), judged(theirs))


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(1, 1999), min_size=4, max_size=9),
    threads=st.integers(1, 3),
    held_rows=st.sampled_from([0, 2000]),
)
def test_additions_are_summed_in_their_order_while_others_are_made(
    seed: int, cuts: list[int], threads: int, held_rows: int
) -> None:
    model, columns = rows(2000, seed)
    at_once, one_by_one = Summer(200, 100), Summer(200, 100, threads, held_rows=held_rows)
    at_once.add(model, MODELS, columns)
    for a, b in pairwise(sorted({0, 2000, *cuts})):
        one_by_one.add(model[a:b], MODELS, {name: column[a:b].copy() for name, column in columns.items()})
    for each in range(MODELS):
        for name in Summed.__slots__:
            np.testing.assert_array_equal(
                getattr(one_by_one.of_model(each), name), getattr(at_once.of_model(each), name), name
            )


def test_what_is_merged_is_kept_until_it_is() -> None:
    model, columns = rows(300_000, 1)
    of_part, columns_of_part = rows(2000, 2)
    part = Summer(200, 100)
    part.add(of_part, MODELS, columns_of_part)
    waited, went_on = Summer(200, 100), Summer(200, 100)
    for whole in (waited, went_on):
        whole.add(model, MODELS, columns)
        for each in range(MODELS):
            if whole is waited:
                whole.of_model(each)
            # Nobody else has these arrays, and others of their sizes take the place of those that were given back.
            whole.merge(each, part.of_model(each))
            part.of_model(each)
    for each in range(MODELS):
        for name in Summed.__slots__:
            np.testing.assert_array_equal(getattr(went_on.of_model(each), name), getattr(waited.of_model(each), name))


@pytest.mark.parametrize("each", range(MODELS))
def test_sums_are_those_of_the_rows(each: int) -> None:
    model, columns = rows(2000, 1)
    found = summed(2000, 1, [], most_judged=2000).of_model(each)
    own = model == each
    sums = dict(zip(SUMS, found.sums, strict=True))
    energy_j, prefill_j = columns["energy_j"][own], columns["energy_prefill"][own]
    assert found.rows == sums["n"].sum() == own.sum()
    assert sums["input_tokens"].sum() == columns["input_tokens"][own].sum()
    assert sums["energy_j/w"].sum() == pytest.approx((1 / energy_j**2).sum())
    τin, runtime_s = columns["input_tokens"][own], columns["runtime_s"][own]
    assert sums["input_tokens²"].sum() == (τin**2).sum()
    assert sums["runtime_s/wτin"].sum() == pytest.approx((τin / runtime_s**2).sum())
    assert sums["energy_prefill/wτin"].sum() == pytest.approx(np.nansum(τin / prefill_j**2))
    sure = dict(zip(SURE_SUMS, found.sure_sums, strict=True))
    assert sure["wτout"].sum() == pytest.approx((columns["output_tokens"][own] / energy_j**2).sum())
    assert sure["variance"].sum() == pytest.approx(((columns["std_j"][own] / energy_j) ** 2).sum())
    for name, of_cell in (("n", "n"), ("w", "energy_j/w"), ("wy", "energy_j/wy")):
        np.testing.assert_allclose(np.bincount(found.cells, sure[name]), sums[of_cell], rtol=1e-12)
    assert sums["energy_prefill/wy"].sum() == pytest.approx(np.nansum(1 / prefill_j))
    # A row's lengths are its stratum's, to as many digits as that keeps.
    of_rows = dict(zip(JUDGED, found.judged, strict=True))
    kept = found.lengths[:, found.cells[found.judged_strata]]
    np.testing.assert_array_equal(found.certainty[found.judged_strata], of_rows["certainty"])
    for name, lengths in zip(("input_tokens", "output_tokens"), kept, strict=False):
        assert (lengths <= of_rows[name]).all()
        assert (of_rows[name] - lengths <= of_rows[name] * 2.0 ** (1 - token_digits(found.digits))).all()


@given(length=st.one_of(st.integers(0, 2**53 - 1), st.floats(0, 1e300)), digits=st.sampled_from([EXACT, 8, 4, 1]))
def test_lengths_keep_their_leading_digits(length: float, digits: int) -> None:
    summer = Summer(1, 1)
    one = {name: np.array([float(length)]) for name in ("input_tokens", "output_tokens", "batch_size")}
    summer.add(np.zeros(1, np.uint32), 1, one | {name: np.ones(1) for name in ("energy_j", "runtime_s")})
    found = summer.of_model(0)
    rounded = Summer(1, 1)
    rounded.merge(0, Summed(digits, *(getattr(found, name) for name in Summed.__slots__[1:])))
    for whole, kept, of_kind in zip(
        found.lengths[[0, 2], 0], rounded.of_model(0).lengths[[0, 2], 0], (token_digits(digits), digits), strict=True
    ):
        assert 0 <= kept <= whole
        if np.finfo(float).tiny <= whole:
            assert whole - kept < whole * 2.0 ** (1 - of_kind)
            assert kept == whole or digits < EXACT


def test_classes_are_powers_of_two() -> None:
    variances = np.array([0.3, 0.49, 0.51, 1e-9, 0.0, np.nan])
    summer = Summer(100, 100)
    ones = {name: np.ones(6) for name in ("input_tokens", "output_tokens", "energy_j", "runtime_s")}
    summer.add(np.zeros(6, np.uint32), 1, ones | {"std_j": np.sqrt(variances)})
    found = summer.of_model(0).judged[JUDGED.index("certainty")]
    assert found[0] == found[1] == found[2] - 1
    assert (found[4], found[5]) == (UNKNOWN + 1, UNKNOWN)


def test_arrays_that_c_would_misread_are_refused() -> None:
    columns = {name: np.ones(4) for name in ("input_tokens", "output_tokens", "energy_j", "runtime_s")}
    for wrong in (np.ones(3), np.ones(4, np.float32), np.ones(8)[::2]):
        with pytest.raises(AssertionError):
            Summer(1, 1).add(np.zeros(4, np.uint32), 1, columns | {"runtime_s": wrong})
    with pytest.raises(AssertionError):
        Summer(1, 1).add(np.full(4, 1, np.uint32), 1, columns)
