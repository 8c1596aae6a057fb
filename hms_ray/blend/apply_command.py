"""What the command line still calls: ``submit_blend`` with a ``Place``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hms_ray.blend.submit import submit_blend
from hms_ray.predict.command import Place
from hms_ray.predict.submit_trial import SubmitOptions


def apply_to_file(
    file: Path, place: Place, out: Path | None = None, predictions: Sequence[str] = ()
) -> str:
    """See ``submit_blend``."""
    return submit_blend(file, SubmitOptions(**vars(place), out=out, predictions=predictions))
