"""The sums of a fit in models.json: what :func:`~llmpower.modelling.update` adds to."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from llmpower.documents import Node
from llmpower.modelling.linear import is_covariance
from llmpower.modelling.rows.moments import FitMoments, Moments


def dump_moments(moments: FitMoments) -> dict[str, Any]:
    """As JSON types only."""
    return {
        field.name: {key.name: _listed(getattr(getattr(moments, field.name), key.name)) for key in fields(Moments)}
        for field in fields(FitMoments)
    }


def _listed(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def load_moments(node: Node, n_terms: int) -> FitMoments:
    """Those of a fit of this many terms."""
    node.only(*(field.name for field in fields(FitMoments)))
    return FitMoments(**{field.name: _load_sums(node.at(field.name), n_terms) for field in fields(FitMoments)})


def _load_sums(node: Node, n_terms: int) -> Moments:
    node.only(*(field.name for field in fields(Moments)))
    gram = np.array([[cell.number() for cell in row.items(n_terms)] for row in node.at("gram").items(n_terms)])
    if not is_covariance(gram):
        raise node.at("gram").refuse(f"is not an XᵀWX, symmetric and positive semi-definite; {node.remedy}")
    return Moments(
        n=node.at("n").integer(),
        w=node.at("w").amount(),
        wy=node.at("wy").number(),
        wyy=node.at("wyy").amount(),
        gram=gram,
        moment=np.array([cell.number() for cell in node.at("moment").items(n_terms)]),
    )
