from __future__ import annotations

import numpy as np
import pytest

from llmpower.attribution.shares.pace import Decoding, Pace, find_pace


def steps_in(found: Pace, spans: Decoding, span: int) -> float:
    """What is spread over the pieces of a span."""
    way = found.paced_s[spans.model[span]]
    return float(found.rate[span] * (way[spans.end[span]] - way[spans.token[span]]))


def decoding(token: list[int], end: list[int], steps: list[float], later_s: list[float] | None = None) -> Decoding:
    count = len(token)
    return Decoding(
        np.zeros(count, np.int64),
        np.array(token),
        np.array(end),
        np.array(later_s or [0.0] * count),
        np.ones(count),
        np.array(steps),
    )


def test_a_lone_span_decodes_evenly_and_hardly_while_a_prompt_runs() -> None:
    spans = decoding([0], [3], [210.0])
    found = find_pace(spans, np.array([1.0, 1.0, 1.0]), np.array([0.0, 1.0, 0.0]), 1)
    assert steps_in(found, spans, 0) == pytest.approx(210)
    assert found.rate[0] * found.pace[0] == pytest.approx([102.4, 5.1, 102.4], rel=0.01)
    assert found.done[0] == pytest.approx(1)


def test_spans_that_step_together_tell_when_the_device_was_slow() -> None:
    # 100 steps a second, then 20, then 100: no span lies in the slow time alone.
    true = np.array([100.0, 20.0, 100.0])
    token, end = [0, 1, 0, 1, 0, 2], [2, 3, 3, 2, 1, 3]
    spans = decoding(token, end, [float(true[a:b].sum()) for a, b in zip(token, end, strict=True)])
    found = find_pace(spans, np.ones(3), np.zeros(3), 1)
    for span in range(len(token)):
        assert steps_in(found, spans, span) == pytest.approx(spans.steps[span])
    pace = found.rate.mean() * found.pace[0]
    assert pace[[0, 2]] == pytest.approx([100, 100], rel=0.2)
    assert pace[1] < 40  # where each span's own mean would say from 60 to 73 for those that know no better


def test_what_is_still_to_come_is_left_for_later() -> None:
    spans = decoding([0], [1], [100.0], [3.0])
    found = find_pace(spans, np.ones(1), np.zeros(1), 1)
    assert steps_in(found, spans, 0) == pytest.approx(25)
    assert found.done[0] == pytest.approx(0.25)


def test_models_have_paces_of_their_own() -> None:
    spans = Decoding(
        np.array([0, 1]), np.array([0, 0]), np.array([2, 2]), np.zeros(2), np.ones(2), np.array([10.0, 1000.0])
    )
    found = find_pace(spans, np.ones(2), np.zeros(2), 2)
    assert [steps_in(found, spans, span) for span in (0, 1)] == pytest.approx([10, 1000])


def test_no_time_and_no_steps_are_borne() -> None:
    spans = decoding([0, 0], [0, 1], [100.0, 0.0])
    found = find_pace(spans, np.ones(1), np.zeros(1), 1)
    assert np.isfinite(found.pace).all()
    assert np.isfinite(found.rate).all()
