"""Settings of a blend, and the candidate methods that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast, get_args

from hms_ray.blend.align import Member, RowChoice
from hms_ray.competition.rows import Unit
from hms_ray.config.space import Objective
from hms_ray.ensemble.constrained import Cap
from hms_ray.ensemble.cross_validation import Candidate
from hms_ray.ensemble.methods.arithmetic import Fixed, Simplex
from hms_ray.ensemble.methods.base import Method
from hms_ray.ensemble.methods.registry import all_methods, named_methods
from hms_ray.ensemble.result import BASELINES, SIMPLEX
from hms_ray.errors import PredictionError
from hms_ray.ladder.manifest import Manifest
from hms_ray.text import counted

AUTO: Final = "auto"
CONSTRAINED: Final = "simplex_constrained"
RECIPE: Final = "recipe"


@dataclass(frozen=True)
class Settings:
    """What the words of the command say.

    Attributes:
        method: name of a method, with ``@kl_10`` to fit it on other rows than those that
            are scored; or ``auto``: chosen by nested KL.
        fit_on: objective whose rows are fitted on and scored; the first study's if None.
        rows: ``same`` or ``common``, as ``align``.
        n_splits: groups of patients of nested estimates.
        seed: of the first estimate's groups and of the bootstrap.
        caps: ``FAMILY=W``: the models of a family weigh at most W together.
        fixed: ``MODEL=W``: a model weighs W.
        families: ``FAMILY=PATTERN`` over the models' names.
        recipe: name of a published ensemble, a step of a ladder's manifest.
        sets: whether to tell which models are needed.
        tolerance: nats that a smallest set may lose.
        cost: ``auto`` (training minutes) or a file with the columns model and cost.
        targets: study, ladder or file; those of the first model that has some if None.
        columns: of files of predictions, our name -> theirs.
        target_columns: of a file of targets, likewise.
        row_unit: unit of the row ids of files that do not say it themselves.
        out: folder to write to; by the inputs if None.
    """

    method: str = SIMPLEX
    fit_on: Objective | None = None
    rows: RowChoice = "same"
    n_splits: int = 5
    seed: int = 0
    caps: Sequence[str] = ()
    fixed: Sequence[str] = ()
    families: Sequence[str] = ()
    recipe: str | None = None
    sets: bool = False
    tolerance: float = 1e-3
    cost: str | None = None
    targets: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    target_columns: dict[str, str] = field(default_factory=dict)
    row_unit: Unit | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Plan:
    """The ways to combine that are rated.

    Attributes:
        candidates: from the simplest to the most elaborate, the baselines of a report
            among them.
        method: name of the one to be used; None where it is chosen.
    """

    candidates: tuple[Candidate | Method, ...]
    method: str | None


def plan(settings: Settings, members: Sequence[Member], manifest: Manifest | None = None) -> Plan:
    """The candidates that the settings mean for these models.

    Args:
        settings: of the command.
        members: the models.
        manifest: of the ladder whose blends are the recipes.

    Raises:
        PredictionError: for a method, family, model or recipe that is not there, numbers
            that are none, and options that exclude each other.
    """
    _refuse_two_ways(settings)
    if settings.families and not settings.caps:
        raise PredictionError(
            "--family needs --max-family-weight", got=f"--family {settings.families[0]} alone"
        )
    if settings.recipe is not None:
        recipe = Fixed(tuple(recipe_weights(settings.recipe, members, manifest)), RECIPE)
        equal, *others = BASELINES
        return Plan((equal, recipe, *others), RECIPE)
    if settings.caps or settings.fixed:
        return Plan((*BASELINES, _constrained(settings, members)), CONSTRAINED)
    if settings.method == AUTO:
        return Plan(tuple(all_methods().values()), None)
    name, at, rows = settings.method.partition("@")
    baselines = [method.name for method in BASELINES]
    methods = named_methods([*baselines, name])
    if not at:
        return Plan(tuple(methods), name)
    own = Candidate(next(method for method in methods if method.name == name), _objective(rows))
    kept = [method for method in methods if method.name in baselines]
    return Plan((*kept, own), own.name)


def _refuse_two_ways(settings: Settings) -> None:
    asked = [
        option
        for option, given in (
            (f"--method {settings.method}", settings.method != SIMPLEX),
            ("--max-family-weight or --fixed-weight", bool(settings.caps or settings.fixed)),
            ("--published", settings.recipe is not None),
        )
        if given
    ]
    if len(asked) > 1:
        raise PredictionError(
            "a blend is made in one way: caps and fixed weights are those of the simplex, "
            "and a recipe has its own",
            got=" with ".join(asked),
        )


def _objective(rows: str) -> Objective:
    for objective in get_args(Objective):
        if objective == rows:
            return cast("Objective", objective)
    raise PredictionError(
        f"the rows after @ in --method must be one of {', '.join(get_args(Objective))}",
        got=rows or "none",
    )


def recipe_weights(name: str, members: Sequence[Member], manifest: Manifest | None) -> list[float]:
    """The weights of a published ensemble, its members found by the end of their names.

    Blends of blends are followed down to models; models that the ensemble does not have
    weigh 0.

    Raises:
        PredictionError: where there is no such ensemble of fixed weights, or one of its
            models is not among the members.
    """
    entries = {entry.name: entry for entry in manifest.steps} if manifest else {}
    known = [
        step
        for step, entry in entries.items()
        if entry.blend is not None and entry.blend.kind == "fixed"
    ]
    if name not in known:
        raise PredictionError(
            "a recipe must be a published ensemble of fixed weights",
            got=name,
            fix=f"There are: {', '.join(known)}." if known else "There is no manifest.",
        )
    weights = {name: 1.0}
    while blends := [step for step in weights if entries[step].blend is not None]:
        for step in blends:
            blend, share = entries[step].blend, weights.pop(step)
            if blend is None or blend.kind != "fixed":
                raise PredictionError(
                    "a recipe's models must have fixed weights", got=f"{step} in {name}"
                )
            for member, weight in zip(blend.members, blend.fixed_weights, strict=True):
                weights[member] = weights.get(member, 0.0) + share * weight
    found = [member.name.rpartition("/")[2] for member in members]
    missing = [step for step in weights if found.count(step) != 1]
    if missing:
        raise PredictionError(
            f"the recipe {name} needs the models {', '.join(weights)}, each once",
            got=", ".join(f"{step} {_times(found.count(step))}" for step in missing),
            fix="Name the ladder, or files that are called so.",
        )
    return [weights.get(step, 0.0) for step in found]


def _times(n: int) -> str:
    return "not at all" if n == 0 else counted(n, "time")


def _constrained(settings: Settings, members: Sequence[Member]) -> Simplex:
    names = [member.name for member in members]
    labels = [member.family for member in members]
    caps = []
    for word in settings.caps:
        family, most = _share(word, "--max-family-weight FAMILY=W", labels)
        caps.append(Cap([n for n, label in enumerate(labels) if label == family], most))
    fixed = []
    for word in settings.fixed:
        model, weight = _share(word, "--fixed-weight MODEL=W", names)
        fixed.append((names.index(model), weight))
    return Simplex(tuple(caps), tuple(fixed), CONSTRAINED)


def _share(word: str, form: str, known: Sequence[str]) -> tuple[str, float]:
    name, _, number = word.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if name not in known or not 0 <= value <= 1:
        raise PredictionError(
            f"{form} needs one of {', '.join(dict.fromkeys(known))} and a number from 0 to 1",
            got=word,
        )
    return name, value
