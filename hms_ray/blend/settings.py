"""Settings of a blend, and the methods to compare for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast, get_args

from hms_ray.blend.align import Member, RowChoice
from hms_ray.blend.column_names import ColumnNames
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
from hms_ray.text import closest, counted

AUTO: Final = "auto"
CONSTRAINED: Final = "simplex_constrained"
PUBLISHED: Final = "published"


@dataclass(frozen=True)
class Settings:
    """Options of ``hms-ray blend``.

    Attributes:
        method: name of a method, with ``@kl_10`` to fit it on other rows than those that
            are scored; or ``auto``: chosen by nested KL.
        fit_on: objective whose rows are fitted on and scored; default: the first study's.
        rows: ``same`` or ``common``; see ``align``.
        n_splits: groups of patients of the nested cross-validation.
        seed: of its first split and of the bootstrap.
        max_family_weights: ``FAMILY=W``: largest total weight of the models of a family.
        fixed_weights: ``MODEL=W``: weight of a model that is not fitted.
        drop_identical: whether models with identical predictions count as one.
        families: ``FAMILY=PATTERN`` on the names of models.
        published: name of a published ensemble, a step of a ladder's manifest.
        subsets: whether to report which models are needed.
        tolerance: nats of KL that the smallest subset may lose.
        cost: ``auto`` (minutes of training) or a file with the columns model and cost.
        targets: study, ladder or file; default: those of the first model that has some.
        columns: names of columns in files of predictions.
        target_columns: names of columns in the file of targets.
        renormalise: divide rows of files by their sums, if these are off by rounding.
        row_unit: unit of the row ids of files that do not state it.
        out: folder to write to; default: depends on the inputs.
    """

    method: str = SIMPLEX
    fit_on: Objective | None = None
    rows: RowChoice = "same"
    n_splits: int = 5
    seed: int = 0
    max_family_weights: Sequence[str] = ()
    fixed_weights: Sequence[str] = ()
    families: Sequence[str] = ()
    drop_identical: bool = False
    published: str | None = None
    subsets: bool = False
    tolerance: float = 1e-3
    cost: str | None = None
    targets: str | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    target_columns: ColumnNames = field(default_factory=ColumnNames)
    renormalise: bool = False
    row_unit: Unit | None = None
    out: Path | None = None


@dataclass(frozen=True)
class BlendPlan:
    """The methods to compare, and the one to use.

    Attributes:
        candidates: from the simplest to the most complex, including the baselines of a
            report.
        method: name of the one to use; None if it is chosen by nested KL.
    """

    candidates: tuple[Candidate | Method, ...]
    method: str | None


def plan_blend(
    settings: Settings, members: Sequence[Member], manifest: Manifest | None = None
) -> BlendPlan:
    """The methods to compare for these models; published ensembles are in the manifest.

    Raises:
        PredictionError: if a method, family, model or published ensemble is unknown, a
            weight is not a number from 0 to 1, or options exclude each other.
    """
    _refuse_conflicts(settings)
    if settings.families and not settings.max_family_weights:
        raise PredictionError(
            "--family needs --max-family-weight", got=f"--family {settings.families[0]} alone"
        )
    if settings.published is not None:
        weights = published_weights(settings.published, members, manifest)
        equal, *others = BASELINES
        return BlendPlan((equal, Fixed(tuple(weights), PUBLISHED), *others), PUBLISHED)
    if settings.max_family_weights or settings.fixed_weights:
        return BlendPlan((*BASELINES, _constrained(settings, members)), CONSTRAINED)
    if settings.method == AUTO:
        return BlendPlan(tuple(all_methods().values()), None)
    name, at, rows = settings.method.partition("@")
    baselines = [method.name for method in BASELINES]
    methods = named_methods([*baselines, name])
    if not at:
        return BlendPlan(tuple(methods), name)
    if rows not in get_args(Objective):
        raise PredictionError(
            f"the rows after @ in --method must be one of {', '.join(get_args(Objective))}",
            got=rows or "none",
        )
    fit_on = cast("Objective", rows)
    own = Candidate(next(method for method in methods if method.name == name), fit_on)
    kept = [method for method in methods if method.name in baselines]
    return BlendPlan((*kept, own), own.name)


def _refuse_conflicts(settings: Settings) -> None:
    options = [
        option
        for option, given in (
            (f"--method {settings.method}", settings.method != SIMPLEX),
            ("--max-family-weight", bool(settings.max_family_weights)),
            ("--fixed-weight", bool(settings.fixed_weights)),
            ("--published", settings.published is not None),
        )
        if given
    ]
    if len(options) > 1 and options != ["--max-family-weight", "--fixed-weight"]:
        raise PredictionError(
            "a blend can have a method, constraints on simplex weights, or published weights",
            got=" and ".join(options),
            fix="Use one of them.",
        )


def published_weights(
    name: str, members: Sequence[Member], manifest: Manifest | None
) -> list[float]:
    """The weights of a published ensemble; its models are matched by the end of their names.

    Blends of blends are resolved to weights of models; members that the ensemble does not
    have get weight 0.

    Raises:
        PredictionError: if there is no such ensemble of fixed weights, or one of its models
            is not among the members.
    """
    entries = {entry.name: entry for entry in manifest.steps} if manifest else {}
    known = [
        step
        for step, entry in entries.items()
        if entry.blend is not None and entry.blend.kind == "fixed"
    ]
    if name not in known:
        raise PredictionError(
            "--published must name an ensemble of fixed weights in the ladder",
            got=f"{name}{closest(name, known)}",
        )
    weights = {name: 1.0}
    while blends := [step for step in weights if entries[step].blend is not None]:
        for step in blends:
            blend, share = entries[step].blend, weights.pop(step)
            if blend is None or blend.kind != "fixed":
                raise PredictionError(
                    "a published ensemble must have fixed weights", got=f"{step} in {name}"
                )
            for member, weight in zip(blend.members, blend.fixed_weights, strict=True):
                weights[member] = weights.get(member, 0.0) + share * weight
    found = [member.name.rpartition("/")[2] for member in members]
    missing = [step for step in weights if found.count(step) != 1]
    if missing:
        raise PredictionError(
            f"{name} needs the models {', '.join(weights)}, each once",
            got=", ".join(f"{step} {counted(found.count(step), 'time')}" for step in missing),
            fix="Give the ladder, or files with these names.",
        )
    return [weights.get(step, 0.0) for step in found]


def _constrained(settings: Settings, members: Sequence[Member]) -> Simplex:
    names = [member.name for member in members]
    labels = [member.family for member in members]
    caps = []
    for text in settings.max_family_weights:
        family, most = _name_and_weight(text, "--max-family-weight FAMILY=W", labels)
        caps.append(Cap([n for n, label in enumerate(labels) if label == family], most))
    fixed = []
    for text in settings.fixed_weights:
        model, weight = _name_and_weight(text, "--fixed-weight MODEL=W", names)
        fixed.append((names.index(model), weight))
    return Simplex(tuple(caps), tuple(fixed), CONSTRAINED)


def _name_and_weight(text: str, form: str, known: Sequence[str]) -> tuple[str, float]:
    name, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if name not in known or not 0 <= value <= 1:
        raise PredictionError(
            f"{form} needs one of {', '.join(dict.fromkeys(known))} and a number from 0 to 1",
            got=text,
        )
    return name, value
