"""Plotly figures of the frames of ``frames``: for the report, and for notebooks.

Lines and bars differ in dash, marker or pattern too, so that no figure needs colour. Colours are
those of Okabe and Ito (2008), which people with colour blindness can tell apart; text, axes and
background are left to the page. Plotly comes with the extra ``report``.
"""

from hms_ray.report.prediction_figures import (
    confusion,
    discrimination,
    error_correlation,
    kl_parts,
    reliability,
)
from hms_ray.report.run_figures import blend_weights, cost
from hms_ray.report.trial_figures import all_curves, curves, fold_curves, parallel, progress

__all__ = [
    "all_curves",
    "blend_weights",
    "confusion",
    "cost",
    "curves",
    "discrimination",
    "error_correlation",
    "fold_curves",
    "kl_parts",
    "parallel",
    "progress",
    "reliability",
]
