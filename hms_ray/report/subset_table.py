"""Which models a blend needs, as text of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hms_ray.ensemble.model_subsets import ModelSet, Worth
from hms_ray.evaluate.metric import Array
from hms_ray.report.blend_table import difference_text
from hms_ray.report.text_table import (
    WIDTH,
    Column,
    score,
    shortened,
    shortened_names,
    text_table,
    wrapped,
)


def render_worths(worths: Sequence[Worth], names: Sequence[str], width: int = WIDTH) -> str:
    """What simplex weights lose without each model.

    Args:
        worths: a model each.
        names: (M,) the models'.
        width: characters a line.
    """
    ordered = sorted(worths, key=lambda worth: -worth.nested.mean)
    columns = [
        Column("weight", [f"{worth.weight:.4f}" for worth in ordered]),
        Column("rise in sample", [f"{worth.rise:+.4f}" for worth in ordered]),
        Column("rise nested", [difference_text(worth.nested) for worth in ordered]),
    ]
    room = width - sum(column.width + 2 for column in columns)
    labels = shortened_names([names[worth.model] for worth in ordered], room)
    lines = [
        *wrapped(
            "Without each model: rise of the KL of simplex weights (t: a tie, so nothing shows "
            "that it is missed).",
            width,
        ),
        *text_table([*columns, Column("model", labels, right=False)]),
    ]
    return "\n".join(lines)


def render_correlation(
    correlation: Array, names: Sequence[str], labels: Sequence[str], width: int = WIDTH
) -> str:
    """How alike the models' errors are: for each the model that is most like it.

    Args:
        correlation: (M, M) of the errors, at least two models.
        names: (M,) the models'.
        labels: (M,) what sets call them.
        width: characters a line.
    """
    others = correlation - 2 * np.eye(len(correlation))
    nearest = others.argmax(axis=1).tolist()
    means = (correlation.sum(axis=1) - 1) / (len(correlation) - 1)
    order = np.argsort(means, kind="stable").tolist()
    columns = [
        Column("mean with others", [f"{means[model]:.3f}" for model in order]),
        Column("highest", [f"{others[model].max():.3f}" for model in order]),
        Column("with", [labels[nearest[model]] for model in order], right=False),
    ]
    room = width - sum(column.width + 2 for column in columns)
    named = shortened_names([names[model] for model in order], room)
    title = "Correlation of errors (a blend gains where it is low):"
    return "\n".join([title, *text_table([*columns, Column("model", named, right=False)])])


def render_sets(
    title: str, sets: Sequence[ModelSet], names: Sequence[str], costs: bool, width: int = WIDTH
) -> str:
    """Sets of models, each with its KL in sample and nested.

    Args:
        title: a sentence above the table.
        sets: at least one.
        names: (M,) the models'.
        costs: whether costs were given; numbers of models are shown where not.
        width: characters a line.
    """
    columns = [
        Column(
            "cost" if costs else "models",
            [f"{found.cost:g}" if costs else str(len(found.members)) for found in sets],
        ),
        Column("in sample", [score(found.kl) for found in sets]),
        Column("nested", [score(found.nested) for found in sets]),
    ]
    room = width - sum(column.width + 2 for column in columns)
    labels = [
        shortened(" + ".join(names[model] for model in found.members), room) for found in sets
    ]
    return "\n".join(
        [*wrapped(title, width), *text_table([*columns, Column("set", labels, right=False)])]
    )


def render_path(path: Sequence[ModelSet], names: Sequence[str], width: int = WIDTH) -> str:
    """A forward path: each line adds the model that lowers the KL most."""
    columns = [
        Column("models", [str(len(found.members)) for found in path]),
        Column("in sample", [score(found.kl) for found in path]),
        Column("nested", [score(found.nested) for found in path]),
    ]
    room = width - sum(column.width + 2 for column in columns)
    labels = shortened_names([names[found.members[-1]] for found in path], room)
    return "\n".join(
        [
            *wrapped("Forward path: with each line the model joins that adds most.", width),
            *text_table([*columns, Column("joins", labels, right=False)]),
        ]
    )
