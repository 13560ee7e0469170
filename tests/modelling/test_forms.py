"""The forms' closed sums against the sums they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmpower.exceptions import InputError
from llmpower.modelling.forms import (
    FORM_NAMES,
    FORMS,
    Batched,
    Cached,
    Form,
    Paper,
    Phases,
    Quadratic,
    Recompute,
    RecomputeCall,
    Roofline,
    make_form,
)
from llmpower.modelling.steps import RIDGE_TOKENS

tokens = st.integers(min_value=0, max_value=3000)


@given(τin=tokens, τout=tokens)
def test_recompute_closes_its_sums(τin: int, τout: int) -> None:
    contexts = [τin + k for k in range(τout)]
    literal = [len(contexts), sum(contexts), sum(c**2 for c in contexts)]
    np.testing.assert_allclose(Recompute().design(τin, τout), literal, rtol=1e-12)


@given(τin=tokens, τout=tokens)
def test_roofline_counts_what_lies_beyond_the_ridge(τin: int, τout: int) -> None:
    contexts = [τin + k for k in range(τout)]
    literal = [1, len(contexts), sum(contexts), sum(c**2 for c in contexts)]
    beyond = sum(max(0, c - RIDGE_TOKENS) for c in contexts)
    np.testing.assert_allclose(Roofline().design(τin, τout), [*literal, beyond], rtol=1e-12)
    np.testing.assert_allclose(RecomputeCall().design(τin, τout), literal, rtol=1e-12)


@given(τin=tokens, τout=tokens)
def test_phases_decode_a_step_less(τin: int, τout: int) -> None:
    contexts = [τin + k for k in range(1, τout)]
    literal = [1, τin, τin**2, len(contexts), sum(contexts)]
    np.testing.assert_allclose(Phases().design(τin, τout), literal, rtol=1e-12)


@given(τin=tokens, τout=tokens, batch_size=st.integers(min_value=1, max_value=256))
def test_a_batch_shares_its_call_and_its_steps(τin: int, τout: int, batch_size: int) -> None:
    p0, p1, p2, d0, d2, d1 = 60.0, 0.2, 1e-5, 15.0, 0.3, 0.01
    # The whole batch: every step reads the weights once and decodes a token for each.
    prefill = p0 + batch_size * (p1 * τin + p2 * τin**2)
    decode = sum(d0 + batch_size * (d2 + d1 * (τin + k)) for k in range(τout))
    β = np.array([p0, p1, p2, d0, d2, d1])
    one = Batched().design(τin, τout, batch_size) @ β
    np.testing.assert_allclose(batch_size * one, prefill + decode, rtol=1e-9)
    np.testing.assert_allclose(Cached().design(τin, τout) @ (Batched.at(batch_size) @ β), one, rtol=1e-9)


def test_quadratic_has_every_product_of_second_degree() -> None:
    np.testing.assert_array_equal(Quadratic().design(3, 5), [1, 3, 5, 9, 15, 25])


@given(τin=tokens, τout=tokens)
def test_cached_closes_its_sum(τin: int, τout: int) -> None:
    literal = [1, τin, τin**2, τout, sum(τin + k for k in range(τout))]
    np.testing.assert_allclose(Cached().design(τin, τout), literal, rtol=1e-12)


def test_paper_is_tokens_and_their_product() -> None:
    np.testing.assert_array_equal(Paper().design([2, 3], [5, 7]), [[2, 5, 10], [3, 7, 21]])
    np.testing.assert_array_equal(Paper(intercept=True).design([2, 3], [5, 7]), [[1, 2, 5, 10], [1, 3, 7, 21]])


@pytest.mark.parametrize("form", [make_form(name) for name in FORM_NAMES], ids=lambda form: form.label)
@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_design_has_a_column_per_term(form: Form, shape: tuple[int, ...]) -> None:
    lengths = np.full(shape, 16)
    assert form.design(lengths, lengths).shape == (*shape, len(form.terms))


@given(τin=tokens, τout=tokens)
def test_what_a_form_has_within_another_are_its_own_columns(τin: int, τout: int) -> None:
    inner = {form: form.within for form in map(make_form, FORM_NAMES) if form.within is not None}
    assert {form.label for form in inner} == {"paper", "recompute", "recompute+call"}
    for form, (whole, terms) in inner.items():
        np.testing.assert_array_equal(form.design(τin, τout), whole.design(τin, τout)[terms])


def test_forms_are_made_by_name() -> None:
    assert [make_form(name).label for name in FORM_NAMES] == list(FORM_NAMES)
    assert make_form("paper", intercept=True) == make_form("paper+intercept")
    assert make_form("paper+intercept").terms[0] == "intercept"
    assert set(FORM_NAMES) == {*FORMS, "paper+intercept"}


def test_unknown_form_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"form = cubic: unknown; use one of paper, paper\+intercept, quadratic, "):
        make_form("cubic")


@pytest.mark.parametrize("name", [name for name in FORMS if name != "paper"])
def test_only_the_paper_form_takes_an_intercept(name: str) -> None:
    with pytest.raises(InputError, match="--intercept"):
        make_form(name, intercept=True)
