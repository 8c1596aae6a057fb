"""Members of a blend from its inputs: studies, trials, ladders, stored folds, files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hms_ray.blend.align import Member, as_targets
from hms_ray.blend.column_names import ColumnNames
from hms_ray.blend.external_files import Targets, read_external_predictions, read_targets
from hms_ray.blend.ladder_members import steps_of, targets_of_ladder
from hms_ray.competition.rows import Unit
from hms_ray.competition.tables import Columns, is_table_file
from hms_ray.errors import PredictionError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.predict.trial import one_experiment
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.confirmation import confirming_runs
from hms_ray.study.folder import StudyFolder
from hms_ray.study.seeds import SEEDS, SeedRuns, seed_runs, without_seeds
from hms_ray.text import shortened_list

_KEYS: Final = re.compile(r"[0-9a-f]{64}(,[0-9a-f]{64})*")
_ONE_MODEL: Final = "Give the cache keys of one model's folds only, joined by commas."


def read_members(
    inputs: Sequence[str | Path],
    results: str | Path = "results",
    columns: ColumnNames | None = None,
    row_unit: Unit | None = None,
    *,
    renormalise: bool = False,
) -> list[Member]:
    """The models of the inputs, in their order; trials of a study best first.

    If a study or ladder is the only input, members are named by trial or step; otherwise
    the name of the study or ladder comes before it.

    Args:
        inputs: a study's name or path (its finished trials); ``STUDY/0003``; both also with
            ``@seeds``: each trial as the mean of its training seeds; a ladder's name or path (its
            trained steps); ``LADDER/STEP``; cache keys of one model's folds, joined by commas; a
            CSV or parquet file.
        results: folder of studies, ladders and the fold store.
        columns: names of columns in files that the user gave.
        row_unit: unit of the row ids of files that do not state it.
        renormalise: divide rows of files by their sums, if these are off by rounding.

    Raises:
        StudyError: if an input does not exist or is damaged.
        PredictionError: if a file does not hold predictions, or a model is given twice.
    """
    place, names = Path(results), columns or ColumnNames()
    names.require_known([text for text in inputs if is_table_file(text)], "--columns")
    found: list[Member] = []
    for text in map(str, inputs):
        if is_table_file(text):
            found.append(_file(text, names.of(text), row_unit, renormalise))
        else:
            found += _read(text, place)
    if len(inputs) == 1 and "file" not in found[0].origin:
        found = [replace(member, name=member.name.rpartition("/")[2]) for member in found]
    stems = Counter(member.name for member in found)
    # Files with the same name in two folders are named by their paths.
    found = [
        replace(member, name=member.origin["file"])
        if stems[member.name] > 1 and "file" in member.origin
        else member
        for member in found
    ]
    twice = [name for name, n in Counter(member.name for member in found).items() if n > 1]
    if twice:
        raise PredictionError(
            "a model must be given once",
            got=f"{', '.join(twice)} twice",
            fix="Remove it from the inputs.",
        )
    return found


def targets_of(
    members: Sequence[Member],
    source: str | None = None,
    results: str | Path = "results",
    columns: ColumnNames | None = None,
    row_unit: Unit | None = None,
    *,
    renormalise: bool = False,
) -> Targets:
    """The rows with their votes.

    Args:
        members: at least one.
        source: a study, a ladder, or a CSV or parquet file; default: the first member that
            has targets.
        results: see ``read_members``.
        columns: names of columns in the file of targets that the user gave.
        row_unit: see ``read_members``.
        renormalise: see ``read_members``.

    Raises:
        PredictionError: if no source is given and no member has targets.
    """
    if source is not None:
        if is_table_file(source):
            names = columns or ColumnNames()
            names.require_known([source], "--target-columns")
            return read_targets(source, names.of(source), row_unit, renormalise=renormalise)
        study = StudyFolder.find(source, results)
        if study is not None:
            return _targets(study)
        return targets_of_ladder(Path(source), Path(results))
    for member in members:
        if member.targets is not None:
            return member.targets
    raise PredictionError(
        "files and cache keys need targets",
        got="none",
        fix="Give a study, a ladder or a file with --targets.",
    )


def with_families(members: Sequence[Member], families: Sequence[str]) -> list[Member]:
    """Members with families assigned by patterns such as ``raw=raw_eeg_*``; others keep theirs.

    Raises:
        PredictionError: if there is no ``=``, or a pattern matches no model.
    """
    changed = list(members)
    for text in families:
        family, equals, pattern = text.partition("=")
        fits = [n for n, member in enumerate(members) if fnmatchcase(member.name, pattern)]
        if not equals or not family or not fits:
            raise PredictionError(
                "a family must be given as FAMILY=PATTERN, with a pattern that matches a model",
                got=text,
                fix=f"The models are {shortened_list([m.name for m in members])}.",
            )
        for number in fits:
            changed[number] = replace(changed[number], family=family)
    return changed


def without_copies(
    members: Sequence[Member], *, drop: bool
) -> tuple[list[Member], tuple[str, ...]]:
    """Finds models with identical predictions of the same rows, in any order of the rows.

    Args:
        members: of a blend.
        drop: keep only the first of identical ones.

    Returns:
        The members to use, and one line about each set of identical ones.
    """
    groups: dict[str, list[Member]] = {}
    for member in members:
        order = np.argsort(member.ids.to_numpy(str), kind="stable")
        content = hashlib.sha256("\0".join(member.ids[order]).encode())
        content.update(np.ascontiguousarray(member.probabilities[order], np.float64).tobytes())
        groups.setdefault(content.hexdigest(), []).append(member)
    done = "counted once" if drop else "each counted; count them once with --drop-identical"
    lines = tuple(
        f"Identical predictions, {done}: {', '.join(member.name for member in same)}."
        for same in groups.values()
        if len(same) > 1
    )
    return ([same[0] for same in groups.values()] if drop else list(members)), lines


def _file(text: str, columns: Columns, row_unit: Unit | None, renormalise: bool) -> Member:
    """A file of predictions; the names of its columns are kept for the files of a submission."""
    found = read_external_predictions(text, columns, row_unit, renormalise=renormalise)
    return Member(
        Path(text).stem,
        found.ids,
        found.keys,
        found.probabilities,
        {"file": text, **({"columns": dict(columns)} if columns else {})},
        "files",
        found.optimistic,
        renormalised=found.renormalised,
    )


def _read(text: str, results: Path) -> list[Member]:
    if _KEYS.fullmatch(text):
        return [_stored(text.split(","), FoldStore(results))]
    text, seeds = without_seeds(text)
    path = Path(text)
    study = StudyFolder.find(path, results)
    if study is not None:
        finished = study.require_finished()
        if seeds:
            further = confirming_runs(study)
            return _trials(
                study,
                [SeedRuns((one, *further.get(one.number, {}).values())) for one in finished],
                results,
            )
        return _trials(study, [SeedRuns((trial,)) for trial in finished], results)
    study = StudyFolder.find(path.parent, results) if path.name.isdigit() else None
    if study is not None:
        number = int(path.name)
        own = SeedRuns((study.finished_trial(number),))
        return _trials(study, [seed_runs(study, number) if seeds else own], results)
    return steps_of(path, results)


def _targets(study: StudyFolder) -> Targets:
    return as_targets(study.rows(), study.row_unit, study.name, study.objective)


def _trials(study: StudyFolder, trials: Sequence[SeedRuns], results: Path) -> list[Member]:
    targets, rows = _targets(study), study.rows()
    below = (results / study.name).resolve() == study.path.resolve()
    return [
        Member(
            name=f"{study.name}/{trial.number:04d}{SEEDS * (len(trial.runs) > 1)}",
            ids=pd.Index(rows["row_id"].astype(str)),
            keys=targets.keys,
            probabilities=trial.probabilities(rows),
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
    """One model from its stored folds; its rows are those that the folds predict."""
    folds = [store.read(key) for key in keys]
    table = pd.concat([fold.oof for fold in folds], ignore_index=True)
    ids = pd.Index(table["row_id"].astype(str))
    if ids.has_duplicates:
        raise PredictionError(
            "folds of one model must not share rows",
            got=f"{int(ids.duplicated().sum())} row(s) predicted twice",
            where=shortened_list([key[:12] for key in keys], 1),
            fix=_ONE_MODEL,
        )
    numbers = [int(fold.oof["fold"].iloc[0]) for fold in folds]
    if len(set(numbers)) < len(numbers):
        # blend.json keeps one cache key per fold number.
        raise PredictionError(
            "folds of one model must have different numbers",
            got=", ".join(map(str, numbers)),
            where=shortened_list([key[:12] for key in keys], 1),
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
        minutes=sum(fold.minutes for fold in folds),
    )
