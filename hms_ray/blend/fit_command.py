"""The blend of any predictions, printed and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from hms_ray.blend.align import Aligned, align
from hms_ray.blend.external_files import Targets
from hms_ray.blend.members import read_members, targets_of, with_families
from hms_ray.blend.result_files import BLEND_FILE, write_blend
from hms_ray.blend.settings import Settings, plan
from hms_ray.blend.subset_report import asked_costs, describe_sets
from hms_ray.ensemble.report import blend_report
from hms_ray.errors import StudyError
from hms_ray.ladder.manifest import Manifest
from hms_ray.report.blend_table import render_blend
from hms_ray.report.live import bar
from hms_ray.report.tables import to_text
from hms_ray.storage.atomic import require_writable
from hms_ray.study.folder import StudyFolder


def blend(
    inputs: Sequence[str | Path],
    results: str | Path = "results",
    settings: Settings | None = None,
    manifest: Manifest | None = None,
) -> str:
    """Blends models and keeps the method, its estimates and its predictions.

    Writes ``blend.json`` (method, members, certificate, estimates), ``oof_nested.parquet``
    (fitted, and chosen where it was chosen, on other patients) and
    ``oof_in_sample.parquet`` (fitted on the rows that it predicts).

    Args:
        inputs: words as ``read_members`` takes them.
        results: folder of studies, ladders and the store.
        settings: how to blend; simplex weights if absent.
        manifest: of the ladder whose blends are recipes.

    Returns:
        The text to print.

    Raises:
        ConfigError: where the folder could not be written to.
        StudyError: where a number is out of range, or an input is absent or damaged.
        PredictionError: where predictions, targets and settings do not fit.
    """
    settings = settings or Settings()
    _check(settings)
    words = [str(word) for word in inputs]
    place = settings.out or blend_folder(words, results)
    require_writable(place / BLEND_FILE)
    members = with_families(
        read_members(words, results, settings.columns, settings.row_unit), settings.families
    )
    planned = plan(settings, members, manifest)
    costs = asked_costs(members, settings)
    targets = targets_of(
        members, settings.targets, results, settings.target_columns, settings.row_unit
    )
    data = align(members, targets, settings.rows)
    # Products are small here: threads gain little, and with busy cores cost several times
    # the whole run.
    with threadpool_limits(1), bar("nested estimates", "splits", delay_s=3) as progress:
        report = blend_report(
            data.targets,
            data.probabilities,
            [member.name for member in members],
            data.patients,
            data.votes,
            candidates=planned.candidates,
            method=planned.method,
            objective=settings.fit_on or targets.objective or "kl_all",
            optimistic=[member.optimistic for member in members],
            n_splits=settings.n_splits,
            seed=settings.seed,
            progress=progress,
        )
        sets_text, sets = describe_sets(members, data, report.selection.objective, settings, costs)
    write_blend(place, report, members, data, sets)
    parts = [render_blend(report), to_text(*_notes(targets, data), *sets_text)]
    return "\n\n".join([*filter(None, parts), f"written to {place}"])


def _check(settings: Settings) -> None:
    if settings.n_splits < 2:
        raise StudyError(
            "a nested estimate needs at least two groups of patients", got=settings.n_splits
        )
    if settings.seed < 0:
        raise StudyError("a seed must be at least 0", got=settings.seed)


def blend_folder(words: Sequence[str], results: str | Path) -> Path:
    """A study's own folder where it alone is blended, else one beside the studies."""
    if len(words) == 1:
        for path in (Path(results) / words[0], Path(words[0])):
            if (path / "study.json").is_file():
                return StudyFolder(path).path / "blend"
    return Path(results) / "blend"


def _notes(targets: Targets, data: Aligned) -> list[str]:
    notes = []
    if data.n_dropped:
        notes.append(
            f"Left out: {data.n_dropped:,} rows of {targets.name} that not every model predicts."
        )
    if targets.n_unknown:
        notes.append(
            f"{targets.n_unknown:,} rows have no known total of votes and count as rows of few."
        )
    return [" ".join(notes)] if notes else []
