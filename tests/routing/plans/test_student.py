"""Student's t is scipy's, for whole degrees of freedom and those of Welch and Satterthwaite."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit

from llmpower.routing.plans.student import student_t


@settings(deadline=None, max_examples=50)
@given(st.floats(1, 1e7), st.floats(0.01, 0.95))
@example(1.0, 0.95)
@example(3.7, 0.95)
@example(1000.5, 0.95)
def test_it_is_scipys(degrees: float, confidence: float) -> None:
    assert student_t(confidence, degrees) == pytest.approx(stdtrit(degrees, (1 + confidence) / 2), rel=1e-8)
