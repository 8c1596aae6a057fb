"""A ladder's manifest: a YAML file with its steps in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from hms_ray.config.eeg_recipes import Count, Frozen
from hms_ray.config.space import Objective
from hms_ray.config.validation import validated
from hms_ray.config.yaml_files import read_mapping
from hms_ray.display.ladder_report import PublishedRows
from hms_ray.ensemble.methods.registry import all_methods
from hms_ray.errors import ConfigError
from hms_ray.text import closest

AUTO: Final = "auto"
"""The method that chooses a method."""
_SUM_TOLERANCE = 1e-9
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.+-]*$", max_length=40)]


class Blend(Frozen):
    """A step that is a weighted mean of other steps' predictions."""

    kind: Literal["fixed", "optimised"]
    """``fixed`` weights, or a fit that is nested by patient for the score (``optimised``)."""
    members: Annotated[tuple[Name, ...], Field(min_length=2)]
    """Names of other steps."""
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    """Of ``fixed``, in the order of the members. Default: equal weights."""
    method: str = "simplex"
    """Of ``optimised``: a method of ``hms-ray blend``, or ``auto``, the simplest one within one
    standard error of the best, chosen anew for each part of the patients."""
    fit_on: Objective = "kl_all"
    """Of ``optimised``: the rows that are fitted on: all, or those with >= 4 or >= 10 votes."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        if len(set(self.members)) < len(self.members):
            raise ValueError("members must differ")
        known = (*all_methods(), AUTO)
        if self.method not in known:
            raise ValueError(
                f"method must be one of {', '.join(known)}{closest(self.method, known)}"
            )
        if self.kind == "fixed" and {"method", "fit_on"} & self.model_fields_set:
            raise ValueError("method and fit_on belong to kind: optimised")
        if self.weights is None:
            return self
        if self.kind == "optimised":
            raise ValueError("weights belong to kind: fixed")
        if len(self.weights) != len(self.members):
            raise ValueError(f"there must be one weight per member, {len(self.members)}")
        if abs(sum(self.weights) - 1) > _SUM_TOLERANCE:
            raise ValueError(f"weights must sum to 1, they sum to {sum(self.weights):g}")
        return self

    @property
    def fixed_weights(self) -> tuple[float, ...]:
        """The given weights, or equal weights."""
        return self.weights or (1 / len(self.members),) * len(self.members)


class Published(Frozen):
    """What was published of a step; scores in nats."""

    cv: float | None = None
    """Out-of-fold KL of the best evaluations. Default: unpublished."""
    best: float | None = None
    """The same from the published log, mean over the rows of all folds. Default: no log."""
    last: float | None = None
    """Out-of-fold KL of the last evaluations, from the published log. Default: no log."""
    evaluations: Count | None = None
    """Evaluations per fold that ``best`` was chosen from. Default: no log."""
    rows: PublishedRows = "all"
    """Rows of these scores; ``stage_2``: rows with 5 or more votes, and unanimous rows with 4."""
    lb: float | None = None
    """Public leaderboard KL."""
    recipe: dict[str, Any] = Field(default_factory=dict)
    """Dotted path into the experiment -> published value; see ``Manifest.recipe``."""

    @model_validator(mode="after")
    def _rows_of_a_figure(self) -> Self:
        if self.cv is None and self.rows != "all":
            raise ValueError(f"rows: {self.rows} needs a cv on these rows")
        if self.cv is None and self.last is not None:
            raise ValueError("last needs the cv of the same experiment")
        return self


class StepEntry(Frozen):
    """One step: an experiment or a blend, and its baseline."""

    name: Name
    """Short and unique within the ladder."""
    file: str | None = None
    """Experiment, relative to the manifest."""
    of: str | None = None
    """Instead of a file: an earlier step, whose experiment this one is with ``set``."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Dotted path into the experiment -> its value here; belongs to ``of``."""
    blend: Blend | None = None
    """Blend of other steps."""
    chain: str = "published"
    """Which chain of steps it belongs to."""
    change: str = ""
    """What it changes against its baseline, in a few words."""
    before: str | None = None
    """Its baseline, the name of an earlier step. Default: none."""
    published: Published = Published()

    @model_validator(mode="after")
    def _file_or_blend(self) -> Self:
        if sum(one is not None for one in (self.file, self.of, self.blend)) != 1:
            raise ValueError(f"step {self.name} needs exactly one of file, of and blend")
        if bool(self.set) != (self.of is not None):
            raise ValueError(f"step {self.name} needs both of and set, or neither")
        return self


class Manifest(Frozen):
    """Steps in the order of the table."""

    recipe: dict[str, Any] = Field(default_factory=dict)
    """Dotted path -> published value that all published recipes share."""
    steps: Annotated[tuple[StepEntry, ...], Field(min_length=1)]


def read_manifest(path: str | Path) -> Manifest:
    """Reads and checks a manifest.

    Raises:
        ConfigError: if the file cannot be read or breaks a rule: repeated names, unknown
            members, a baseline that is no earlier step, blends that contain each other,
            an optimised blend of an optimised one, an ``of`` that is no earlier experiment,
            or a missing experiment file.
    """
    path = Path(path)
    manifest = validated(Manifest, read_mapping(path), path)
    entries = {entry.name: entry for entry in manifest.steps}
    (twice,) = Counter(entry.name for entry in manifest.steps).most_common(1)
    if twice[1] > 1:
        raise ConfigError("step names must be unique", got=twice[0], where=path)
    earlier: list[str] = []
    for entry in manifest.steps:
        _check_earlier("before", entry.before, entry, earlier, path)
        trained = [name for name in earlier if entries[name].blend is None]
        _check_earlier("of", entry.of, entry, trained, path)
        _check_members(entry, entries, path)
        if entry.file is not None and not (path.parent / entry.file).is_file():
            raise ConfigError(
                "a step's file must exist",
                got=entry.file,
                where=f"{path}, step {entry.name}",
                fix="Correct the file's name, or write the file beside the manifest.",
            )
        earlier.append(entry.name)
    for entry in manifest.steps:
        _check_cycle(entry, entries, (), path)
    return manifest


def _check_earlier(
    key: str, name: str | None, entry: StepEntry, earlier: Sequence[str], path: Path
) -> None:
    if name is not None and name not in earlier:
        what = "an earlier step" if key == "before" else "an earlier experiment"
        raise ConfigError(
            f"{key} must name {what}",
            got=f"{name}{closest(name, earlier)}",
            where=f"{path}, step {entry.name}",
        )


def _check_members(entry: StepEntry, entries: dict[str, StepEntry], path: Path) -> None:
    for member in entry.blend.members if entry.blend else ():
        where = f"{path}, step {entry.name}"
        if member not in entries:
            raise ConfigError(
                "a blend's members must be steps of the ladder",
                got=f"{member}{closest(member, entries)}",
                where=where,
            )
        inner = entries[member].blend
        if entry.blend and entry.blend.kind == "optimised" and inner and inner.kind == "optimised":
            # The inner weights for the other patients were fitted on this patient's rows.
            raise ConfigError(
                "an optimised blend's members must not be optimised blends",
                got=member,
                where=where,
                fix="Name the members of that blend.",
            )


def _check_cycle(
    entry: StepEntry, entries: dict[str, StepEntry], walked: tuple[str, ...], path: Path
) -> None:
    walked = (*walked, entry.name)
    for member in entry.blend.members if entry.blend else ():
        if member in walked:
            raise ConfigError(
                "blends must not contain each other",
                got=" > ".join((*walked, member)),
                where=f"{path}, step {walked[0]}",
            )
        _check_cycle(entries[member], entries, walked, path)
