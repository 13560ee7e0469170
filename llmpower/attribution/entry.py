"""A span's account on one device while it is being settled.

The variance of a span's energy follows from the same sum. With share s before a cut and s' after it, the cut's reading
enters (s − s') times, so the variance is Σ (s − s')²·boundary_var + Σ s²·path_var over its cuts and pieces. Pieces of
one tick of a counter, of prior variances v, add Σ s²·v − (Σ s·v)²/V for the tick's total being known. The uncertainty
of the shares themselves (:mod:`~llmpower.attribution.shares.costs`) is taken as common to all pieces and so adds
linearly: of the coefficients by their covariance; and for spans that differ from what their tokens say, each by a
relative ε of its own, ε·s_i·√v of a piece's energy E, where v = (1 − s_i)² + Σ s_j², j being the others. Their sum is
bounded by Jensen's inequality, ε·√(Σ E·s_i · Σ E·s_i·v), which is the sum itself where v stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmpower.attribution.series import NO_TICK, Reading


@dataclass(slots=True)
class Entry:
    """What a span has used of one device so far, and what is uncertain about it."""

    prefill_j: float = 0.0
    decode_j: float = 0.0
    idle_j: float | None = 0.0  # what the device would have drawn with nothing to do
    var_j2: float = 0.0
    share_std_j: float = 0.0
    decoded: float = 0.0  # part of its decoding that is behind it
    share: float = 0.0  # in the piece before the cut at hand
    tick: int = NO_TICK  # the tick that the latest piece lies in, and of it Σ s²·v, Σ s·v and V
    square_j2: float = 0.0
    linear_j2: float = 0.0
    within_j2: float = 0.0
    seen: bool = False  # the device has been settled at least once since the span was added
    known: bool = True
    allocated: bool = False

    def add(
        self,
        idle_w: float | None,
        prefill_j: float,
        decode_j: float,
        var_j2: float,
        share_std_j: float,
        time_s: float,
        unknown: bool,
        allocated: bool,
        decoded: float,
        share: float,
    ) -> None:
        """Count what the span had of more pieces.

        Args:
            idle_w: what the device would draw with nothing to do; ``None`` where that is not known.
            prefill_j: its energy before its first token.
            decode_j: its energy from there on.
            var_j2: the variance of that, but for parts of ticks.
            share_std_j: the standard deviation for its shares.
            time_s: its share of the device's time.
            unknown: whether the energy of a piece is not known.
            allocated: whether others ran as well.
            decoded: the part of its decoding that is behind it now.
            share: in the latest piece.
        """
        self.prefill_j += prefill_j
        self.decode_j += decode_j
        self.var_j2 += var_j2
        self.share_std_j += share_std_j
        self.idle_j = None if idle_w is None or self.idle_j is None else self.idle_j + idle_w * time_s
        self.known &= not unknown
        self.allocated |= allocated
        self.decoded = decoded
        self.share = share

    def add_in_tick(self, tick: int, whole_j2: float, square_j2: float, linear_j2: float) -> None:
        """Count parts of a tick, the latest so far: V, and of the parts Σ s²·v and Σ s·v."""
        if tick != self.tick:
            self._close_tick()
            self.tick, self.within_j2 = tick, whole_j2
        self.square_j2 += square_j2
        self.linear_j2 += linear_j2

    def close(self, end: Reading | None) -> None:
        """The span has ended, at ``end``; where that is not known, neither is its energy."""
        if end is None:
            self.known = False
        else:
            self.var_j2 += self.share**2 * end.boundary_var_j2
        self._close_tick()

    def _close_tick(self) -> None:
        # Of the latest tick no more pieces will come.
        if self.within_j2 > 0:
            self.var_j2 += max(self.square_j2 - self.linear_j2**2 / self.within_j2, 0.0)
        self.tick, self.square_j2, self.linear_j2, self.within_j2 = NO_TICK, 0.0, 0.0, 0.0
