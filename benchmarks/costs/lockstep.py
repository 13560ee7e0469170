"""Calls in lockstep, a token of each arm at a time, and what the differences between them say.

A shared machine drifts by a fifth from one tenth of a second to the next, and stalls; whole calls, even next to each
other, do not tell what is a hundredth of them. So all arms' calls are under way at the same time, each in a thread of
its own, and take turns at every token: one runs, the others wait, and what is compared was computed within some
milliseconds. The order is turned round at every token (A B C C B A), so that each arm has the same neighbours. A call
is as many pieces as it has tokens and one more, from the call to the first token and from the last to the return. What
an arm's call takes longer is the sum, over its pieces, of the medians over all calls of the differences to the plain
call's; a stall spoils one piece of one call. Intervals (95 %) are by the bootstrap over rounds of calls.

Only the turns are timed, not the passing on. Caches are those of a thread that has waited for three others, so all arms
are somewhat slower than alone.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
CLOCKS = ("wall", "processor")
"""What a program waits, and what its thread computes: neither llmpower nor Zeus waits for anything but the driver."""


@dataclass(frozen=True)
class Estimate:
    """A figure with the bounds of its 95 % interval."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """The same in another unit."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)

    def as_json(self, digits: int = 3) -> dict[str, Any]:
        """For a results file."""
        return {"value": round(self.value, digits), "interval": [round(self.low, digits), round(self.high, digits)]}


class Turns:
    """Who of several threads runs now: each in its turn, in an order that turns round."""

    def __init__(self, arms: Sequence[str]) -> None:
        self._order = list(arms)
        self._position = 0
        self._turns = {arm: threading.Semaphore(0) for arm in arms}
        self.pieces: dict[str, list[tuple[int, int]]] = {arm: [] for arm in arms}
        self._begun = (0, 0)

    def begin(self) -> None:
        """Let the first one run."""
        self._turns[self._order[0]].release()

    def wait(self, arm: str) -> None:
        """Until it is this one's turn, which is timed from then on."""
        self._turns[arm].acquire()
        self._begun = time.perf_counter_ns(), time.thread_time_ns()

    def pass_on(self, arm: str) -> None:
        """End the turn, and have the next one run."""
        wall_ns, processor_ns = time.perf_counter_ns(), time.thread_time_ns()
        self.pieces[arm].append((wall_ns - self._begun[0], processor_ns - self._begun[1]))
        self._position += 1
        if self._position == len(self._order):
            self._position = 0
            self._order.reverse()
        self._turns[self._order[self._position]].release()

    def stop_at_token(self, arm: str) -> Callable[[Any, Any], Any]:
        """A logits processor by which an arm's call gives way at each token."""

        def process(_input_ids: Any, scores: Any) -> Any:
            self.pass_on(arm)
            self.wait(arm)
            return scores

        return process


def run_round(calls: Mapping[str, Callable[[Any], Any]], order: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """One call of each arm in lockstep: seconds by arm, of shape (clocks, pieces).

    Each call is given the logits processor by which it stops.
    """
    turns = Turns(order)

    def work(arm: str) -> None:
        turns.wait(arm)
        calls[arm](turns.stop_at_token(arm))
        turns.pass_on(arm)

    threads = [threading.Thread(target=work, args=(arm,)) for arm in order]
    for thread in threads:
        thread.start()
    turns.begin()
    for thread in threads:
        thread.join()
    return {arm: np.array(pieces).T / 1e9 for arm, pieces in turns.pieces.items()}


def run_rounds(
    calls: Mapping[str, Callable[[Any], Any]],
    seconds: float,
    shuffled: random.Random,
    between: Callable[[], Any] = lambda: None,
) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Seconds by clock and arm, each of shape (rounds, pieces), of as many rounds as begin in ``seconds``.

    The first round warms up. ``between`` is done after each round, untimed.
    """
    found: dict[str, list[NDArray[np.float64]]] = {arm: [] for arm in calls}
    until_s = None
    while until_s is None or time.monotonic() < until_s or not found[next(iter(calls))]:
        pieces = run_round(calls, shuffled.sample(list(calls), len(calls)))
        between()
        if until_s is None:
            until_s = time.monotonic() + seconds
            continue
        for arm, piece in pieces.items():
            found[arm].append(piece)
    arrays = {arm: np.array(pieces) for arm, pieces in found.items()}
    return {clock: {arm: array[:, index] for arm, array in arrays.items()} for index, clock in enumerate(CLOCKS)}


def undisturbed_s(rounds: NDArray[np.float64]) -> float:
    """The time of a call that nothing stalls, or a difference of two: the medians of its pieces, added up."""
    return float(np.median(rounds, axis=0).sum())


def estimate_s(rounds: NDArray[np.float64], seed: int = 1) -> Estimate:
    """:func:`undisturbed_s` of at least one round, shape (rounds, pieces), with its interval."""
    drawn = np.random.default_rng(seed).integers(len(rounds), size=(RESAMPLES, len(rounds)))
    resampled = [undisturbed_s(rounds[which]) for which in drawn]
    return Estimate(undisturbed_s(rounds), *map(float, np.percentile(resampled, [2.5, 97.5])))


def median(values: NDArray[np.float64], seed: int = 1) -> Estimate:
    """The median of at least one value."""
    return estimate_s(np.asarray(values, dtype=float).reshape(-1, 1), seed)
