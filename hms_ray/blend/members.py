"""What a blend is made of: studies, trials, ladders, folds of the store, files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import pandas as pd

from hms_ray.blend.align import Member, as_targets
from hms_ray.blend.column_names import FILE_SUFFIXES, Columns
from hms_ray.blend.external_files import Targets, read_predictions, read_targets
from hms_ray.blend.ladder_members import steps_of, targets_of_ladder
from hms_ray.competition.rows import Unit
from hms_ray.errors import PredictionError, StudyError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.predict.trial import one_experiment, rows_of_study
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.study.trial import StoredTrial

_KEYS: Final = re.compile(r"[0-9a-f]{64}(,[0-9a-f]{64})*")
_ONE_MODEL: Final = "Join by commas the keys of one model's folds only."


def read_members(
    words: Sequence[str],
    results: str | Path = "results",
    columns: Columns | None = None,
    row_unit: Unit | None = None,
) -> list[Member]:
    """The models that the words name, in their order; a study's trials best first.

    A study alone has its trials called by their numbers, a ladder alone its steps by
    their names; with other inputs beside them the study's or ladder's name comes first.

    Args:
        words: a study's name or path (its finished trials); ``STUDY/0003``; a ladder's
            name or path (its steps that are no blends); ``LADDER/STEP``; keys of the
            fold store, those of one model joined by commas; a CSV or parquet file.
        results: folder of studies, ladders and the store.
        columns: of files, our name -> theirs.
        row_unit: unit of the row ids of files that do not say it themselves.

    Raises:
        StudyError: where a word names nothing, or what it names is damaged.
        PredictionError: for files that are no predictions, and doubled models.
    """
    place, names = Path(results), columns or {}
    found = [member for word in words for member in _read(str(word), place, names, row_unit)]
    if len(words) == 1 and "file" not in found[0].origin:
        found = [replace(member, name=member.name.rpartition("/")[2]) for member in found]
    stems = Counter(member.name for member in found)
    # Files of the same name in two folders are told apart by their folders.
    found = [
        replace(member, name=member.origin["file"])
        if stems[member.name] > 1 and "file" in member.origin
        else member
        for member in found
    ]
    twice = [name for name, n in Counter(member.name for member in found).items() if n > 1]
    if twice:
        raise PredictionError("a model must be given once", got=f"{', '.join(twice)} twice")
    return found


def targets_of(
    members: Sequence[Member],
    word: str | None = None,
    results: str | Path = "results",
    columns: Columns | None = None,
    row_unit: Unit | None = None,
) -> Targets:
    """The targets that are named, or those of the first member that knows them.

    Args:
        members: at least one.
        word: a study, a ladder, or a CSV or parquet file.
        results: as ``read_members``.
        columns: of a file of targets, our name -> theirs.
        row_unit: as ``read_members``.

    Raises:
        PredictionError: where none are named and no member knows them.
    """
    if word is not None:
        if Path(word).suffix in FILE_SUFFIXES:
            return read_targets(word, columns or {}, row_unit)
        study = StudyFolder.find(word, results)
        return targets_of_ladder(Path(word), Path(results)) if study is None else _targets(study)
    for member in members:
        if member.targets is not None:
            return member.targets
    raise PredictionError(
        "files and fold keys need targets",
        got="none",
        fix="Name a study or a file of targets with --targets.",
    )


def with_families(members: Sequence[Member], words: Sequence[str]) -> list[Member]:
    """Members with families as words such as ``raw=raw_eeg_*`` say; others keep theirs.

    Raises:
        PredictionError: for a word without ``=``, and a pattern that fits no model.
    """
    changed = list(members)
    for word in words:
        family, equals, pattern = word.partition("=")
        fits = [n for n, member in enumerate(members) if fnmatchcase(member.name, pattern)]
        if not equals or not family or not fits:
            raise PredictionError(
                "a family is given as FAMILY=PATTERN, the pattern fitting at least one model",
                got=word,
                fix=f"The models are {', '.join(member.name for member in members)}.",
            )
        for number in fits:
            changed[number] = replace(changed[number], family=family)
    return changed


def _read(word: str, results: Path, columns: Columns, row_unit: Unit | None) -> list[Member]:
    path = Path(word)
    if path.suffix in FILE_SUFFIXES:
        ids, keys, probabilities, optimistic = read_predictions(path, columns, row_unit)
        origin = {"file": word}
        return [Member(path.stem, ids, keys, probabilities, origin, "files", optimistic)]
    if _KEYS.fullmatch(word):
        return [_stored(word.split(","), FoldStore(results))]
    study = StudyFolder.find(path, results)
    if study is not None:
        trials = study.finished_trials()
        if not trials:
            raise StudyError(
                "a blend needs at least one finished trial", got="none", where=study.path
            )
        return _trials(study, trials, results)
    study = StudyFolder.find(path.parent, results) if path.name.isdigit() else None
    if study is not None:
        trial = study.trial(int(path.name))
        if trial is None or not trial.finished:
            raise StudyError(
                "a trial must have finished before it is blended",
                got=f"trial {int(path.name):04d} "
                + ("is not there" if trial is None else f"failed: {trial.reason}"),
                where=study.path,
                fix="Finished, best first: "
                + (", ".join(f"{one.number:04d}" for one in study.finished_trials()) or "none")
                + ".",
            )
        return _trials(study, [trial], results)
    return steps_of(path, results)


def _targets(study: StudyFolder) -> Targets:
    space = study.space()
    return as_targets(
        rows_of_study(study), space.experiment.data.unit, study.name, space.study.objective
    )


def _trials(study: StudyFolder, trials: Sequence[StoredTrial], results: Path) -> list[Member]:
    targets, rows = _targets(study), rows_of_study(study)
    below = (results / study.name).resolve() == study.path.resolve()
    return [
        Member(
            name=f"{study.name}/{trial.number:04d}",
            ids=pd.Index(rows["row_id"].astype(str)),
            keys=targets.keys,
            probabilities=probabilities_of(trial.oof(rows)),
            origin={
                "study": study.name if below else str(study.path),
                "trial": trial.number,
                "keys": {str(fold): key for fold, key in sorted(trial.keys.items())},
            },
            family=study.name,
            optimistic=trial.optimistic,
            minutes=trial.fold_minutes,
            targets=targets,
        )
        for trial in trials
    ]


def _stored(keys: Sequence[str], store: FoldStore) -> Member:
    """One model from its folds; its rows are those that its folds predict."""
    folds = [store.read(key) for key in keys]
    table = pd.concat([fold.oof for fold in folds], ignore_index=True)
    ids = pd.Index(table["row_id"].astype(str))
    if ids.has_duplicates:
        raise PredictionError(
            "folds of one model must not share rows",
            got=f"{int(ids.duplicated().sum())} row(s) predicted twice",
            where=f"{keys[0][:12]} and {len(keys) - 1} more",
            fix=_ONE_MODEL,
        )
    numbers = [int(fold.oof["fold"].iloc[0]) for fold in folds]
    if len(set(numbers)) < len(numbers):
        # The blend's file finds models by their folds' numbers, and would lose some.
        raise PredictionError(
            "folds of one model must have different numbers",
            got=", ".join(map(str, numbers)),
            where=f"{keys[0][:12]} and {len(keys) - 1} more",
            fix=_ONE_MODEL,
        )
    name = f"folds {keys[0][:12]}"
    experiment = one_experiment(folds, name, _ONE_MODEL)
    origin = {str(number): fold.key for number, fold in zip(numbers, folds, strict=True)}
    return Member(
        name,
        ids,
        experiment.data.unit,
        probabilities_of(table),
        {"keys": origin},
        "folds",
        optimistic=any(fold.record.get("optimistic", False) for fold in folds),
        minutes=None
        if any("seconds" not in fold.record for fold in folds)
        else sum(fold.minutes for fold in folds),
    )
