"""Fold models of a trial, read from the fold store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

import numpy as np
from pydantic import ValidationError

from hms_ray.config.experiment import Experiment
from hms_ray.config.former_names import with_new_names
from hms_ray.config.import_path import INSTALL_FIX, is_import_path, source_sha256
from hms_ray.errors import ModelError, StudyError
from hms_ray.evaluate.metric import Array
from hms_ray.experiment.cache_key import NUMERICS_VERSION
from hms_ray.experiment.fold_task import REFIT
from hms_ray.storage.fold_store import (
    RECORD_FILE,
    FoldStore,
    StoredFold,
    StoredFoldError,
    damaged_fold,
)
from hms_ray.storage.fold_uses import how_to_train
from hms_ray.storage.hashing import digest
from hms_ray.study.identity import differences
from hms_ray.study.refit import find_refit
from hms_ray.text import counted, shortened_list

ModelChoice = Literal["folds", "refit", "both"]
"""The models of the folds; those of ``hms-ray refit``; or all of them, each counted once."""

_TRAIN_AGAIN: Final = "Run its study again under another name."


class FoldModel(Protocol):
    """The model of one fold: a ``StoredFold``, or one of an export."""

    @property
    def record(self) -> dict[str, Any]:
        """Plain data: ``precision``, ``normalisation``, and ``numerics`` in ``made_from``."""

    @property
    def weights(self) -> Path:
        """File with its weights, see ``load_weights``."""


@dataclass(frozen=True)
class TrialModels:
    """The fold models of one trial.

    Attributes:
        name: for messages.
        experiment: of the training, with its precision resolved.
        folds: fold -> its model; at least one. Models on all rows have the numbers after the
            last fold.
        trust_code: whether the user allows a model from elsewhere to run its code.
        n_refits: number of models on all rows.
        n_seeds: training seeds, each with models of all folds.
    """

    name: str
    experiment: Experiment
    folds: Mapping[int, FoldModel]
    trust_code: bool = False
    n_refits: int = 0
    n_seeds: int = 1

    def require_code(self) -> None:
        """Checks, without importing it, that the code of a model from elsewhere may run here.

        Raises:
            StudyError: if it is not trusted, or its source is missing or another one.
        """
        if is_import_path(name := self.experiment.model.name):
            _require_code(self, name)

    @property
    def text(self) -> str:
        """How many models there are, and of which kind."""
        n_folds = len(self.folds) - self.n_refits
        folds = [counted(n_folds // self.n_seeds, "fold")] if n_folds else []
        if n_folds and self.n_seeds > 1:
            folds = [f"{folds[0]} x {self.n_seeds} seeds"]
        refits = [f"{counted(self.n_refits, 'model')} on all rows"] if self.n_refits else []
        return " and ".join([*folds, *refits])

    def notes(self) -> tuple[str, ...]:
        """A warning for each other version of the numerics that trained the models."""
        found = {fold.record["made_from"].get("numerics") for fold in self.folds.values()}
        return tuple(
            f"{self.name}: trained with numerics version {number}, predicted with "
            f"{NUMERICS_VERSION}: predictions may differ from its out-of-fold ones"
            for number in sorted(found - {NUMERICS_VERSION}, key=str)
        )


def _require_code(models: TrialModels, name: str) -> None:
    if not models.trust_code:
        raise StudyError(
            "code of a stored model runs only if you trust it",
            got=f"the model {name}",
            where=models.name,
            fix="Read its source, then add --trust-code.",
        )
    trained = {fold.record["made_from"].get("model_source") for fold in models.folds.values()}
    try:
        here = source_sha256(name)
    except ModelError as error:
        raise StudyError(
            "the source of a stored model must be on this machine",
            got=str(error.got),
            where=f"{models.name}, {name}",
            fix=INSTALL_FIX,
        ) from None
    if trained != {here}:
        raise StudyError(
            "a stored model must be predicted with the source that it was trained with",
            got=f"SHA-256 {here[:12]} instead of {shortened_list([str(s)[:12] for s in trained])}",
            where=f"{models.name}, {name}",
            fix="Restore that source, or train again.",
        )


def read_models(
    name: str,
    keys: Mapping[int, str],
    results: str | Path,
    choice: ModelChoice = "folds",
    *,
    trust_code: bool = False,
) -> TrialModels:
    """The models of a trial; their checksums are checked.

    Args:
        name: for messages.
        keys: fold -> cache key.
        results: folder of the fold store.
        choice: which models.
        trust_code: see ``TrialModels``.

    Raises:
        StudyError: if there is no fold, one is missing, damaged or without weights, or their
            experiments differ; or if the trial has no models on all rows.
    """
    n_refits = 0
    if choice != "folds":
        refit = find_refit(results, keys.values(), name)
        refits = dict(enumerate(refit.keys.values(), start=max(keys) + 1))
        keys = refits if choice == "refit" else {**keys, **refits}
        n_refits = len(refits)
    if not keys:
        rule = "prediction needs at least one fold model"
        raise StudyError(rule, got="none", where=name, fix=_TRAIN_AGAIN)
    require_weights({name: keys}, results)
    store = FoldStore(results)
    folds = {fold: store.read(key) for fold, key in sorted(keys.items())}
    try:
        experiment = one_experiment(list(folds.values()), name, any_seed=True)
        return TrialModels(name, experiment, folds, trust_code, n_refits, _n_seeds(folds))
    except StoredFoldError as error:
        raise store.set_aside(Path(str(error.where)).name, str(error.got)) from None


def _n_seeds(folds: Mapping[int, StoredFold]) -> int:
    """Training seeds of the models of folds."""
    made_from = [fold.record["made_from"] for fold in folds.values()]
    seeds = {one["experiment"]["training"]["seed"] for one in made_from if REFIT not in one}
    return max(1, len(seeds))


def require_weights(
    members: Mapping[str, Mapping[int, str]], results: str | Path, fix: str = ""
) -> None:
    """Checks that the weights of all models are in the fold store.

    Args:
        members: name -> fold -> cache key.
        results: folder of the fold store.
        fix: another remedy.

    Raises:
        StudyError: naming every member whose weights were freed, and what trains it again. A
            missing result is not reported here.
    """
    store, lacking = FoldStore(results), {}
    for name, keys in members.items():
        freed = [f for f, key in keys.items() if store.has(key) and not store.has_weights(key)]
        if freed:
            lacking[name] = freed
    if not lacking:
        return
    commands = [
        how_to_train(Path(results), members[name][folds[0]]) for name, folds in lacking.items()
    ]
    raise StudyError(
        "fold models must have their weights",
        got="freed weights of "
        + "; ".join(f"{name} (fold {shortened_list(f)})" for name, f in lacking.items()),
        where=store.root,
        fix="; ".join(dict.fromkeys([*commands, *([fix] if fix else [])])),
    )


def mean_of_folds(by_fold: Mapping[int, Array]) -> Array:
    """The arithmetic mean of the predictions of fold models: fold -> (n, 6) float64."""
    total: Array = sum(by_fold.values(), np.zeros(()))
    return total / len(by_fold)


def one_experiment(
    folds: Sequence[StoredFold], name: str, fix: str = _TRAIN_AGAIN, *, any_seed: bool = False
) -> Experiment:
    """The experiment of the folds of one model.

    Args:
        folds: at least one.
        name: for messages.
        fix: remedy if their experiments differ.
        any_seed: their training seeds may differ.

    Raises:
        StudyError: if their experiments differ, or a record is damaged.
    """
    experiments = [_experiment(stored) for stored in folds]
    described = [stored.record["made_from"]["experiment"] for stored in folds]
    if any_seed:
        described = [_without_seed(one) for one in described]
    for stored, other in zip(folds, described, strict=True):
        if digest(other) != digest(described[0]):
            changed = shortened_list(differences(described[0], other), 3, "; ")
            raise StudyError(
                "folds of one model must have the same experiment",
                got=f"another in fold {stored.key[:12]} than in {folds[0].key[:12]}: {changed}",
                where=name,
                fix=fix,
            )
    return experiments[0]


def _without_seed(described: Mapping[str, Any]) -> dict[str, Any]:
    return {**described, "training": {**described["training"], "seed": None}}


def _experiment(stored: StoredFold) -> Experiment:
    """The experiment of a stored fold, whose record must have all that prediction needs."""
    record = stored.record
    expected = {"normalisation": dict, "precision": str, "resolved": dict}
    try:
        if not all(isinstance(record[name], kind) for name, kind in expected.items()):
            raise TypeError
        digest(record["made_from"]["experiment"])
    except (KeyError, TypeError):
        reason = f"{RECORD_FILE} lacks what prediction needs"
        raise damaged_fold(stored.weights.parent, reason) from None
    try:
        return Experiment.model_validate(with_new_names(record["resolved"]))
    except ValidationError as error:
        field = ".".join(map(str, error.errors()[0]["loc"]))
        raise StudyError(
            "a fold model must be of this version of hms_ray",
            got=f"one of another version, by its {field}",
            where=stored.weights.parent,
            fix=_TRAIN_AGAIN,
        ) from None
