"""What makes an allocation fair, whatever the coefficients: through the ledger, on a card that has learnt or not."""

from __future__ import annotations

from math import isfinite

import pytest
from devices import SECOND, feed_counter, make_device, make_span
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llmpower.attribution import Joules, Ledger, Timeline
from llmpower.types import Span

START_NS, END_NS = 3 * SECOND, 5 * SECOND
TOKENS = st.integers(0, 5000)


def settled(spans: list[Span], learnt: int = 0) -> dict[str, Joules]:
    """What each span used of a card of steady power, which has seen this many lone spans before."""
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t, 0, 8)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(SECOND)
    for number in range(learnt):
        start_ns = SECOND + 400_000_000 * number
        ledger.add(make_span(f"before {number}", start_ns, start_ns + 300_000_000, input_tokens=100 * number + 1))
    for span in spans:
        ledger.add(span)
    found = {joules.span.span_id: joules for joules in ledger.settle(7 * SECOND)}
    inference_j = ledger.totals["GPU-0"].inference_j
    assert sum(joules.gpu_energy_j or 0.0 for joules in found.values()) == pytest.approx(inference_j, abs=1e-6)
    return found


def energy_j(joules: Joules) -> float:
    assert joules.gpu_energy_j is not None
    return joules.gpu_energy_j


@st.composite
def some_spans(draw: st.DrawFn, models: str = "abcdef") -> list[Span]:
    moments = st.integers(START_NS, END_NS)
    spans = []
    for number in range(draw(st.integers(1, 6))):
        start_ns, first_ns, end_ns = sorted(draw(st.tuples(moments, moments, moments)))
        spans.append(
            make_span(
                str(number),
                start_ns,
                end_ns,
                first_token_ns=draw(st.sampled_from([first_ns, None])),
                input_tokens=draw(TOKENS),
                output_tokens=draw(TOKENS),
                batch_size=draw(st.sampled_from([0, 1, 7])),
                model_name=draw(st.sampled_from(models)),
            )
        )
    return spans


@given(spans=some_spans(), learnt=st.sampled_from([0, 4]))
@settings(max_examples=50, deadline=None)
def test_every_figure_is_a_number_and_none_is_negative(spans: list[Span], learnt: int) -> None:
    for joules in settled(spans, learnt).values():
        for figure in (joules.gpu_energy_j, joules.gpu_energy_std_j):
            assert figure is not None
            assert isfinite(figure)
            assert figure >= 0


@given(spans=some_spans(models="abc"), twin=st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_identical_spans_get_identical_shares_in_whatever_order_they_come(spans: list[Span], twin: int) -> None:
    one = spans[twin % len(spans)]
    spans = [*spans, replace(one, span_id="twin")]
    found, again = settled(spans), settled(spans[::-1])
    assert energy_j(found["twin"]) == pytest.approx(energy_j(found[one.span_id]), rel=1e-9, abs=1e-9)
    for span_id, joules in found.items():
        assert energy_j(again[span_id]) == pytest.approx(energy_j(joules), rel=1e-6, abs=1e-6)


@given(spans=some_spans())
@settings(max_examples=20, deadline=None)
def test_the_same_spans_give_the_same_figures_to_the_last_bit(spans: list[Span]) -> None:
    assert settled(spans, 3) == settled(spans, 3)


@given(inputs=TOKENS, outputs=TOKENS, more_in=TOKENS, more_out=TOKENS, split=st.booleans())
@settings(max_examples=30, deadline=None)
def test_who_does_more_in_the_same_time_pays_no_less(
    inputs: int, outputs: int, more_in: int, more_out: int, split: bool
) -> None:
    first_ns = START_NS + SECOND // 2 if split else None
    less = make_span("less", START_NS, END_NS, first_token_ns=first_ns, input_tokens=inputs, output_tokens=outputs)
    more = replace(less, span_id="more", input_tokens=inputs + more_in, output_tokens=outputs + more_out)
    found = settled([less, more])
    assert energy_j(found["more"]) >= energy_j(found["less"]) - 1e-9


def test_a_span_that_does_nothing_beside_one_that_works_pays_next_to_nothing() -> None:
    works = make_span("works", START_NS, END_NS, first_token_ns=START_NS + SECOND // 5, input_tokens=900)
    idles = replace(works, span_id="idles", input_tokens=0, output_tokens=0)
    found = settled([works, idles], 4)
    assert energy_j(found["idles"]) < 0.01 * energy_j(found["works"])


def test_spans_that_all_do_nothing_share_equally() -> None:
    spans = [make_span(name, START_NS, END_NS, input_tokens=0, output_tokens=0) for name in "abcd"]
    assert [energy_j(joules) for joules in settled(spans).values()] == pytest.approx([100.0] * 4)


@given(batch=st.integers(1, 12), inputs=st.integers(1, 300), outputs=st.integers(2, 200))
@settings(max_examples=20, deadline=None)
def test_whether_a_batch_is_one_span_or_many_is_the_same_to_the_others(batch: int, inputs: int, outputs: int) -> None:
    first_ns = START_NS + SECOND // 4
    other = make_span("other", START_NS, END_NS, first_token_ns=first_ns, input_tokens=70, output_tokens=90)
    each = replace(other, input_tokens=inputs, output_tokens=outputs)
    whole = replace(each, span_id="whole", batch_size=batch, input_tokens=batch * inputs, output_tokens=batch * outputs)
    together = settled([other, whole])
    apart = settled([other, *(replace(each, span_id=str(number)) for number in range(batch))])
    # A prompt's step is the span's, so that many prompts at once in many spans count more of them.
    decoding = [together["other"].decode_energy_j, apart["other"].decode_energy_j]
    assert decoding[0] == pytest.approx(decoding[1], rel=0.02)


def test_a_decoded_token_costs_many_times_a_token_of_a_prompt_before_anything_was_learnt() -> None:
    prompts = make_span("prompts", START_NS, END_NS, first_token_ns=END_NS, input_tokens=1000, output_tokens=1)
    decodes = make_span("decodes", START_NS, END_NS, first_token_ns=START_NS, input_tokens=1, output_tokens=1000)
    found = settled([prompts, decodes])
    assert energy_j(found["decodes"]) > 20 * energy_j(found["prompts"])
    assert found["prompts"].allocated
    assert found["prompts"].gpu_energy_std_j > 1  # type: ignore[operator]  # known, as its energy is
