"""Which models a blend needs, as tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hms_ray.display.cells import TIE_LEGEND, difference_text, score_text, signed
from hms_ray.display.tables import Column, Table
from hms_ray.ensemble.model_subsets import LeaveOneOut, ModelSubset
from hms_ray.evaluate.metric import Array


def leave_one_out_table(results: Sequence[LeaveOneOut], names: Sequence[str]) -> Table:
    """How much the KL of simplex weights rises without each model.

    Args:
        results: one per model.
        names: (M,) of the models.
    """
    ordered = sorted(results, key=lambda result: -result.nested.mean)
    columns = (
        Column("model", [names[result.model] for result in ordered], right=False),
        Column("weight", [f"{result.weight:.4f}" for result in ordered]),
        Column("rise in sample", [signed(result.rise) for result in ordered]),
        Column("rise nested", [difference_text(result.nested) for result in ordered]),
    )
    note = "worse: the blend is worse without the model. " + TIE_LEGEND
    return Table("Simplex weights without each model: rise of the KL", columns, (note,))


def correlation_table(correlation: Array, names: Sequence[str], labels: Sequence[str]) -> Table:
    """How similar the models' errors are, and the most similar model of each.

    Args:
        correlation: (M, M) of the errors, at least two models.
        names: (M,) of the models.
        labels: (M,) short names of the models in tables of sets.
    """
    others = correlation - 2 * np.eye(len(correlation))
    nearest = others.argmax(axis=1).tolist()
    means = (correlation.sum(axis=1) - 1) / (len(correlation) - 1)
    order = np.argsort(means, kind="stable").tolist()
    columns = (
        Column("model", [names[model] for model in order], right=False),
        Column("mean with others", [f"{means[model]:.3f}" for model in order]),
        Column("highest", [f"{others[model].max():.3f}" for model in order]),
        Column("with", [labels[nearest[model]] for model in order], right=False),
    )
    return Table("Correlation of errors (low correlation helps a blend)", columns)


def sets_table(title: str, sets: Sequence[ModelSubset], names: Sequence[str], costs: bool) -> Table:
    """Sets of models with their in-sample and nested KL.

    Args:
        title: of the table.
        sets: at least one.
        names: (M,) of the models.
        costs: whether costs were given; if not, the number of models is shown.
    """
    sizes = [f"{found.cost:g}" if costs else str(len(found.members)) for found in sets]
    members = [" + ".join(names[model] for model in found.members) for found in sets]
    columns = (
        Column("cost" if costs else "models", sizes),
        *_scores(sets),
        Column("set", members, right=False),
    )
    return Table(title, columns)


def path_table(path: Sequence[ModelSubset], names: Sequence[str]) -> Table:
    """A forward path: each line adds the model that lowers the KL most."""
    columns = (
        Column("models", [str(len(found.members)) for found in path]),
        *_scores(path),
        Column("added", [names[found.members[-1]] for found in path], right=False),
    )
    return Table("Forward path: each line adds the model that lowers the KL most", columns)


def _scores(sets: Sequence[ModelSubset]) -> tuple[Column, Column]:
    return (
        Column("in-sample", [score_text(found.kl) for found in sets]),
        Column("nested", [score_text(found.nested) for found in sets]),
    )
