"""The forms' closed sums against the sums they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling.forms import FORMS, Cached, Paper, Recompute, make_form

tokens = st.integers(min_value=0, max_value=3000)


@given(τin=tokens, τout=tokens)
def test_recompute_closes_its_sums(τin: int, τout: int) -> None:
    contexts = [τin + k for k in range(τout)]
    literal = [len(contexts), sum(contexts), sum(c**2 for c in contexts)]
    np.testing.assert_allclose(Recompute().design(τin, τout), literal, rtol=1e-12)


@given(τin=tokens, τout=tokens)
def test_cached_closes_its_sum(τin: int, τout: int) -> None:
    literal = [1, τin, τin**2, τout, sum(τin + k for k in range(τout))]
    np.testing.assert_allclose(Cached().design(τin, τout), literal, rtol=1e-12)


def test_paper_is_tokens_and_their_product() -> None:
    np.testing.assert_array_equal(Paper().design([2, 3], [5, 7]), [[2, 5, 10], [3, 7, 21]])
    np.testing.assert_array_equal(Paper(intercept=True).design([2, 3], [5, 7]), [[1, 2, 5, 10], [1, 3, 7, 21]])


@pytest.mark.parametrize("form", [*(cls() for cls in FORMS.values()), Paper(intercept=True)], ids=str)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_design_has_a_column_per_term(form: Paper, shape: tuple[int, ...]) -> None:
    lengths = np.full(shape, 16)
    assert form.design(lengths, lengths).shape == (*shape, len(form.terms))


def test_forms_are_made_by_name() -> None:
    assert [make_form(name).name for name in FORMS] == ["paper", "recompute", "cached"]
    assert make_form("paper", intercept=True).terms[0] == "intercept"


def test_unknown_form_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"form = cubic: unknown; use one of paper, recompute, cached"):
        make_form("cubic")


@pytest.mark.parametrize("name", ["recompute", "cached"])
def test_only_the_paper_form_takes_an_intercept(name: str) -> None:
    with pytest.raises(InputError, match="--intercept"):
        make_form(name, intercept=True)
