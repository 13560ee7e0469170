"""Demands with their prices: what the spans ask of the pieces in all, and each its share.

A segment's demand is a row d of coefficients times the model's basis (:mod:`~llmpower.attribution.shares.weights`), and
its share is that over the demand of all: s = d·u, where u is the basis over the total. So over any pieces Σ s·w is
d·(Σ w·u), and Σ s²·w is dᵀ·(Σ w·u·uᵀ)·d, whatever the amounts w. The sums in brackets are differences of running sums:
thousands of segments in thousands of pieces each are added up without visiting a single pair of them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.shares.costs import Costs
from llmpower.attribution.shares.weights import BASIS, FEATURES, PRESENCE, Work

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]

_LEFT, _RIGHT = np.triu_indices(BASIS)
_TIMES = np.where(_LEFT == _RIGHT, 1.0, 2.0)
"""How often each product of two components is in the square of a sum."""


class Stretches(NamedTuple):
    """Stretches of parts of pieces to add shares up over, in order of time.

    Stretch j, of segment ``segment[j]``, has the parts from ``begin[j]`` to ``end[j]`` - 1, of which part k lies in
    ``piece[k]``. Shapes (parts,) and three times (stretches,).
    """

    piece: Integers
    segment: Integers
    begin: Integers
    end: Integers


class Asked:
    """What runs, at the device's prices.

    ``whole`` are the segments' own stretches, two a span (prompt, rest), of whole pieces.
    """

    def __init__(self, work: Work, costs: Costs) -> None:
        self._work = work
        self._segments = segments = work.segments()
        self.whole = Stretches(np.arange(work.pieces), np.arange(len(segments.first)), segments.first, segments.end)
        size = work.models * len(FEATURES)
        beta, self._covariance = costs.beta[:size], costs.covariance[:size, :size]
        prices = beta.reshape(work.models, len(FEATURES))[segments.model]
        self._demand = np.einsum("gk,gkb->gb", prices, segments.parts)
        presence_w = PRESENCE * costs.mean_w
        self._demand[:, 0] += presence_w * segments.sequences
        self._squared = _products(self._demand) * _TIMES
        present_w = presence_w * (work.prompting + work.decoding.sum(axis=0))
        self.total_w: Floats = np.where(work.running > 0, work.done @ beta + present_w, np.inf)
        """Σ of the demands in each piece; infinite where nothing runs, which is shared among none."""
        self._unit: Floats = work.basis() / self.total_w[:, None]
        self._unit_squared = _products(self._unit)

    def share(self, piece: Integers) -> Floats:
        """Each segment's in a piece of its own, shape (segments,)."""
        found: Floats = np.einsum("gb,gb->g", self._demand, self._unit[self._segments.model, piece])
        return np.maximum(found, 0.0)

    def shared(self, amounts: Floats, over: Stretches | None = None) -> Floats:
        """Σ share·amount of each stretch, by default of each segment; ``amounts`` of the parts."""
        over = over or self.whole
        sums = self._between(self._unit[:, over.piece] * amounts[:, None], over)
        found: Floats = np.einsum("gb,gb->g", self._demand[over.segment], sums)
        return np.maximum(found, 0.0)  # rounding, where a demand is nothing beside another's

    def squared(self, amounts: Floats, over: Stretches | None = None) -> Floats:
        """Σ share²·amount, as :meth:`shared`."""
        over = over or self.whole
        return self._squares(self._unit_squared[:, over.piece] * amounts[:, None], over)

    def changed(self, amounts: Floats) -> Floats:
        """Σ (share − share in the piece before)²·amount over each segment's pieces behind its first."""
        changes = np.diff(self._unit, axis=1, prepend=0.0)
        behind = self.whole._replace(begin=np.minimum(self.whole.begin + 1, self.whole.end))
        return self._squares(_products(changes) * amounts[:, None], behind)

    def concentration(self) -> Floats:
        """Σ share² of all in each piece, shape (pieces,): between one over their number and one, whatever rounds."""
        begin, end = self.whole.begin, self.whole.end
        # As in _between, and running sums would keep that rounding for all that comes after.
        brief, long = end == begin + 1, end > begin + 1
        running = np.cumsum(self._squares_at(begin, long) - self._squares_at(end, long), axis=1)
        present = (running + self._squares_at(begin, brief))[:, :-1]
        found = np.einsum("mpk,mpk->p", present, self._unit_squared)
        clipped: Floats = np.clip(found, 1 / np.maximum(self._work.running, 1), 1.0)
        return clipped

    def std_j(self, energy_j: Floats) -> Floats:
        """Standard deviation of each span's energy for what is uncertain about the coefficients.

        With s_i = m_i/M the gradient is Σ E/M·(∂m_i − s_i·∂M) over the pieces; the variance is its square under the
        coefficients' covariance.
        """
        segments, count = self._segments, len(FEATURES)
        weights = np.concatenate((energy_j[None], energy_j / self.total_w * self._work.done.T)).T
        sums = self._between((self._unit[..., None] * weights[:, None]).reshape(*self._unit.shape[:2], -1), self.whole)
        sums = sums.reshape(len(sums), BASIS, -1)
        gradient = -np.einsum("gb,gbk->gk", self._demand, sums[..., 1:])
        own = np.einsum("gkb,gb->gk", segments.parts, sums[..., 0])
        columns = segments.model[:, None] * count + np.arange(count)
        np.put_along_axis(gradient, columns, np.take_along_axis(gradient, columns, 1) + own, 1)
        spans = gradient[0::2] + gradient[1::2]
        var_j2: Floats = np.einsum("ij,ij->i", spans @ self._covariance, spans)
        return np.sqrt(np.maximum(var_j2, 0.0))

    def _squares_at(self, piece: Integers, chosen: NDArray[np.bool_]) -> Floats:
        """Σ of the products of the demands of the chosen segments, each at its piece: (models, pieces + 1, 10)."""
        shape = self._work.models, self._work.pieces + 1, len(_TIMES)
        row = self._segments.model[chosen] * shape[1] + piece[chosen]
        place = (row[:, None] * shape[2] + np.arange(shape[2])).ravel()
        sums = np.bincount(place, self._squared[chosen].ravel(), shape[0] * shape[1] * shape[2])
        return np.asarray(sums, float).reshape(shape)

    def _squares(self, products: Floats, over: Stretches) -> Floats:
        found: Floats = np.einsum("gk,gk->g", self._squared[over.segment], self._between(products, over))
        return np.maximum(found, 0.0)

    def _between(self, values: Floats, over: Stretches) -> Floats:
        """Σ over each stretch of its model's values: (models, parts, k) to (stretches, k)."""
        models, parts, k = values.shape
        sums = np.zeros((models, parts + 1, k))
        np.cumsum(values, axis=1, out=sums[:, 1:])
        model = self._segments.model[over.segment]
        found: Floats = sums[model, over.end] - sums[model, over.begin]
        # Beside others' sums a rate without bound, as of a prompt of a microsecond, would be lost in rounding.
        one = over.end == over.begin + 1
        found[one] = values[model[one], over.begin[one]]
        return found


def _products(rows: Floats) -> Floats:
    """Every product of two components: (…, 4) to (…, 10)."""
    return rows[..., _LEFT] * rows[..., _RIGHT]
