"""``resources.keep_weights``: only the best trials of a study keep the weights of their folds."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hms_ray.config.space import Objective
from hms_ray.experiment.fold_task import stage_keys
from hms_ray.storage.fold_store import FoldStore, StoredFoldError
from hms_ray.storage.fold_uses import TRIAL_FILE, uses
from hms_ray.study.folder import TRIALS, StudyFolder
from hms_ray.study.trial import StoredTrial, best_first

logger = logging.getLogger(__name__)

FREE_EVERY: Final = 10
"""Ended trials after which weights are freed: who uses which fold is read from many files."""


class KeptWeights:
    """Frees the weights of the trials of a study that are not among its best.

    Trials that are not complete, such as pruned ones, come first; then the worst finished one.
    A fold that anything else uses keeps its weights: a blend, a reference of a study by blend
    gain, a ladder, another study. So do first stages that several trials share, since later
    trials resume from them.

    Args:
        folder: the study.
        results: folder of the fold store.
        n_best: number of finished trials that keep their weights.
        objective: score that orders the trials.
    """

    def __init__(
        self, folder: StudyFolder, results: Path, n_best: int, objective: Objective
    ) -> None:
        self._folder, self._results, self._n_best = folder, results, n_best
        self._objective = objective
        self._store = FoldStore(results)
        self._stages: dict[int, frozenset[str]] = {}
        self._shared: Counter[str] = Counter()
        self._done: set[int] = set()

    def free(self, trials: Sequence[StoredTrial]) -> int:
        """Frees weights; a trial that has lost its weights is not looked at again.

        Args:
            trials: all trials of the study that have ended.

        Returns:
            Number of bytes that were freed.
        """
        finished = best_first(trials, self._objective)
        best = finished[: self._n_best]
        ordered = [trial for trial in trials if not trial.finished]
        ordered += reversed(finished[self._n_best :])
        others = [trial for trial in ordered if trial.number not in self._done]
        if not others:
            return 0
        for trial in (*best, *others):
            self._add_stages(trial)
        needed = {key for trial in best for key in self._keys(trial)} | self._used_elsewhere()
        needed |= {key for key, n_trials in self._shared.items() if n_trials > 1}
        n_bytes = 0
        for trial in others:
            n_bytes += sum(map(self._store.free_weights, sorted(self._keys(trial) - needed)))
            self._done.add(trial.number)
        if n_bytes:
            logger.info("freed %.1f MB of weights of %d trials", n_bytes / 1e6, len(others))
        return n_bytes

    def _keys(self, trial: StoredTrial) -> set[str]:
        return {*trial.keys.values(), *self._stages[trial.number]}

    def _add_stages(self, trial: StoredTrial) -> None:
        if trial.number not in self._stages:
            self._stages[trial.number] = frozenset(self._stages_of(trial.keys.values()))
            self._shared.update(self._stages[trial.number])

    def _stages_of(self, keys: Iterable[str]) -> Iterable[str]:
        for key in keys:
            try:
                yield from stage_keys(self._store.record(key)["made_from"])
            except (StoredFoldError, KeyError, TypeError):
                # Its first stages stay, until hms-ray store --free.
                continue

    def _used_elsewhere(self) -> set[str]:
        """Keys that anything but the trials of this study uses."""
        own = Path(self._folder.name) / TRIALS
        return {
            key
            for key, files in uses(self._results).items()
            if any(file.name != TRIAL_FILE or file.parent.parent != own for file in files)
        }
