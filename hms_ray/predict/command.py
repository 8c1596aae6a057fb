"""What the command line still calls: ``submit_trial`` by the name of a study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hms_ray.predict.submit_trial import SubmitOptions, submit_trial
from hms_ray.study.folder import StudyFolder


@dataclass(frozen=True)
class Place:
    """Where models, recordings and packs are, and where models run (see ``SubmitOptions``)."""

    data_dir: Path
    results: Path = Path("results")
    pack_dir: Path | None = None
    device: str | None = None
    threads: int = 1


def predict_study(
    study: str | Path,
    number: int | None,
    place: Place,
    out: Path | None = None,
    *,
    train_rows: bool = False,
) -> str:
    """See ``submit_trial``."""
    folder = StudyFolder.open(study, place.results)
    options = SubmitOptions(**vars(place), out=out, train_rows=train_rows)
    return submit_trial(folder, number, options)
