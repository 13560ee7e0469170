"""The forms: what energy and runtime may look like as a function of input and output tokens.

``paper`` is the published regression, with or without an intercept. The others are non-negative term by term, and
therefore cannot predict a query that costs nothing or less: ``quadratic`` says nothing of how the hardware works,
``cached``, ``batched`` and ``phases`` say what an engine with a KV cache does, and those of
:mod:`~llmpower.modelling.steps` what one without does.

Symbols: τin input tokens, τout output tokens, B the requests that a decode step serves at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from llmpower.exceptions import InputError
from llmpower.modelling.linear import FloatArray, Form, contexts, ones, positive_part, stacked
from llmpower.modelling.steps import Recompute, RecomputeCall, Roofline

__all__ = [
    "FORMS",
    "FORM_NAMES",
    "Batched",
    "Cached",
    "FloatArray",
    "Form",
    "Paper",
    "Phases",
    "Quadratic",
    "Recompute",
    "RecomputeCall",
    "Roofline",
    "make_form",
]


@dataclass(frozen=True)
class Paper(Form):
    """The published regression (Wilkins, Keshav and Mortier, HotCarbon 2024), for comparison with it.

        e(τin, τout) = α0·τin + α1·τout + α2·τin·τout            [J], and the same with β [s]

    Without an intercept unless asked for one. Nothing keeps it positive: small queries come out below zero.
    """

    name: ClassVar[str] = "paper"
    non_negative: ClassVar[bool] = False
    intercept: bool = False

    @property
    def label(self) -> str:
        """``paper`` or ``paper+intercept``."""
        return f"{self.name}+intercept" if self.intercept else self.name

    @property
    def formula(self) -> str:
        """The sum of its terms, each with a coefficient understood."""
        return " + ".join(self.terms)

    @property
    def terms(self) -> tuple[str, ...]:
        """α0, α1, α2 by the columns that they multiply, after the intercept where there is one."""
        slopes = ("input_tokens", "output_tokens", "input_tokens:output_tokens")
        return ("intercept", *slopes) if self.intercept else slopes

    @property
    def within(self) -> tuple[Form, slice] | None:
        """That with an intercept."""
        return None if self.intercept else (Paper(intercept=True), slice(1, 4))

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """(1,) τin, τout, τin·τout."""
        slopes = (τin, τout, τin * τout)
        return (ones(τin), *slopes) if self.intercept else slopes


@dataclass(frozen=True)
class Quadratic(Form):
    """A polynomial of second degree, for whatever follows neither story below.

    E = q0 + q1·τin + q2·τout + q3·τin² + q4·τin·τout + q5·τout²
    """

    name: ClassVar[str] = "quadratic"

    @property
    def formula(self) -> str:
        """As above."""
        return "q0 + q1·τin + q2·τout + q3·τin² + q4·τin·τout + q5·τout²"

    @property
    def terms(self) -> tuple[str, ...]:
        """q0 to q5."""
        return ("q0", "q1", "q2", "q3", "q4", "q5")

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """1, τin, τout, τin², τin·τout, τout²."""
        return ones(τin), τin, τout, τin**2, τin * τout, τout**2


@dataclass(frozen=True)
class Cached(Form):
    """Decoding with a KV cache, as every serving engine does it: prefill once, then one token per step.

        E = p0 + p1·τin + p2·τin² + d0·τout + d1·(τin·τout + τout(τout−1)/2)

    p0 a call, p1 and p2 the prefill's linear layers and attention, d0 a decode step, d1 a step's attention over the
    context so far: Σ_{k<τout} (τin + k) is the bracket.
    """

    name: ClassVar[str] = "cached"

    @property
    def formula(self) -> str:
        """As above."""
        return "p0 + p1·τin + p2·τin² + d0·τout + d1·(τin·τout + τout(τout−1)/2)"

    @property
    def terms(self) -> tuple[str, ...]:
        """p0, p1, p2 of the prefill; d0, d1 of the decode."""
        return ("p0", "p1", "p2", "d0", "d1")

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """1, τin, τin², τout, Σ_{k<τout} (τin + k)."""
        return ones(τin), τin, τin**2, τout, contexts(τin, τout)


@dataclass(frozen=True)
class Batched(Form):
    """``cached`` for requests that B at a time share what a call and a decode step cost, whoever is in them.

        E = p0/B + p1·τin + p2·τin² + d0·τout/B + d2·τout + d1·(τin·τout + τout(τout−1)/2)

    Joules of **one** request of τin and τout tokens that is served in a batch, or at a concurrency, of B such
    requests; the batch as a whole takes B times that, in joules as in seconds. d0 a step (reading the weights), d2 a
    decoded token in it. Unless told otherwise a prediction is for a request alone, B = 1.
    """

    name: ClassVar[str] = "batched"

    @property
    def formula(self) -> str:
        """As above."""
        return "p0/B + p1·τin + p2·τin² + d0·τout/B + d2·τout + d1·(τin·τout + τout(τout−1)/2)"

    @property
    def terms(self) -> tuple[str, ...]:
        """p0, p1, p2 of the prefill; d0 a step, d2 a token, d1 a token of context."""
        return ("p0", "p1", "p2", "d0", "d2", "d1")

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """As :meth:`design` for a request alone."""
        return self._columns(τin, τout, ones(τin))

    def design(self, input_tokens: ArrayLike, output_tokens: ArrayLike, batch_size: ArrayLike = 1) -> FloatArray:
        """φ of one request of these lengths among ``batch_size`` of them; shape (…, n_terms)."""
        lengths = (np.asarray(values, dtype=np.float64) for values in (input_tokens, output_tokens, batch_size))
        return stacked(self._columns(*lengths))

    @staticmethod
    def at(batch_size: float) -> FloatArray:
        """M of shape (5, 6): with coefficients β, ``cached`` with coefficients M·β is this form at that batch size."""
        M = np.zeros((5, 6))
        M[0, 0] = M[3, 3] = 1 / batch_size
        M[1, 1] = M[2, 2] = M[3, 4] = M[4, 5] = 1
        return M

    @staticmethod
    def _columns(τin: FloatArray, τout: FloatArray, B: FloatArray) -> tuple[FloatArray, ...]:
        """1/B, τin, τin², τout/B, τout, Σ_{k<τout} (τin + k)."""
        return 1 / B, τin, τin**2, τout / B, τout, contexts(τin, τout)


@dataclass(frozen=True)
class Phases(Form):
    """``cached`` in two fits, where measurements tell prefill and decode apart: e = e_prefill + e_decode.

        e_prefill = p0 + p1·τin + p2·τin²
        e_decode  = d0·(τout−1) + d1·Σ_{1≤k<τout} (τin + k)

    The first token comes of the prefill, so the decode has a step less. Each phase is fitted to its own joules (its own
    seconds, by the time to the first token): what one of them costs cannot leak into the coefficients of the other.
    """

    name: ClassVar[str] = "phases"
    # The terms of the prefill; the rest are the decode's.
    N_PREFILL: ClassVar[int] = 3

    @property
    def formula(self) -> str:
        """Both phases, summed."""
        return "p0 + p1·τin + p2·τin² + d0·(τout−1) + d1·Σ_{1≤k<τout} (τin + k)"

    @property
    def terms(self) -> tuple[str, ...]:
        """p0, p1, p2 of the prefill; d0, d1 of the decode."""
        return ("p0", "p1", "p2", "d0", "d1")

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """1, τin, τin², τout − 1, Σ_{1≤k<τout} (τin + k)."""
        n = positive_part(τout - 1)
        return ones(τin), τin, τin**2, n, contexts(τin + 1, n)


FORMS: Mapping[str, type[Form]] = MappingProxyType(
    {form.name: form for form in (Paper, Quadratic, Recompute, RecomputeCall, Roofline, Cached, Batched, Phases)}
)
"""Every form by its name, in the order in which they are tried."""

FORM_NAMES = (Paper.name, Paper(intercept=True).label, *(name for name in FORMS if name != Paper.name))
"""What :func:`make_form` takes: every form, and the variant of ``paper``."""


def make_form(name: str, *, intercept: bool = False) -> Form:
    """The form called ``name``; ``intercept`` gives the paper's form its constant, as ``paper+intercept`` does.

    Raises:
        InputError: no such form, or an intercept asked of a form whose constant is fixed by what it says.
    """
    if name not in FORM_NAMES:
        raise InputError("form", name, f"unknown; use one of {', '.join(FORM_NAMES)}")
    if name.startswith(Paper.name):
        return Paper(intercept=intercept or name != Paper.name)
    if intercept:
        raise InputError("--intercept", name, "only the form paper takes an intercept; leave it out")
    return FORMS[name]()
