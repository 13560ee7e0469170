"""Measurements → WorkloadModel: what a query of given lengths costs, in joules and seconds.

A model is two linear forms, one for energy and one for runtime, fitted per model name and judged by cells it has not
seen. The names below load on first use: reading models.json needs only numpy, fitting imports pandas, scipy and
statsmodels as well.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmpower.modelling.fitted.document import dump_models, load_models, save_models
    from llmpower.modelling.fitted.models import Alternative, Fit, HeldOut, WorkloadModel
    from llmpower.modelling.fitted.prediction import ModelPrediction, Prediction, PredictionWarning, predict
    from llmpower.modelling.fitting import fit
    from llmpower.modelling.forms import FORM_NAMES, FORMS, Form
    from llmpower.modelling.rows.boundary import BOUNDARIES
    from llmpower.modelling.rows.measurements import load_measurements
    from llmpower.modelling.screening import Finding, Screening, screen
    from llmpower.modelling.updating import update
    from llmpower.modelling.variance import Anova, anova

_PUBLIC = {
    "BOUNDARIES": "rows.boundary",
    "FORMS": "forms",
    "FORM_NAMES": "forms",
    "Alternative": "fitted.models",
    "Anova": "variance",
    "Finding": "screening",
    "Fit": "fitted.models",
    "Form": "forms",
    "HeldOut": "fitted.models",
    "ModelPrediction": "fitted.prediction",
    "Prediction": "fitted.prediction",
    "PredictionWarning": "fitted.prediction",
    "Screening": "screening",
    "WorkloadModel": "fitted.models",
    "anova": "variance",
    "dump_models": "fitted.document",
    "fit": "fitting",
    "load_measurements": "rows.measurements",
    "load_models": "fitted.document",
    "predict": "fitted.prediction",
    "save_models": "fitted.document",
    "screen": "screening",
    "update": "updating",
}

__all__ = [
    "BOUNDARIES",
    "FORMS",
    "FORM_NAMES",
    "Alternative",
    "Anova",
    "Finding",
    "Fit",
    "Form",
    "HeldOut",
    "ModelPrediction",
    "Prediction",
    "PredictionWarning",
    "Screening",
    "WorkloadModel",
    "anova",
    "dump_models",
    "fit",
    "load_measurements",
    "load_models",
    "predict",
    "save_models",
    "screen",
    "update",
]


def __getattr__(name: str) -> object:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
