"""Combines ladders over seeds, with a negative control."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import pandas as pd

from hms_ray.display.combined_report import CombinedReport, CombinedStep
from hms_ray.display.combined_table import combined_page, render_combined
from hms_ray.display.forest_plot import forest_svg
from hms_ray.display.ladder_report import Checkpoint
from hms_ray.display.leaderboard import write_csv
from hms_ray.errors import StudyError
from hms_ray.evaluate.step_scores import (
    GROUPS,
    RowScores,
    StepScores,
    combine_rows,
    score_steps,
)
from hms_ray.ladder.folder import StoredLadder, find_ladder, read_ladder
from hms_ray.ladder.report import baseline_positions, ladder_rows
from hms_ray.ladder.result import StepResult
from hms_ray.storage.folder_names import FOREST, FOREST_FILE, require_kind
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.storage.structured_files import write_text

PLOT_FILE: Final = "forest.svg"
RECALIBRATED_PLOT_FILE: Final = "forest_recalibrated.svg"
TABLE_FILE: Final = FOREST_FILE
PAGE_FILE: Final = "README.md"

_SAME: Final = ("before", "kind", "chain", "checkpoint", "published_cv", "published_rows")
"""Fields of a step that must be equal in all ladders."""


@dataclass(frozen=True)
class _Combined:
    """Ladders with the same steps, the rows of each, and the scores over all rows.

    Attributes:
        ladders: name -> ladder.
        rows: scores of the rows of each ladder.
        scores: of each step, over all rows.
        n_data_sets: number of different row tables.
    """

    ladders: dict[str, StoredLadder]
    rows: Sequence[RowScores]
    scores: tuple[StepScores, ...]
    n_data_sets: int


def combine(
    names: Sequence[str], controls: Sequence[str], results: Path, out: Path | None = None
) -> str:
    """Combines ladders, writes table, page and plots, and returns the text to print.

    Args:
        names: ladders, by name below ``results`` or path.
        controls: ladders of the negative control; may be empty.
        results: folder of all ladders.
        out: folder to write to; default: ``results/forest``.

    Raises:
        StudyError: if a name is no ladder or is repeated; see also ``combine_ladders``.
    """
    folder = out or results / FOREST
    require_kind(folder, "combination of ladders", "--out DIR")
    report = combine_ladders(_places(names, results), _places(controls, results))
    for file, recalibrated in ((PLOT_FILE, False), (RECALIBRATED_PLOT_FILE, True)):
        write_text(folder / file, forest_svg(report, recalibrated=recalibrated))
    lines = pd.DataFrame([line for step in report.steps for line in step.lines()])
    write_csv(lines, folder / TABLE_FILE)
    plots = {"As predicted": PLOT_FILE, "Recalibrated": RECALIBRATED_PLOT_FILE}
    write_text(folder / PAGE_FILE, combined_page(report, plots))
    return f"{render_combined(report)}\n\nwritten: {folder}"


def _places(names: Sequence[str], results: Path) -> dict[str, Path]:
    """Folder of each ladder by its name, or by the given path if two names are equal."""
    places = [find_ladder(name, results) for name in names]
    twice = sorted({str(place) for place in places if places.count(place) > 1})
    if twice:
        raise StudyError("a ladder must be named once", got=", ".join(twice))
    short = [place.resolve().name for place in places]
    return dict(zip(names if len(set(short)) < len(short) else short, places, strict=True))


def combine_ladders(places: Mapping[str, Path], controls: Mapping[str, Path]) -> CombinedReport:
    """Scores the steps of several ladders over all of their rows.

    Ladders on the same rows are runs with other training seeds: the scores of their rows are
    averaged, and the seeds' variance is added to that of the patients if every data set has
    several (see ``evaluate.seed_variance``). Each ladder is recalibrated separately, since
    its models are different; patients of different data sets count as different.

    A control may have some of the steps, those whose cause its data lack.

    Args:
        places: name of a ladder -> its folder; at least one.
        controls: the same of the negative control; may be empty.

    Raises:
        StudyError: if ladders differ in steps or scale, repeat a run, or mix simulated and
            recorded data; if a control was not simulated as one, or no step has a
            baseline.
    """
    stored = [
        {name: read_ladder(place) for name, place in given.items()} for given in (places, controls)
    ]
    first = next(iter(stored[0].items()))
    _check_ladders(first, stored[0])
    for name, ladder in stored[1].items():
        _check_same((first[0], _steps_of(first[1], ladder)), (name, ladder))
    if controls:
        _check_ladders(next(iter(stored[1].items())), stored[1])
    _check_controls(stored[1])
    results = first[1].results
    if all(result.before is None for result in results):
        raise StudyError(
            "a forest plot needs a step with its baseline",
            got="none",
            where=first[0],
            fix="Train both: hms-ray ladder --steps STEP --steps BASELINE",
        )
    ours, control = _combined(stored[0]), _combined(stored[1]) if controls else None
    steps = tuple(_step(number, ours, control) for number, r in enumerate(results) if r.before)
    whole = {group: score.kl for group, score in ours.scores[0].items()}
    return CombinedReport(
        steps=steps,
        ladders={name: ladder.about for name, ladder in stored[0].items()},
        controls={name: ladder.about for name, ladder in stored[1].items()},
        n_rows={group: whole[group].n_rows if group in whole else 0 for group in GROUPS},
        n_patients=whole["kl_all"].n_patients,
        n_data_sets=ours.n_data_sets,
    )


def _combined(ladders: dict[str, StoredLadder]) -> _Combined:
    rows = [ladder_rows(ladder.rows, ladder.results) for ladder in ladders.values()]
    before = baseline_positions(next(iter(ladders.values())).results)
    data_sets: dict[str, list[RowScores]] = {}
    for ladder, scores in zip(ladders.values(), rows, strict=True):
        data_sets.setdefault(_rows_fingerprint(ladder), []).append(scores)
    combined = combine_rows(list(data_sets.values()))
    return _Combined(ladders, rows, score_steps(combined, before), len(data_sets))


def _rows_fingerprint(ladder: StoredLadder) -> str:
    """Of the scored rows; equal rows in other folds are the same patients."""
    return table_fingerprint(ladder.rows.drop(columns="fold"))


def _check_ladders(first: tuple[str, StoredLadder], ladders: Mapping[str, StoredLadder]) -> None:
    """Checks that ladders match the first one, and that none is the repetition of another."""
    seen: dict[tuple[str, object], str] = {}
    for name, ladder in ladders.items():
        _check_same(first, (name, ladder))
        run = table_fingerprint(ladder.rows), ladder.about.get("seed")
        twin = seen.setdefault(run, name)
        if twin != name:
            raise StudyError(
                "combined ladders must differ in their rows, folds or training seed",
                got=f"{twin} and {name} with the same rows, folds and seed {run[1]}",
                fix="Combine ladders of other simulator seeds, or train with --seeds.",
            )


def _steps_of(whole: StoredLadder, control: StoredLadder) -> StoredLadder:
    """A ladder's steps that a control has, as it would have them: some without a baseline."""
    own = {result.name: result for result in control.results}
    results = [
        result if own[result.name].before else replace(result, before=None)
        for result in whole.results
        if result.name in own
    ]
    return replace(whole, results=tuple(results))


