"""Report on subsets of models: which are needed, and KL against cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hms_ray.blend.align import Aligned, Member
from hms_ray.blend.settings import AUTO, Settings
from hms_ray.competition.cells import numbers, texts
from hms_ray.competition.tables import TABLE_SUFFIXES, is_table_file, read_table
from hms_ray.config.space import Objective
from hms_ray.display.subset_table import (
    correlation_table,
    leave_one_out_table,
    path_table,
    sets_table,
)
from hms_ray.display.tables import Table
from hms_ray.ensemble.error_correlation import residual_correlation
from hms_ray.ensemble.methods.base import tier_weights
from hms_ray.ensemble.model_subsets import SubsetSearch
from hms_ray.errors import PredictionError
from hms_ray.evaluate.metric import Array

_MAX_NAMES = 50
"""Characters of all names that fit a table of subsets; longer ones are numbered."""

_OPTIMISTIC = (
    "Subsets are chosen on the rows that they are scored on, so their nested KL (weights fitted "
    "on other patients, one split into {} groups) is optimistic."
)


def requested_costs(members: Sequence[Member], settings: Settings) -> Array | None:
    """Checks the settings of subsets before anything is fitted; returns the (M,) costs, if any.

    Raises:
        PredictionError: if a cost is missing or invalid, there is only one model, or the
            tolerance is below 0 or not finite.
    """
    if settings.subsets:
        if len(members) < 2:
            raise PredictionError(
                "--subsets needs at least two models",
                got=members[0].name,
                fix="Add inputs, or omit --subsets.",
            )
        if not 0 <= settings.tolerance < np.inf:
            raise PredictionError(
                "--tolerance must be a finite number of at least 0", got=f"{settings.tolerance:g}"
            )
    return None if settings.cost is None else costs_of(members, settings.cost)


def describe_subsets(
    members: Sequence[Member],
    data: Aligned,
    fit_on: Objective,
    settings: Settings,
    costs: Array | None = None,
) -> tuple[list[str | Table], dict[str, Any] | None]:
    """Texts and plain data of the requested reports; empty and None if none was requested.

    Weights are fitted and scored on the rows of the objective ``fit_on``; ``costs`` are those
    of ``requested_costs``.
    """
    if not settings.subsets and costs is None:
        return [], None
    names = [member.name for member in members]
    search = SubsetSearch.from_arrays(
        data.targets,
        data.probabilities,
        data.patients,
        tier_weights(data.votes, fit_on),
        n_splits=settings.n_splits,
        seed=settings.seed,
    )
    labels, texts = _labels(names)
    texts.append(_OPTIMISTIC.format(search.n_splits))
    content: dict[str, Any] = {
        "models": names,
        "chosen_on_the_scored_rows": True,
        "splits": search.n_splits,
        "seed": search.seed,
    }
    if settings.subsets:
        more, plain = _needed(search, settings.tolerance, names, labels)
        texts, content = texts + more, content | plain
    if costs is not None:
        front = search.cost_front(costs)
        unit = (
            "minutes of training"
            if settings.cost == AUTO
            else f"from {Path(str(settings.cost)).name}"
        )
        title = f"KL against cost ({unit}): no subset is both cheaper and better."
        texts.append(sets_table(title, front, labels, costs=True))
        content["cost_front"] = [step.to_json() for step in front]
    return texts, content


def _labels(names: Sequence[str]) -> tuple[list[str], list[str | Table]]:
    """Labels of models in subsets, and a legend if they are numbers."""
    if len(" + ".join(names)) <= _MAX_NAMES:
        return list(names), []
    labels = [str(number + 1) for number in range(len(names))]
    lines = [f"{label} = {name}" for label, name in zip(labels, names, strict=True)]
    return labels, ["\n".join(["In subsets of models:", *lines])]


def _needed(
    search: SubsetSearch, tolerance: float, names: Sequence[str], labels: Sequence[str]
) -> tuple[list[str | Table], dict[str, Any]]:
    """Leave-one-out scores, the forward path and the smallest subset."""
    results, path = search.leave_one_out(), search.forward_path()
    smallest, rows = search.minimal(tolerance), search.rows
    correlation = residual_correlation(rows.targets, rows.models, rows.weights)
    size = "Smallest subset" if smallest.proven else "Smallest subset found"
    title = f"{size}, with an in-sample KL within {tolerance:g} nats of that of all models."
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
    """The (M,) costs: minutes of training, or the column ``cost`` of a file.

    Raises:
        PredictionError: naming the models without a cost, or if the file has no costs.
    """
    if cost == AUTO:
        known = {member.name: member.minutes for member in members}
        fix = "Use --cost FILE, a CSV file with the columns model and cost."
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
    """Model -> cost, from a file.

    Raises:
        DataError: if the file has other columns, or a cost that is not above 0.
        PredictionError: if it lists a model twice.
    """
    if not is_table_file(file):
        raise PredictionError(
            f"--cost must be {AUTO} or a {' or '.join(TABLE_SUFFIXES)} file",
            got=file,
            fix="Write a table with the columns model and cost.",
        )
    table = read_table(file, text=("model",))
    cells = table.frame(("model", "cost"))
    names = texts(cells["model"])
    twice = names[names.duplicated()].unique()
    if len(twice):
        raise PredictionError(
            "a model must have one cost",
            got=f"several for {', '.join(twice)}",
            where=file,
            fix="Remove all but one of its rows.",
        )
    costs, _ = numbers(cells["cost"])
    wrong = ~((costs > 0) & (costs < np.inf)) & cells["cost"].notna().to_numpy(bool)
    table.refuse(wrong, "costs must be finite numbers above 0", cells["cost"])
    return dict(zip(names, costs.tolist(), strict=True))
