"""What a step of a serving engine really costs: the truth that the allocation is judged by and never sees.

A step takes requests through the model together: prompts (whole or in chunks) and decoding sequences. Of any set S of
requests that could be in it, the law gives the energy E(S), in joules, with t(S) its duration:

    t(S) = t0 + touched(S)·t_w + Σ t_i            or t0 + max(touched·t_w + Σ kv_i, Σ compute_i) for a roofline
    E(S) = static·t(S) + touched(S)·e_w + Σ e_i

e_i and t_i are a request's own: per token of a prompt and by its context, per decoded token and by its context to a
power. touched(S) is the part of the weights that the step reads: all of them, or of a mixture of experts those that the
step's tokens chose. Above a power cap the step is stretched until it keeps it, and what is static costs longer.

A request's true cost of a step is its Shapley value in E (L. S. Shapley, "A value for n-person games", 1953): the mean
of what it adds, over all orders in which the step's requests may join. Where E is a sum of own parts and one joint part
that is its own part and an equal share of the joint one; elsewhere orders are drawn, each with its reverse.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ORDERS = 8
"""Orders drawn a step, each with its reverse, where the value has no closed form."""

VARIATION = 0.35
"""Of the logarithm of every constant, from one run to the next."""


@dataclass(frozen=True)
class Law:
    """One model on one card under one engine; energies in joules, times in seconds, powers in watts."""

    name: str
    static_w: float = 110.0
    overhead_s: float = 0.0008
    weights_s: float = 0.0048
    weights_j: float = 1.2
    prefill_s: float = 4e-5
    prefill_j: float = 0.02
    attention_j: float = 1e-6  # a prompt's token and a token before it
    attention_s: float = 2e-9
    decode_s: float = 3e-5
    decode_j: float = 0.03
    cache_j: float = 2e-5  # a decoded token and a token of its context
    cache_s: float = 5e-8
    context_power: float = 1.0
    chunk: int | None = None  # tokens of prompts in a step, which then decodes too; None runs whole prompts alone
    batched: bool = True  # False: every request runs its own steps, in turns with the others
    roofline: bool = False
    experts: tuple[int, int] | None = None  # chosen by a token, of how many
    cap_w: float | None = None
    spread: float = 0.0  # of a request's own cost about what the law says, as a deviation of its logarithm
    cached: float = 0.0  # share of requests whose prompt is mostly in the cache already
    drafted: float = 0.0  # chance that one more token than the step's first is accepted, up to 3
    noise: float = 0.01  # relative, of the power of some 50 ms

    @property
    def closed(self) -> bool:
        """Whether E is a sum of own parts and one joint part."""
        return not (self.roofline or self.experts or self.cap_w)

    def varied(self, chance: np.random.Generator) -> Law:
        """Another model on another card: every constant times something of its own, by a third up or down."""
        names = [each.name for each in fields(self) if each.name.endswith(("_j", "_s", "static_w"))]
        factors = np.exp(chance.normal(0, VARIATION, len(names)))
        return replace(self, **{name: float(f) * getattr(self, name) for name, f in zip(names, factors, strict=True)})


LAWS = (
    Law("dense, prompts first"),
    Law("dense, chunked prompts", chunk=512, weights_j=1.6, decode_j=0.015, cache_j=6e-6, static_w=140),
    Law("long caches", cache_j=1.2e-4, cache_s=3e-7, context_power=0.92, prefill_j=0.028, attention_j=4e-6),
    Law("roofline", roofline=True, chunk=1024, noise=0.03),
    Law("mixture of experts", experts=(2, 64), weights_j=4.0, weights_s=0.012, prefill_j=0.012, decode_j=0.05),
    Law("power cap", cap_w=330.0, static_w=95, prefill_j=0.03, spread=0.05),
    Law("prefix cache, requests differ", cached=0.3, spread=0.15, noise=0.03, chunk=2048),
    Law("drafted tokens", drafted=0.6, decode_j=0.12, decode_s=6e-5, noise=0.02, spread=0.05),
    Law("threads, no batch", batched=False, weights_j=0.5, weights_s=0.0022, static_w=70),
)


@dataclass(frozen=True)
class Members:
    """The requests of one step, columns of shape (n,): of each its own energy and times, and its tokens."""

    own_j: Floats
    memory_s: Floats
    compute_s: Floats
    tokens: Floats


def members(law: Law, prompt: Floats, before: Floats, decoded: Floats, context: Floats, factor: Floats) -> Members:
    """What each request of a step costs by itself; all of shape (n,).

    Args:
        law: that holds.
        prompt: tokens of its prompt that the step runs.
        before: tokens of it that have run.
        decoded: tokens that the step decodes for it.
        context: that these look back on; 0 where there are none.
        factor: of its own cost.
    """
    pairs = prompt * (before + prompt / 2)
    reach = np.where(context > 0, np.maximum(context, 1.0) ** law.context_power, 0.0)
    own_j = law.prefill_j * prompt + law.attention_j * pairs + law.decode_j * decoded + law.cache_j * reach
    compute_s = law.prefill_s * prompt + law.attention_s * pairs + law.decode_s * decoded
    return Members(factor * own_j, factor * law.cache_s * reach, factor * compute_s, prompt + decoded)


def energy_and_time(law: Law, step: Members, sets: NDArray[np.bool_] | None = None) -> tuple[Floats, Floats]:
    """E and t of each of the ``sets``, shape (k, n); of all of them together where there is none."""
    rows = np.ones((1, len(step.own_j)), bool) if sets is None else sets
    own_j, memory_s, compute_s = rows @ step.own_j, rows @ step.memory_s, rows @ step.compute_s
    return _law(law, own_j, memory_s, compute_s, rows @ step.tokens)


def _law(law: Law, own_j: Floats, memory_s: Floats, compute_s: Floats, tokens: Floats) -> tuple[Floats, Floats]:
    touched = np.where(tokens > 0, 1.0, 0.0)
    if law.experts:
        chosen, of = law.experts
        touched = 1 - (1 - chosen / of) ** tokens
    weights_s = touched * law.weights_s
    busy_s = np.maximum(weights_s + memory_s, compute_s) if law.roofline else weights_s + memory_s + compute_s
    time_s = np.where(tokens > 0, law.overhead_s + busy_s, 0.0)
    dynamic_j = touched * law.weights_j + own_j
    if law.cap_w:
        time_s = np.maximum(time_s, dynamic_j / (law.cap_w - law.static_w))
    return law.static_w * time_s + dynamic_j, time_s


def true_costs(law: Law, step: Members, chance: np.random.Generator) -> Floats:
    """The Shapley value of each request of a step, shape (n,); they sum to E of all."""
    count = len(step.own_j)
    if law.closed:
        own_j = step.own_j + law.static_w * (step.memory_s + step.compute_s)
        joint_j = law.static_w * (law.overhead_s + law.weights_s) + law.weights_j
        closed: Floats = own_j + joint_j / count
        return closed
    if count == 1:
        return energy_and_time(law, step)[0]
    orders = chance.permuted(np.tile(np.arange(count), (ORDERS, 1)), axis=1)
    orders = np.concatenate((orders, orders[:, ::-1]))
    columns = (step.own_j, step.memory_s, step.compute_s, step.tokens)
    joined_up = (np.pad(np.cumsum(column[orders], axis=1), ((0, 0), (1, 0))) for column in columns)
    added_j = np.diff(_law(law, *joined_up)[0], axis=1)
    return np.bincount(orders.ravel(), added_j.ravel(), count) / len(orders)


def exact_values(law: Law, step: Members) -> Floats:
    """The Shapley value by enumeration of all 2ⁿ sets, shape (n,); for small n."""
    count = len(step.own_j)
    numbers = np.arange(1 << count)
    sets = (numbers[:, None] >> np.arange(count)) & 1 == 1
    energy_j = energy_and_time(law, step, sets)[0]
    size = sets.sum(axis=1)
    weight = np.array([_factorials(s, count - s - 1) for s in range(count)]) / _factorials(count, 0)
    values = np.empty(count)
    for each in range(count):
        without = ~sets[:, each]
        values[each] = weight[size[without]] @ (energy_j[numbers[without] | 1 << each] - energy_j[without])
    return values


def _factorials(first: int, second: int) -> float:
    return float(np.prod(np.arange(1, first + 1)) * np.prod(np.arange(1, second + 1)))
