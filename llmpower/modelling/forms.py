"""The forms: what energy and runtime may look like as a function of input and output tokens.

Every form is linear in its coefficients, so one class is one design matrix: column j is what coefficient j is
multiplied with. ``paper`` is the published regression. The other two say what the hardware does, are non-negative
term by term, and therefore cannot predict a query that costs nothing or less.

Symbols: τin input tokens, τout output tokens, c the context that a decode step sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmpower.exceptions import InputError

FloatArray = NDArray[np.float64]


class Form(ABC):
    """A linear form: its terms in the order of the design matrix's columns.

    ``non_negative`` says how it is estimated: with coefficients ≥ 0 on relative error, or by ordinary least squares.
    """

    name: ClassVar[str]
    non_negative: ClassVar[bool]

    @property
    @abstractmethod
    def formula(self) -> str:
        """What a prediction is, for people."""

    @property
    @abstractmethod
    def terms(self) -> tuple[str, ...]:
        """Names of the coefficients."""

    @abstractmethod
    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """What each coefficient is multiplied with; all of the shape of ``τin`` and ``τout``."""

    def design(self, input_tokens: ArrayLike, output_tokens: ArrayLike) -> FloatArray:
        """Design matrix of shape (…, n_terms) for token counts of any one shape."""
        τin, τout = np.asarray(input_tokens, dtype=np.float64), np.asarray(output_tokens, dtype=np.float64)
        return np.stack(np.broadcast_arrays(*self.columns(τin, τout)), axis=-1)


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
    def formula(self) -> str:
        """The sum of its terms, each with a coefficient understood."""
        return " + ".join(self.terms)

    @property
    def terms(self) -> tuple[str, ...]:
        """α0, α1, α2 by the columns that they multiply, after the intercept where there is one."""
        slopes = ("input_tokens", "output_tokens", "input_tokens:output_tokens")
        return ("intercept", *slopes) if self.intercept else slopes

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """(1,) τin, τout, τin·τout."""
        slopes = (τin, τout, τin * τout)
        return (np.ones_like(τin), *slopes) if self.intercept else slopes


@dataclass(frozen=True)
class Recompute(Form):
    """Decoding without a KV cache: every step processes its whole context again.

        E = Σ_{k<τout} (e0 + a·c + b·c²),   c = τin + k

    With n = τout the sums close to

        Σ 1  = n
        Σ c  = n·τin + n(n−1)/2
        Σ c² = n·τin² + n(n−1)·τin + (n−1)n(2n−1)/6
    """

    name: ClassVar[str] = "recompute"
    non_negative: ClassVar[bool] = True

    @property
    def formula(self) -> str:
        """As above."""
        return "Σ_{k<τout} (e0 + a·c + b·c²), c = τin + k"

    @property
    def terms(self) -> tuple[str, ...]:
        """e0 a step, a a token of context, b a pair of tokens of context."""
        return ("e0", "a", "b")

    def columns(self, τin: FloatArray, τout: FloatArray) -> tuple[FloatArray, ...]:
        """Σ 1, Σ c, Σ c²."""
        n = τout
        return (
            n,
            n * τin + n * (n - 1) / 2,
            n * τin**2 + n * (n - 1) * τin + (n - 1) * n * (2 * n - 1) / 6,
        )


@dataclass(frozen=True)
class Cached(Form):
    """Decoding with a KV cache, as every serving engine does it: prefill once, then one token a step.

        E = p0 + p1·τin + p2·τin² + d0·τout + d1·(τin·τout + τout(τout−1)/2)

    p0 a call, p1 and p2 the prefill's linear layers and attention, d0 a decode step, d1 a step's attention over the
    context so far: Σ_{k<τout} (τin + k) is the bracket.
    """

    name: ClassVar[str] = "cached"
    non_negative: ClassVar[bool] = True

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
        return (np.ones_like(τin), τin, τin**2, τout, τin * τout + τout * (τout - 1) / 2)


FORMS: Mapping[str, type[Form]] = MappingProxyType({form.name: form for form in (Paper, Recompute, Cached)})
"""Every form by its name, in the order in which they are tried."""


def make_form(name: str, *, intercept: bool = False) -> Form:
    """The form called ``name``; ``intercept`` gives the paper's form its constant.

    Raises:
        InputError: no such form, or an intercept asked of a form whose constant is fixed by what it says.
    """
    if name not in FORMS:
        raise InputError("form", name, f"unknown; use one of {', '.join(FORMS)}")
    if name == Paper.name:
        return Paper(intercept=intercept)
    if intercept:
        raise InputError("--intercept", name, "only the form paper takes an intercept; leave it out")
    return FORMS[name]()
