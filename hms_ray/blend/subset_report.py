"""Which models the blend needs, where that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hms_ray.blend.align import Aligned, Member
from hms_ray.blend.column_names import FILE_SUFFIXES, read_table
from hms_ray.blend.settings import Settings
from hms_ray.competition.tables import numbers, written
from hms_ray.config.space import Objective
from hms_ray.ensemble.error_correlation import residual_correlation
from hms_ray.ensemble.methods.base import tier_weights
from hms_ray.ensemble.model_subsets import SubsetSearch
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array
from hms_ray.report.subset_table import (
    correlation_table,
    leave_one_out_table,
    path_table,
    sets_table,
)
from hms_ray.report.tables import Table

AUTO = "auto"

_MOST_NAMES = 50
"""Characters of all names that a table of sets has room for; longer ones are numbered."""

_CHOSEN = (
    "Sets are chosen on the rows that they are scored on, so their nested figures (weights fitted "
    "on other patients, one splitting into {}) are optimistic by what choosing gains."
)


def asked_costs(members: Sequence[Member], settings: Settings) -> Array | None:
    """The (M,) costs that sets are to be weighed by, if any.

    What sets need is looked at here, before anything is fitted.

    Raises:
        PredictionError: where costs are not there or are none, one model is alone, or the
            tolerance is no number of at least 0.
    """
    if settings.sets:
        if len(members) < 2:
            raise PredictionError("--subsets needs two models at least", got=members[0].name)
        if not 0 <= settings.tolerance < np.inf:
            raise PredictionError(
                "a tolerance must be a finite number of at least 0", got=f"{settings.tolerance:g}"
            )
    return None if settings.cost is None else costs_of(members, settings.cost)


def describe_sets(
    members: Sequence[Member],
    data: Aligned,
    fit_on: Objective,
    settings: Settings,
    costs: Array | None = None,
) -> tuple[list[str | Table], dict[str, Any] | None]:
    """Texts and plain data of what was asked for; neither where nothing was.

    Args:
        members: the models.
        data: rows and predictions.
        fit_on: objective whose rows count.
        settings: of the command.
        costs: as of ``asked_costs``.
    """
    if not settings.sets and costs is None:
        return [], None
    names = [member.name for member in members]
    asked = SubsetSearch.from_arrays(
        data.targets,
        data.probabilities,
        data.patients,
        tier_weights(data.votes, fit_on),
        n_splits=settings.n_splits,
        seed=settings.seed,
    )
    labels, texts = _labels(names)
    texts.append(_CHOSEN.format(asked.n_splits))
    told: dict[str, Any] = {
        "models": names,
        "chosen_on_the_scored_rows": True,
        "splits": asked.n_splits,
        "seed": asked.seed,
    }
    if settings.sets:
        more, plain = _needed(asked, settings.tolerance, names, labels)
        texts, told = texts + more, told | plain
    if costs is not None:
        front = asked.cost_front(costs)
        unit = (
            "minutes of training"
            if settings.cost == AUTO
            else f"as {Path(str(settings.cost)).name} has it"
        )
        title = f"KL against cost ({unit}): no set is both cheaper and better."
        texts.append(sets_table(title, front, labels, costs=True))
        told["cost_front"] = [step.to_json() for step in front]
    return texts, told


def _labels(names: Sequence[str]) -> tuple[list[str], list[str | Table]]:
    """What models are called in sets, and a text that explains numbers."""
    if len(" + ".join(names)) <= _MOST_NAMES:
        return list(names), []
    labels = [str(number + 1) for number in range(len(names))]
    lines = [f"{label} = {name}" for label, name in zip(labels, names, strict=True)]
    return labels, ["\n".join(["In sets of models:", *lines])]


def _needed(
    asked: SubsetSearch, tolerance: float, names: Sequence[str], labels: Sequence[str]
) -> tuple[list[str | Table], dict[str, Any]]:
    """Leave-one-out, the forward path and a smallest subset."""
    results, path, smallest = asked.leave_one_out(), asked.forward_path(), asked.minimal(tolerance)
    rows = asked.rows
    correlation = residual_correlation(rows.targets, rows.models, rows.weights)
    size = "a smallest set" if smallest.proven else "the smallest set found"
    title = f"Within {tolerance:g} nats of all models, in sample: {size}."
    texts: list[str | Table] = [
        leave_one_out_table(results, names),
        correlation_table(correlation, names, labels),
        path_table(path, names),
        sets_table(title, [smallest], labels, costs=False),
    ]
    return texts, {
        "leave_one_out": [result.to_json() for result in results],
        "residual_correlation": correlation.tolist(),
        "forward_path": [step.to_json() for step in path],
        "minimal": {"tolerance": tolerance, **smallest.to_json()},
    }


def costs_of(members: Sequence[Member], cost: str) -> Array:
    """The (M,) costs: training minutes of the folds, or a file's column ``cost``.

    Raises:
        PredictionError: naming the models that have no cost, and for a file that is none
            of costs.
    """
    if cost == AUTO:
        known = {member.name: member.minutes for member in members}
        fix = "Give a CSV file with the columns model and cost instead of auto."
    else:
        known = _costs_in(cost)
        fix = f"Add them to {Path(cost).name}."
    costs = np.array([known.get(member.name) for member in members], np.float64)
    missing = [members[number].name for number in np.flatnonzero(np.isnan(costs)).tolist()]
    if missing:
        raise PredictionError(
            "every model needs a cost", got=f"none for {', '.join(missing)}", fix=fix
        )
    return costs


def _costs_in(file: str) -> dict[str, float | None]:
    """Model -> cost of a file.

    Raises:
        PredictionError: where it is no such file, names a model twice, or has a cost that
            is not above 0.
    """
    if Path(file).suffix not in FILE_SUFFIXES:
        raise PredictionError(
            f"--cost must be {AUTO} or a file that ends in {' or '.join(FILE_SUFFIXES)}", got=file
        )
    table = read_table(file, "model")
    if not {"model", "cost"} <= set(table):
        raise PredictionError(
            "a file of costs must have the columns model and cost",
            got=", ".join(map(str, table.columns)),
            where=file,
        )
    names = table["model"].astype(str)
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise PredictionError(
            "a model must have one cost", got=f"several for {', '.join(twice)}", where=file
        )
    costs, _ = numbers(table["cost"])
    wrong = ~((costs > 0) & (costs < np.inf)) & table["cost"].notna().to_numpy(bool)
    if wrong.any():
        first = int(np.argmax(wrong))
        raise PredictionError(
            "costs must be finite numbers above 0",
            got=f"{written(table['cost'].iloc[first])} for {names.iloc[first]}",
            where=file,
        )
    return dict(zip(names, costs.tolist(), strict=True))
