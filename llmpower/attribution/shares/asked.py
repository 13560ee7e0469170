"""Demands with their prices: what the spans ask of the pieces in all, and each its share.

A segment's demand is a row of coefficients times the model's basis (:mod:`~llmpower.attribution.shares.weights`), so
its sums over pieces are differences of running sums over the basis: thousands of segments in hundreds of pieces each
are summed without visiting a single pair of them. Pairs are only made for what is quadratic in the shares.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from llmpower.attribution.shares.costs import Costs
from llmpower.attribution.shares.weights import BASIS, FEATURES, PRESENCE, Work

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


class Asked:
    """What runs, at the device's prices."""

    def __init__(self, work: Work, costs: Costs) -> None:
        self._work = work
        self._basis, self._segments = work.basis(), work.segments()
        size = work.models * len(FEATURES)
        beta, self._covariance = costs.beta[:size], costs.covariance[:size, :size]
        prices = beta.reshape(work.models, len(FEATURES))[self._segments.model]
        self._demand = np.einsum("gk,gkb->gb", prices, self._segments.parts)
        presence_w = PRESENCE * costs.mean_w
        self._demand[:, 0] += presence_w * self._segments.sequences
        present_w = presence_w * (work.prompting + work.decoding.sum(axis=0))
        self.total_w: Floats = np.where(work.running > 0, work.done @ beta + present_w, np.inf)
        """Σ of the demands in each piece; infinite where nothing runs, which is shared among none."""

    def shared(self, amounts: Floats) -> Floats:
        """Σ over its pieces of share times amount, of every segment; ``amounts`` of shape (pieces,)."""
        sums = self._sums((amounts / self.total_w)[None])[0]
        found: Floats = np.einsum("gb,gb->g", self._demand, sums)
        return np.maximum(found, 0.0)  # rounding, where a demand is nothing beside another's

    def pairs(self) -> tuple[Integers, Integers, Floats]:
        """Every span in every piece that it runs in, in order of span and then of piece: both, and its share."""
        segments, pieces = self._segments, self._work.pieces
        lengths = segments.end - segments.first
        piece = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths - segments.first, lengths)
        row = piece + np.repeat(segments.model * pieces, lengths)
        scaled = (self._basis / self.total_w[:, None]).reshape(-1, BASIS)
        share = np.einsum("ij,ij->i", np.repeat(self._demand, lengths, axis=0), np.take(scaled, row, axis=0))
        return np.repeat(np.arange(len(lengths)) // 2, lengths), piece, np.maximum(share, 0.0)

    def std_j(self, energy_j: Floats) -> Floats:
        """Standard deviation of each span's energy for what is uncertain about the coefficients.

        With s_i = m_i/M the gradient is Σ E/M·(∂m_i − s_i·∂M) over the pieces; the variance is its square under the
        coefficients' covariance.
        """
        segments, count = self._segments, len(FEATURES)
        gains = energy_j / self.total_w
        sums = self._sums(np.concatenate((gains[None], gains / self.total_w * self._work.done.T)))
        gradient = -np.einsum("gb,kgb->gk", self._demand, sums[1:])
        own = np.einsum("gkb,gb->gk", segments.parts, sums[0])
        columns = segments.model[:, None] * count + np.arange(count)
        np.put_along_axis(gradient, columns, np.take_along_axis(gradient, columns, 1) + own, 1)
        spans = gradient[0::2] + gradient[1::2]
        var_j2: Floats = np.einsum("ij,ij->i", spans @ self._covariance, spans)
        return np.sqrt(np.maximum(var_j2, 0.0))

    def _sums(self, weights: Floats) -> Floats:
        """Σ over its pieces of weight times the basis, of every segment: (k, pieces) to (k, segments, 4)."""
        segments, (k, pieces) = self._segments, weights.shape
        sums = np.zeros((k, self._work.models, pieces + 1, BASIS))
        np.cumsum(self._basis * weights[:, None, :, None], axis=2, out=sums[:, :, 1:])
        found: Floats = sums[:, segments.model, segments.end] - sums[:, segments.model, segments.first]
        return found
