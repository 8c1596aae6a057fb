"""What a search space holds, found without training."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

from hms_ray.config.conditions import n_points, points
from hms_ray.config.experiment import Experiment
from hms_ray.config.space import Parameter, Space
from hms_ray.config.values import own_value
from hms_ray.display.space_table import ParameterRow, SpaceFacts
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import SCORE_NAMES
from hms_ray.search.distributions import resolve, trial_key
from hms_ray.search.outcomes import Proposal
from hms_ray.search.proposals import MAX_LISTED_POINTS, Proposals
from hms_ray.search.pruning import pruning_text
from hms_ray.text import counted

MIN_COUNTED_TRIALS: Final = 20
"""First trials whose image visits are counted, at least."""


def explain_space(
    space: Space,
    name: str,
    n_draws: int,
    visits: Callable[[Experiment], int] | None = None,
    notes: Sequence[str] = (),
) -> SpaceFacts:
    """Facts about a space.

    Args:
        space: checked.
        name: of the space.
        n_draws: first trials to show, as far as they do not depend on results.
        visits: image visits of an experiment; None: not counted.
        notes: warnings that follow from the rows.
    """
    count = n_points(space)
    n_experiments = n_invalid = None
    if count is not None and count <= MAX_LISTED_POINTS:
        n_experiments, n_invalid = _experiments(space)
    method: str = space.method
    first = first_trials(space, n_draws if visits is None else max(n_draws, MIN_COUNTED_TRIALS))
    # Those of TPE depend on results.
    shown = first[: max(space.startup_trials, len(space.start))] if method == "tpe" else first
    if method == "tpe":
        method += f" after {counted(space.startup_trials, 'random trial')}"
    counts = [visits(trial.experiment) for _, trial in first] if visits else []
    budget = [counted(space.budget.trials, "trial")]
    for limit, noun in ((space.budget.hours, "hour"), (space.budget.device_hours, "device hour")):
        budget += [] if limit is None else [counted(limit, noun)]
    goal = "maximise blend gain"
    if space.metric != "blend_gain":
        goal = f"minimise {SCORE_NAMES[space.objective]}"
    return SpaceFacts(
        name=name,
        method=f"{method}, {goal}",
        parameters=[_row(space, path) for path in space.parameters],
        n_points=count,
        n_experiments=n_experiments,
        n_invalid=n_invalid,
        draws=[(origin, dict(trial.point)) for origin, trial in shown[:n_draws]],
        pruning=pruning_text(space.pruning, space.experiment.data.n_folds),
        budget=" or ".join(budget) + ("" if len(budget) == 1 else ", whichever is first"),
        visits=(min(counts), mean(counts), max(counts)) if counts else None,
        notes=notes,
    )


def first_trials(space: Space, n_trials: int) -> list[tuple[str, Proposal]]:
    """The first trials of a new study, while none has ended: origin and proposal."""
    if not space.parameters:
        return []
    with tempfile.TemporaryDirectory() as folder:
        proposals = Proposals(space, Path(folder) / "journal")
        found: list[tuple[str, Proposal]] = []
        while len(found) < n_trials and isinstance(proposal := proposals.next(), Proposal):
            found.append((_origin(space, proposal), proposal))
    return found


def _origin(space: Space, proposal: Proposal) -> str:
    if proposal.point in space.start:
        return "start"
    # TPE draws at random until ``startup_trials`` have ended, and here none has.
    return "random" if space.method == "tpe" else space.method


def _experiments(space: Space) -> tuple[int, int]:
    """Number of different experiments among all points, and of invalid points."""
    keys, n_invalid = set(), 0
    for point in points(space):
        try:
            keys.add(trial_key(resolve(space, point)))
        except ConfigError:
            n_invalid += 1
    return len(keys), n_invalid


def _row(space: Space, path: str) -> ParameterRow:
    parameter = space.parameters[path]
    own = own_value(parameter, space.experiment, path)
    conditions = [
        f"{name.rsplit('.', 1)[-1]} = "
        + (" or ".join(map(str, value)) if isinstance(value, list) else str(value))
        for name, value in parameter.when.items()
    ]
    return ParameterRow(
        path=path,
        kind=_kind(parameter),
        values=values_text(parameter),
        condition=", ".join(conditions),
        own=str(own[0]) if own else "another value",
    )


def _kind(parameter: Parameter) -> str:
    if parameter.bounds is not None:
        return "number" if isinstance(parameter.bounds[0], float) else "integer"
    if isinstance(parameter.values, dict):
        return "label"
    names = {bool: "true or false", int: "integer", float: "number", str: "text"}
    kinds = {names.get(type(value), "mixed") for value in parameter.values or ()}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def values_text(parameter: Parameter) -> str:
    """Values or labels, or the range, in words."""
    if parameter.bounds is None:
        return ", ".join(map(str, parameter.values or ()))
    low, high = parameter.bounds
    text = f"{low:g} to {high:g}"
    if parameter.step is not None:
        text += f" in steps of {parameter.step:g}"
    return text + (", log scale" if parameter.log else "")


def schema() -> dict[str, Any]:
    """JSON Schema of a space file, for editors."""
    made = Space.model_json_schema()
    # What only a file may hold: a rule's name alone, and a null that removes a parameter.
    rules = made["$defs"]["PruneConfig"]["properties"]["rule"]["enum"]
    prune = made["properties"]["prune"]
    prune["anyOf"] = [{"$ref": prune.pop("$ref")}, {"enum": rules}]
    parameters = made["properties"]["parameters"]
    kept = parameters["additionalProperties"]
    parameters["additionalProperties"] = {"anyOf": [kept, {"type": "null"}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}
