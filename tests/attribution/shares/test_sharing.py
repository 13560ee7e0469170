"""Arrays against the plain reading of the formulas, one piece and one span at a time."""

from __future__ import annotations

from math import sin, sqrt

import numpy as np
import pytest
from devices import SECOND, feed_counter, make_device, make_span
from hypothesis import given, settings
from hypothesis import strategies as st

from llmpower.attribution import Ledger, Timeline
from llmpower.attribution.course import course
from llmpower.attribution.entry import Entry
from llmpower.attribution.pieces import cuts, regimes
from llmpower.attribution.series import NO_TICK, Reading
from llmpower.attribution.shares.costs import Costs
from llmpower.attribution.shares.weights import FEATURES, LEAST_S, PRESENCE, Work
from llmpower.types import Span

LOW_NS, HIGH_NS = SECOND, 4 * SECOND


def timeline(reset_s: float | None = None) -> Timeline:
    """A card, whose counter may start over at a moment."""
    gpu = Timeline(make_device())
    feed_counter(gpu, lambda t: 200 * t + 5 * sin(5 * t), 0, reset_s or 6)
    if reset_s is not None:
        feed_counter(gpu, lambda t: 100 * (t - reset_s) + 1, reset_s, 6)
    return gpu


class Prices:
    """What the ledger knew when it shared: coefficients, covariance, ε, and the pace of decoding."""

    def __init__(self, costs: Costs, work: Work) -> None:
        self.beta, self.covariance, self.spread, self.work = costs.beta, costs.covariance, costs.spread, work
        self.presence_w = PRESENCE * costs.mean_w

    def does(self, number: int, span: Span, cut: int, cuts_ns: list[int]) -> list[float]:
        """Prompt tokens, tokens by tokens before them, steps, decoded tokens and tokens by their context, a second."""
        n, work = max(span.batch_size, 1), self.work
        first_ns = span.start_ns if span.first_token_ns is None else span.first_token_ns
        split = first_ns > span.start_ns
        prompt_s = max(((first_ns if split else span.end_ns) - span.start_ns) / 1e9, LEAST_S)
        prompt = span.input_tokens / prompt_s
        attention = prompt * span.input_tokens / n / 2
        if cuts_ns[cut] < first_ns:
            return [prompt, attention, 1 / prompt_s, 0.0, 0.0]
        if split:
            prompt = attention = 0.0
        decode = n * work.rate[number] * work.pace[0, cut]
        context = work.context[number] + work.rate[number] * work.middle_s[0, cut]
        return [prompt, attention, decode / work.decoding[0, cut], decode, decode * context]

    def asks(self, number: int, span: Span, cut: int, cuts_ns: list[int]) -> float:
        done = self.does(number, span, cut, cuts_ns)
        return self.presence_w * max(span.batch_size, 1) + float(self.beta[: len(done)] @ done)


class Plain:
    """What one span used, by the sums that attribution/entry.py states."""

    def __init__(
        self, own: int, spans: list[Span], cuts_ns: list[int], readings: list[Reading | None], prices: Prices
    ) -> None:
        span = spans[own]
        self.prefill_j = self.decode_j = self.std_j = var_j2 = before = 0.0
        together_j = strays_j = 0.0
        gradient = np.zeros(len(FEATURES))
        self.known = readings[cuts_ns.index(span.end_ns)] is not None
        ticks: dict[int, list[tuple[float, float, float]]] = {}
        for number, cut_ns in enumerate(cuts_ns[:-1]):
            if not span.start_ns <= cut_ns < span.end_ns:
                continue
            running = [each for each, other in enumerate(spans) if other.start_ns <= cut_ns < other.end_ns]
            asked = {each: prices.asks(each, spans[each], number, cuts_ns) for each in running}
            share = asked[own] / sum(asked.values())
            start, end = readings[number], readings[number + 1]
            if start is None or end is None or start.epoch != end.epoch:
                self.known = False
                return
            energy_j = end.energy_j - start.energy_j
            if span.first_token_ns is not None and cut_ns < span.first_token_ns:
                self.prefill_j += share * energy_j
            else:
                self.decode_j += share * energy_j
            if len(running) > 1:
                others = sum((asked[each] / sum(asked.values())) ** 2 for each in running if each != own)
                together_j += share * energy_j
                strays_j += share * ((1 - share) ** 2 + others) * energy_j
            all_do = sum(np.array(prices.does(each, spans[each], number, cuts_ns)) for each in running)
            does = np.array(prices.does(own, span, number, cuts_ns))
            gradient += energy_j / sum(asked.values()) * (does - share * all_do)
            var_j2 += (share - before) ** 2 * start.boundary_var_j2
            before = share
            if start.tick == end.tick != NO_TICK:
                ticks.setdefault(start.tick, []).append((share, end.before_j2 - start.before_j2, start.within_j2))
            else:
                for at, part_j2 in ((start, start.within_j2 - start.before_j2), (end, end.before_j2)):
                    if at.tick != NO_TICK:
                        ticks.setdefault(at.tick, []).append((share, part_j2, at.within_j2))
        last = readings[cuts_ns.index(span.end_ns)]
        var_j2 += 0.0 if last is None else before**2 * last.boundary_var_j2
        for parts in ticks.values():
            whole_j2 = parts[0][2]
            square, linear = sum(s**2 * v for s, v, _ in parts), sum(s * v for s, v, _ in parts)
            var_j2 += max(square - linear**2 / whole_j2, 0.0) if whole_j2 > 0 else 0.0
        covariance = prices.covariance[: len(FEATURES), : len(FEATURES)]
        var_j2 += prices.spread**2 * together_j * strays_j
        self.std_j = sqrt(var_j2 + max(float(gradient @ covariance @ gradient), 0.0))


