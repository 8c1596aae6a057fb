"""A study as data frames, for its report and for notebooks.

Each function takes a study by its name below ``results``, by its path, or as ``StudyData``, and
returns a frame with one row per line of what it shows; an empty frame if there is nothing to
show. ``figures`` draws them.
"""

from hms_ray.report.prediction_frames import (
    confusion,
    discrimination,
    error_correlation,
    kl_parts,
    models,
    reliability,
)
from hms_ray.report.run_frames import blend_weights, cost, faults
from hms_ray.report.trial_frames import curves, progress, trials

__all__ = [
    "blend_weights",
    "confusion",
    "cost",
    "curves",
    "discrimination",
    "error_correlation",
    "faults",
    "kl_parts",
    "models",
    "progress",
    "reliability",
    "trials",
]
