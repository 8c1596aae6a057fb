"""A ladder ready to run: every step with its experiment or blend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.loading import load_space
from hms_ray.config.space import ResourcesConfig, Space
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError
from hms_ray.ladder.manifest import Blend, Published, StepEntry, read_manifest
from hms_ray.ladder.scale import adapted, read_scale
from hms_ray.text import closest

NOT_PUBLISHED: Final = Published()


@dataclass(frozen=True)
class LadderStep:
    """One step: an experiment or a blend of other steps.

    Attributes:
        name: unique within its ladder.
        chain: which chain it belongs to.
        change: against its baseline, in a few words.
        before: its baseline, the name of another step, if any.
        experiment: with the name of the step; None for a blend.
        blend: of other steps; None for an experiment.
        published: published scores.
        recipe: published values of its experiment, by dotted path; empty if unpublished.
    """

    name: str
    chain: str
    change: str
    before: str | None
    experiment: Experiment | None = None
    blend: Blend | None = None
    published: Published = NOT_PUBLISHED
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def departures(self) -> list[str]:
        """The paths at which the experiment differs from its published recipe."""
        if self.experiment is None:
            return []
        found = []
        for path, value in self.recipe.items():
            published = replace_values(self.experiment, {path: value})
            if canonical(published) != canonical(self.experiment):
                found.append(path)
        return found


@dataclass(frozen=True)
class Ladder:
    """Steps that share rows, folds and worker groups.

    Attributes:
        steps: in the order of the table.
        resources: of the worker groups.
    """

    steps: tuple[LadderStep, ...]
    resources: ResourcesConfig

    def experiments(self) -> dict[str, Experiment]:
        """Name of a step -> its experiment, in the order of the steps."""
        return {step.name: step.experiment for step in self.steps if step.experiment is not None}

    def step(self, name: str) -> LadderStep:
        """The step of a name, which must exist."""
        return next(step for step in self.steps if step.name == name)

    def members(self, name: str) -> tuple[str, ...]:
        """The experiments that a step's predictions come from, each once."""
        step = self.step(name)
        if step.blend is None:
            return (name,)
        inner = [below for member in step.blend.members for below in self.members(member)]
        return tuple(dict.fromkeys(inner))


def load_ladder(
    file: str | Path,
    scale: str | Path | None = None,
    settings: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Ladder:
    """Reads a manifest and its experiments.

    Args:
        file: the manifest.
        scale: file of an overlay that is put over every experiment.
        settings: texts ``a.b=value`` for every experiment, after the overlay.
        only: names of steps, to which the members of their blends are added. Default: all.

    Raises:
        ConfigError: see ``read_manifest``, ``load_space`` and ``scaled``; also for an
            unknown name in ``only``, and for experiments that differ in rows, folds or
            resources or that search something.
    """
    file = Path(file)
    manifest = read_manifest(file)
    overlay = None if scale is None else read_scale(scale)
    wanted = _wanted(manifest.steps, only, file)
    entries = {entry.name: entry for entry in manifest.steps}
    spaces: dict[str, tuple[Path, Space]] = {}
    steps = []
    for entry in (entry for entry in manifest.steps if entry.name in wanted):
        experiment = None
        if entry.blend is None:
            place, space = _read_space(entry, entries, file)
            space = adapted(space, overlay, settings, place)
            spaces[entry.name] = place, space
            experiment = space.experiment.model_copy(update={"name": entry.name})
        step = LadderStep(
            name=entry.name,
            chain=entry.chain,
            change=entry.change,
            before=entry.before if entry.before in wanted else None,
            experiment=experiment,
            blend=entry.blend,
            published=entry.published,
            recipe=manifest.recipe | entry.published.recipe if entry.published.recipe else {},
        )
        steps.append(step)
    return Ladder(tuple(steps), _shared(spaces))


def _read_space(
    entry: StepEntry, entries: Mapping[str, StepEntry], manifest: Path
) -> tuple[Path, Space]:
    """The file that a step's experiment is in, and its space."""
    if entry.file is not None:
        place = manifest.parent / entry.file
        return place, load_space(place)
    _, space = _read_space(entries[str(entry.of)], entries, manifest)
    changed = replace_values(space.experiment, entry.set, f"{manifest}, step {entry.name}")
    return manifest, space.model_copy(update={"experiment": changed})


def _require_known(only: Sequence[str], names: Sequence[str], where: object) -> None:
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ConfigError(
            "--steps must name steps of the ladder",
            got=f"{unknown[0]}{closest(unknown[0], names)}",
            where=where,
        )


def _wanted(entries: Sequence[StepEntry], only: Sequence[str], file: Path) -> set[str]:
    """The requested steps and all members of their blends."""
    known = {entry.name: entry for entry in entries}
    _require_known(only, list(known), file)
    wanted: set[str] = set()
    waiting = list(only or known)
    while waiting:
        name = waiting.pop()
        wanted.add(name)
        blend = known[name].blend
        waiting += [] if blend is None else [m for m in blend.members if m not in wanted]
    return wanted


def _shared(spaces: dict[str, tuple[Path, Space]]) -> ResourcesConfig:
    """Resources of all experiments, after checking what they must share."""
    first_name, (_, first) = next(iter(spaces.items()))
    for name, (place, space) in spaces.items():
        if space.parameters:
            raise ConfigError(
                "the experiment of a step must not search anything",
                got=", ".join(space.parameters),
                where=f"{place}, step {name}",
            )
        for what, mine, theirs in (
            ("data", space.experiment.data, first.experiment.data),
            ("resources", space.resources, first.resources),
        ):
            if mine != theirs:
                changed = [key for key, value in theirs if value != getattr(mine, key)]
                got = ", ".join(f"{what}.{key}: {getattr(mine, key)!r}" for key in changed)
                raise ConfigError(
                    f"all steps of a ladder must have the same {what}",
                    got=f"{got}, which differs from step {first_name}",
                    where=f"{place}, step {name}",
                    fix="Set it for all steps with --set.",
                )
    return first.resources


def select_steps(ladder: Ladder, only: Sequence[str], where: object) -> Ladder:
    """Some steps of a ladder of experiments, in its order.

    Raises:
        ConfigError: for an unknown name.
    """
    if not only:
        return ladder
    _require_known(only, [step.name for step in ladder.steps], where)
    steps = [step for step in ladder.steps if step.name in only]
    return replace(
        ladder,
        steps=tuple(
            replace(step, before=step.before if step.before in only else None) for step in steps
        ),
    )
