"""Which rows a stage trains on, and which ones choose its best evaluation; without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from hms_ray.config.row_targets import EXPERT_VOTES
from hms_ray.config.training import ResolvedStage
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES

Votes = NDArray[np.int64]
Targets = NDArray[np.float64]


def check_stages(
    stages: Iterable[ResolvedStage], total_votes: Votes, targets: Targets, folds: Votes
) -> None:
    """Checks that stages have the rows that they need in every fold; needs labels only.

    Args:
        stages: of one experiment or of several.
        total_votes: (n,) votes of a study's rows.
        targets: (n, 6) shares of votes, sum 1.
        folds: (n,) validation fold of each row.

    Raises:
        ConfigError: if a stage has no training rows in a fold, or no validation rows that can
            choose its best evaluation.
    """
    seen = set()
    for stage in stages:
        needs = stage.rows, stage.threshold, stage.unanimous_from, stage.criterion
        if needs in seen:
            continue
        seen.add(needs)
        for fold in np.unique(folds).tolist():
            valid = folds == fold
            training_rows(stage, total_votes[~valid], targets[~valid], fold)
            criterion_rows(stage, total_votes[valid], targets[valid], fold)


def check_expert_head(
    stages: Sequence[ResolvedStage], total_votes: Votes, targets: Targets, folds: Votes
) -> None:
    """Checks that the head that predicts is trained in every fold; needs labels only.

    Args:
        stages: of an experiment with a head per tier.
        total_votes: (n,) votes of a study's rows.
        targets: (n, 6) shares of votes, sum 1.
        folds: (n,) validation fold of each row.

    Raises:
        ConfigError: if no stage has a training row with as many votes in some fold.
    """
    trained = np.any([belongs_to(stage, total_votes, targets) for stage in stages], axis=0)
    for fold in np.unique(folds).tolist():
        votes = total_votes[trained & (folds != fold)]
        if votes.max(initial=0) < EXPERT_VOTES:
            raise ConfigError(
                f"model.head: per_tier needs training rows with >= {EXPERT_VOTES} votes, whose "
                "head predicts",
                got=f"at most {votes.max(initial=0)} votes",
                where=f"fold {fold}, all stages",
                fix="Add a stage that trains on them, or set model.head: one.",
            )


def training_rows(
    stage: ResolvedStage, total_votes: Votes, targets: Targets, fold: int
) -> NDArray[np.int64]:
    """Positions of the rows that a stage trains on, ascending.

    Args:
        stage: see ``belongs_to``.
        total_votes: (n,) votes of the fold's training rows.
        targets: (n, 6) shares of votes, sum 1.
        fold: for the message.

    Raises:
        ConfigError: if there is none.
    """
    rows = np.flatnonzero(belongs_to(stage, total_votes, targets))
    if not len(rows):
        raise _no_rows("a stage needs training rows", stage, total_votes, fold)
    return rows


def criterion_rows(
    stage: ResolvedStage, total_votes: Votes, targets: Targets, fold: int
) -> NDArray[np.int64]:
    """Positions of the validation rows whose KL chooses the best evaluation of a stage.

    Args:
        stage: its ``criterion`` selects its own rows, or those of an objective.
        total_votes: (n,) votes of the fold's validation rows.
        targets: (n, 6) shares of votes, sum 1.
        fold: for the message.

    Returns:
        Ascending; none if the stage ends with its last evaluation.

    Raises:
        ConfigError: if the stage ends with its best evaluation and no row can choose it.
    """
    if stage.criterion is None:
        return np.empty(0, dtype=np.int64)
    if stage.criterion == "stage_rows":
        rule = "a stage needs validation rows of its own to choose its best evaluation"
        rows = np.flatnonzero(belongs_to(stage, total_votes, targets))
    else:
        name = SCORE_NAMES[stage.criterion]
        rule = f"{name} needs validation rows to choose the best evaluation of a stage"
        rows = np.flatnonzero(total_votes >= OBJECTIVES[stage.criterion])
    if not len(rows):
        raise _no_rows(rule, stage, total_votes, fold)
    return rows


def belongs_to(stage: ResolvedStage, total_votes: Votes, targets: Targets) -> NDArray[np.bool_]:
    """Whether rows belong to a stage.

    A row is *good* if it has at least ``threshold`` votes or, with ``unanimous_from``, at
    least that many and all for one class.

    Args:
        stage: of ``all`` rows, the good ones (``at_least_threshold``) or the others
            (``below_threshold``).
        total_votes: (n,) votes of each row.
        targets: (n, 6) shares of votes, sum 1.

    Returns:
        (n,) bool.
    """
    if stage.rows == "all":
        return np.ones(len(total_votes), dtype=bool)
    good = good_rows(stage.threshold or 0, stage.unanimous_from, total_votes, targets)
    return good if stage.rows == "at_least_threshold" else ~good


def good_rows(
    threshold: int, unanimous_from: int | None, total_votes: Votes, targets: Targets
) -> NDArray[np.bool_]:
    """Whether rows are good ones; see ``belongs_to``."""
    good: NDArray[np.bool_] = total_votes >= threshold
    if unanimous_from is not None:
        good = good | ((total_votes >= unanimous_from) & (targets.max(axis=1) == 1))
    return good


def _no_rows(rule: str, stage: ResolvedStage, total_votes: Votes, fold: int) -> ConfigError:
    chosen, knobs = f"{stage.rows} {stage.threshold or ''}".rstrip(), ["training.stage_threshold"]
    if stage.unanimous_from is not None:
        chosen += f", unanimous ones from {stage.unanimous_from}"
        knobs.append("training.unanimous_from")
    if stage.checkpoint == "best":
        knobs.append("training.checkpoint_criterion")
    span = f"{total_votes.min()}-{total_votes.max()} votes" if len(total_votes) else "no rows"
    return ConfigError(
        f"{rule} (stage: {chosen})",
        got=f"none among {len(total_votes)} rows of {span}" if len(total_votes) else span,
        where=f"fold {fold}, stage {stage.name}",
        fix=f"Change {', '.join(knobs)} or the stage's rows, or use fewer folds.",
    )