def _check_controls(ladders: Mapping[str, StoredLadder]) -> None:
    """Checks that controls were simulated with a cause removed."""
    for name, ladder in ladders.items():
        simulator = ladder.about["simulator"]
        if simulator is not None and not simulator.get("controls"):
            raise StudyError(
                "the data of a negative control must be simulated with a cause removed",
                got="none",
                where=name,
                fix="Simulate them: hms-ray simulate --control NAME",
            )


def _check_same(first: tuple[str, StoredLadder], other: tuple[str, StoredLadder]) -> None:
    """Checks that two ladders have the same steps, scale and kind of data."""

    def require(same: bool, what: str, got: str) -> None:
        if not same:
            raise StudyError(
                f"combined ladders must have the same {what}",
                got=got,
                where=f"{first[0]} and {other[0]}",
                fix="Run the same ladder on both folders.",
            )

    def require_equal(values: Sequence[object], what: str, subject: str = "") -> None:
        require(values[0] == values[1], what, f"{subject}{values[0]} and {values[1]}")

    names = [[result.name for result in ladder.results] for _, ladder in (first, other)]
    for here, there, owner in ((*names, first[0]), (*names[::-1], other[0])):
        alone = [name for name in here if name not in there]
        require(not alone, "steps", f"{', '.join(alone)} in {owner} only")
    require(names[0] == names[1], "steps in the same order", "another order")
    for steps in zip(first[1].results, other[1].results, strict=True):
        for key in _SAME:
            values = [getattr(step, key) for step in steps]
            require_equal(values, "steps", f"step {steps[0].name} with {key} ")
    # With another scale or other rows, a step of the same name is another experiment.
    abouts = [ladder.about for _, ladder in (first, other)]
    require_equal([about.get("scale") for about in abouts], "scale")
    require_equal([about.get("rows") for about in abouts], "kind of rows and folds")
    data = ["simulated" if about["simulated"] else "recorded" for about in abouts]
    require_equal(data, "kind of data")