moments = st.integers(LOW_NS, HIGH_NS - SECOND // 5)


@st.composite
def some_spans(draw: st.DrawFn) -> list[Span]:
    spans = []
    for number in range(draw(st.integers(1, 12))):
        start_ns, first_ns, end_ns = sorted(draw(st.tuples(moments, moments, moments)))
        if start_ns < end_ns:
            first = draw(st.sampled_from([first_ns, None]))
            tokens = {"input_tokens": draw(st.integers(0, 5000)), "output_tokens": draw(st.integers(0, 500))}
            tokens["batch_size"] = draw(st.sampled_from([1, 1, 8]))
            spans.append(make_span(str(number), start_ns, end_ns, first_token_ns=first, **tokens))
    return spans


@given(spans=some_spans(), reset_s=st.sampled_from([None, None, 2.34]))
@settings(max_examples=150, deadline=None)
def test_arrays_say_what_the_formulas_say(spans: list[Span], reset_s: float | None) -> None:
    gpu = timeline(reset_s)
    ledger = Ledger({"GPU-0": gpu})
    ledger.settle(LOW_NS)
    for span in spans:
        ledger.add(span)
    found = {joules.span.span_id: joules for joules in ledger.settle(HIGH_NS)}
    gpu = timeline(reset_s)
    low_ns, high_ns = gpu.floor_ns(LOW_NS), gpu.floor_ns(HIGH_NS)
    assert low_ns is not None
    assert high_ns is not None
    Ledger({"GPU-0": gpu}).settle(LOW_NS)  # it learns as much from that
    cuts_ns = cuts(spans, low_ns, high_ns)
    doing = regimes(spans, course(spans, cuts_ns), len(cuts_ns) - 1)
    readings = gpu.readings(cuts_ns, doing, gpu.known_until_ns)
    work = Work(spans, [Entry() for _ in spans], course(spans, cuts_ns), cuts_ns, np.zeros(len(spans), np.int64))
    prices = Prices(ledger.costs["GPU-0"], work)
    for number, span in enumerate(spans):
        plain, joules = Plain(number, spans, cuts_ns, readings, prices), found[span.span_id]
        assert (joules.gpu_energy_j is not None) == plain.known
        if joules.gpu_energy_j is not None:
            assert joules.gpu_energy_j == pytest.approx(plain.prefill_j + plain.decode_j, rel=1e-9, abs=1e-6)
            assert joules.gpu_energy_std_j == pytest.approx(plain.std_j, rel=1e-4, abs=1e-6)
            if span.first_token_ns is not None:
                assert joules.prefill_energy_j == pytest.approx(plain.prefill_j, rel=1e-9, abs=1e-6)


@given(spans=some_spans(), steps=st.lists(st.integers(LOW_NS, HIGH_NS), max_size=6))
@settings(max_examples=100, deadline=None)
def test_in_however_many_steps_it_is_settled_energy_is_conserved(spans: list[Span], steps: list[int]) -> None:
    ledger = Ledger({"GPU-0": timeline()})
    ledger.settle(LOW_NS)
    for span in spans:
        ledger.add(span)
    found = [joules for step_ns in [*sorted(steps), HIGH_NS] for joules in ledger.settle(step_ns)]
    assert len(found) == len(spans)
    totals = ledger.totals["GPU-0"]
    assert sum(joules.gpu_energy_j or 0.0 for joules in found) == pytest.approx(totals.inference_j, abs=1e-6)
    assert sum(ledger.take_booked().values()) == pytest.approx(totals.inference_j, abs=1e-6)
    assert totals.inference_j + totals.idle_j == pytest.approx(totals.energy_j, abs=1e-6)


def test_a_span_on_devices_whose_counters_move_at_other_times_has_its_energy() -> None:
    first, second = Timeline(make_device()), Timeline(make_device("GPU-1"))
    ledger = Ledger({"GPU-0": first, "GPU-1": second})
    span = make_span("a", 3 * SECOND, 3 * SECOND + SECOND // 3, devices=("GPU-0", "GPU-1"))
    found = []
    for step in range(20, 120):
        start_s, end_s = step / 20, (step + 1) / 20
        feed_counter(first, lambda t: 200 * t, start_s, end_s)
        feed_counter(second, lambda t: 100 * t, start_s, end_s, phase_s=0.05)
        if step == 58:
            ledger.begin("a", span.start_ns)
        if step == 70:
            ledger.add(span)
        found += ledger.settle(round(end_s * SECOND))
    (joules,) = found
    assert joules.gpu_energy_j == pytest.approx(100, rel=0.05)
