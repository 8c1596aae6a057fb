"""Models that are blended in a study with a hold-out must not have seen its patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hms_ray.blend.align import Member
from hms_ray.errors import PredictionError
from hms_ray.study.folder import StudyFolder
from hms_ray.text import shortened_list


def require_unseen(members: Sequence[Member], targets: str | None, results: str | Path) -> None:
    """Checks that no model was, or may have been, trained on held-out patients.

    Args:
        members: models to blend.
        targets: study, ladder or file of the votes, if given.
        results: folder of studies, ladders and the fold store.

    Raises:
        PredictionError: if a study among members and targets has a hold-out, and a model comes
            from a file, whose training rows are unknown, or has rows of held-out patients.
    """
    names = [*(member.origin.get("study") for member in members), targets]
    for name in dict.fromkeys(filter(None, names)):
        study = StudyFolder.find(name, results)
        rows = None if study is None else study.held_out_rows()
        if study is None or rows is None:
            continue
        files = [member.name for member in members if "file" in member.origin]
        if files:
            raise PredictionError(
                "files cannot be blended in a study with a hold-out: their models may have been "
                "trained on its patients",
                got=shortened_list(files),
                where=study.path,
                fix="Blend the study's own trials, or a study without data.holdout.",
            )
        held_out = set(rows["eeg_id"].astype(str))
        # A row id begins with its EEG.
        seen = [
            member.name
            for member in members
            if not held_out.isdisjoint(member.ids.str.split("-").str[0])
        ]
        if seen:
            raise PredictionError(
                "models blended in a study with a hold-out must not have seen its patients",
                got=shortened_list(seen),
                where=study.path,
                fix="Blend models of studies with the same data.holdout and data.holdout_seed.",
            )