def _step(number: int, ours: _Combined, control: _Combined | None) -> CombinedStep:
    first = next(iter(ours.ladders.values()))
    result = first.results[number]
    baseline = baseline_positions(first.results)[number] or 0
    before = first.results[baseline]
    published = published_difference(result, before)

    def mean(rows: RowScores, name: str) -> float | None:
        found = rows.get(name)
        return None if found is None else float((found.raw[number] - found.raw[baseline]).mean())

    return CombinedStep(
        name=result.name,
        before=before.name,
        change=result.change,
        optimistic=any(
            step.optimistic
            for ladder in ours.ladders.values()
            for step in ladder.results
            if step.name in (result.name, before.name)
        ),
        published=published.mean,
        published_of=published.of,
        published_group=published.group,
        other_rows=published.other_rows,
        ours=ours.scores[number],
        control=None if control is None else _of_step(control, result.name),
        by_ladder={name: tuple(mean(rows, name) for rows in ours.rows) for name in GROUPS},
    )


def _of_step(control: _Combined, name: str) -> StepScores | None:
    """Scores of a step of the control; None if it lacks the step or its baseline."""
    for result, scores in zip(
        next(iter(control.ladders.values())).results, control.scores, strict=True
    ):
        if result.name == name and result.before is not None:
            return scores
    return None


class PublishedDifference(NamedTuple):
    """Published KL of a step minus that of its baseline.

    Attributes:
        mean: the difference; None if it is unpublished or not comparable.
        of: between the ``last`` or the ``best`` evaluations.
        group: the group of rows.
        other_rows: whether both figures were published, but on different rows.
    """

    mean: float | None = None
    of: Checkpoint | None = None
    group: str | None = None
    other_rows: bool = False


def published_difference(step: StepResult, before: StepResult) -> PublishedDifference:
    """The published difference of a step, of the checkpoint that both keep if published.

    Figures of two-stage models are on the rows of the second stage and those of others on
    all rows, so a difference between the two is not comparable.
    """
    if step.published_cv is None or before.published_cv is None:
        return PublishedDifference()
    if step.published_group != before.published_group:
        return PublishedDifference(other_rows=True)
    kept, like, like_before = step.checkpoint, step.published_like, before.published_like
    if kept == before.checkpoint and like is not None and like_before is not None:
        return PublishedDifference(like - like_before, kept, step.published_group)
    return PublishedDifference(
        step.published_cv - before.published_cv, "best", step.published_group
    )
