"""``hms-ray blend``: fits a blend, writes it and describes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from threadpoolctl import threadpool_limits

from hms_ray.blend.align import Aligned, Member, align
from hms_ray.blend.external_files import Targets
from hms_ray.blend.members import read_members, targets_of, with_families, without_copies
from hms_ray.blend.result_files import BLEND_FILE, write_blend
from hms_ray.blend.settings import Settings, plan_blend
from hms_ray.blend.subset_report import describe_subsets, requested_costs
from hms_ray.blend.unseen import require_unseen
from hms_ray.display.blend_table import render_blend
from hms_ray.display.cells import RECALIBRATED, RECALIBRATED_LEGEND
from hms_ray.display.live import bar
from hms_ray.display.tables import to_text
from hms_ray.ensemble.report import blend_report
from hms_ray.errors import StudyError
from hms_ray.evaluate.calibration import recalibrated_scores
from hms_ray.evaluate.metric import named_scores
from hms_ray.evaluate.shares import Renormalised
from hms_ray.ladder.manifest import Manifest
from hms_ray.storage.atomic import require_writable
from hms_ray.storage.folder_names import BLEND, require_kind
from hms_ray.study.folder import StudyFolder


def blend(
    inputs: Sequence[str | Path],
    results: str | Path = "results",
    settings: Settings | None = None,
    manifest: Manifest | None = None,
) -> str:
    """Blends models and writes the method, its estimates and its predictions.

    Writes ``blend.json`` (method, members, duality gap, estimates) and two tables of blended
    predictions: ``oof_nested.parquet``, by weights fitted on other patients (with
    ``--method auto`` the method is chosen on other patients too), and
    ``oof_in_sample.parquet``, by weights fitted on the same rows.

    Args:
        inputs: see ``read_members``.
        results: folder of studies, ladders and the fold store.
        settings: of the command; default: simplex weights.
        manifest: of the ladder that has the published ensembles.

    Returns:
        The text to print.

    Raises:
        ConfigError: if the folder cannot be written to.
        StudyError: if a number is out of range, or an input is missing or damaged.
        PredictionError: if predictions, targets and settings do not match; or see
            ``require_unseen``.
    """
    settings = settings or Settings()
    if settings.n_splits < 2:
        raise StudyError(
            "nested cross-validation needs at least two groups of patients",
            got=settings.n_splits,
            fix="Use --splits 2 or more.",
        )
    if settings.seed < 0:
        raise StudyError("the seed must be at least 0", got=settings.seed)
    place = settings.out or blend_folder(inputs, results)
    require_kind(place, "blend", "--out DIR")
    require_writable(place / BLEND_FILE)
    members, copies = _members(inputs, results, settings)
    plan = plan_blend(settings, members, manifest)
    costs = requested_costs(members, settings)
    targets = targets_of(
        members,
        settings.targets,
        results,
        settings.target_columns,
        settings.row_unit,
        renormalise=settings.renormalise,
    )
    found = {member.name: member.renormalised for member in members}
    found[targets.name] = targets.renormalised
    renormalised = {name: done for name, done in found.items() if done is not None}
    data = align(members, targets, settings.rows)
    # Matrix products are small here: threads gain little, and on busy cores they make the
    # whole run several times slower.
    with threadpool_limits(1), bar("nested estimates", "splits", delay_s=3) as progress:
        report = blend_report(
            data.targets,
            data.probabilities,
            [member.name for member in members],
            data.patients,
            data.votes,
            candidates=plan.candidates,
            method=plan.method,
            objective=settings.fit_on or targets.objective or "kl_all",
            optimistic=[member.optimistic for member in members],
            n_splits=settings.n_splits,
            seed=settings.seed,
            progress=progress,
        )
        recalibrated = recalibrated_scores(
            data.targets, report.nested.probabilities, data.patients, data.votes
        )
        subset_texts, subsets = describe_subsets(
            members, data, report.selection.objective, settings, costs
        )
    write_blend(place, report, members, data, recalibrated, subsets, renormalised)
    parts = [
        render_blend(report),
        to_text(
            _recalibrated_text(recalibrated),
            *copies,
            *_notes(targets, data, renormalised),
            *subset_texts,
        ),
    ]
    return "\n\n".join([*filter(None, parts), f"written to {place}"])


def _members(
    inputs: Sequence[str | Path], results: str | Path, settings: Settings
) -> tuple[list[Member], tuple[str, ...]]:
    """The models to blend, which may be blended, and lines about identical ones."""
    found = read_members(
        inputs, results, settings.columns, settings.row_unit, renormalise=settings.renormalise
    )
    members, copies = without_copies(
        with_families(found, settings.families), drop=settings.drop_identical
    )
    require_unseen(members, settings.targets, results)
    return members, copies


def blend_folder(inputs: Sequence[str | Path], results: str | Path) -> Path:
    """Default folder of a blend: in the study if it is the only input, otherwise in RESULTS."""
    study = StudyFolder.find(inputs[0], results) if len(inputs) == 1 else None
    return (Path(results) if study is None else study.path) / BLEND


def _recalibrated_text(scores: Mapping[str, float | None]) -> str:
    found = named_scores(scores)
    return f"Nested, {RECALIBRATED}: {found}. {RECALIBRATED_LEGEND}" if found else ""


def _notes(targets: Targets, data: Aligned, renormalised: Mapping[str, Renormalised]) -> list[str]:
    notes = [f"{name}: {done}." for name, done in renormalised.items()]
    if data.n_dropped:
        notes.append(
            f"Dropped {data.n_dropped:,} rows of {targets.name} that some model does not predict."
        )
    if targets.n_unknown:
        notes.append(
            f"{targets.n_unknown:,} rows have an unknown number of votes; they are treated as "
            "rows with few votes."
        )
    return [" ".join(notes)] if notes else []
