"""What a blend came to: its method, its text, and the files that are kept of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from hms_ray.blending.alignment import Aligned, Member
from hms_ray.blending.settings import SIMPLEX
from hms_ray.competition.rows import table_fingerprint
from hms_ray.evaluate.blend import blend_probabilities
from hms_ray.evaluate.blend_report import BlendReport
from hms_ray.evaluate.honest import nested_blend
from hms_ray.evaluate.method_report import MethodReport
from hms_ray.evaluate.metric import OBJECTIVES, Array, mean_by_objective, row_sums
from hms_ray.evaluate.oof import KEY_COLUMNS, OOF_COLUMNS, write_oof
from hms_ray.evaluate.pools.arithmetic import FittedMean
from hms_ray.evaluate.pools.interface import FittedPool
from hms_ray.report.blend_table import render_blend
from hms_ray.report.method_table import render_methods
from hms_ray.report.text_table import WIDTH, Column, shortened, text_table, wrapped
from hms_ray.study.files import json_text, write_text

BLEND_FILE: Final = "blend.json"
NESTED_FILE: Final = "oof_nested.parquet"
IN_SAMPLE_FILE: Final = "oof_in_sample.parquet"

_OF_SIMPLEX: Final = ("objective", "gap", "iterations", "nested_blend", "nested_blend_minus")
"""What the report of simplex weights tells that is not so of another method."""


@dataclass(frozen=True)
class Outcome:
    """The blend that is used.

    Attributes:
        method: name of its pool.
        fitted: on all patients.
        nested: (n, 6) fitted, and chosen where it was, on other patients.
        in_sample: (n, 6) of ``fitted``.
        told: plain data of the estimates.
        text: to print.
    """

    method: str
    fitted: FittedPool
    nested: Array
    in_sample: Array
    told: dict[str, Any]
    text: str


def simplex_outcome(report: BlendReport, data: Aligned, seed: int) -> Outcome:
    """Simplex weights, as their report has them."""
    nested = nested_blend(
        data.targets,
        data.probabilities,
        data.patients,
        report.n_splits,
        seed,
        data.votes >= OBJECTIVES[report.fit_rows],
    )
    fit = report.fit
    facts = {"objective": fit.objective, "gap": fit.gap, "iterations": fit.iterations}
    return Outcome(
        method=SIMPLEX,
        fitted=FittedMean(fit.weights, facts),
        nested=nested.probabilities,
        in_sample=blend_probabilities(data.probabilities, fit.weights),
        told={**report.to_json(), "nested": report.methods[2].nested},
        text=render_blend(report),
    )


def method_outcome(report: BlendReport, methods: MethodReport) -> Outcome:
    """Another method, rated beside equal weights and the simplex."""
    told = report.to_json()
    told["simplex"] = {name: told.pop(name) for name in _OF_SIMPLEX} | {"weights": told["weights"]}
    fitted = methods.fitted
    told["weights"], told["gap"] = None, fitted.to_json().get("gap")
    if isinstance(fitted, FittedMean):
        told["weights"] = dict(zip(report.names, fitted.weights.tolist(), strict=True))
        told["gap"] = fitted.facts.get("gap")
    told |= {"nested": methods.nested_scores, **methods.to_json()}
    parts = [render_methods(methods, report.names)]
    if isinstance(fitted, FittedMean):
        parts.append(_weights(fitted.weights, report))
    if any(report.optimistic):
        said = (
            f"Optimistic: the checkpoints of {sum(report.optimistic)} of {len(report.names)} "
            "models were chosen on the rows that are scored here, which flatters every figure "
            "above."
        )
        parts.append("\n".join(wrapped(said, WIDTH)))
    return Outcome(
        methods.method, fitted, methods.nested, methods.in_sample, told, "\n\n".join(parts)
    )


def write_outcome(
    place: Path,
    outcome: Outcome,
    members: Sequence[Member],
    data: Aligned,
    sets: dict[str, Any] | None = None,
) -> None:
    """Writes ``blend.json`` and both tables of blended predictions.

    Args:
        place: folder, made where absent.
        outcome: the blend.
        members: its models, in the order of the pool.
        data: rows and predictions.
        sets: plain data of the sets of models, where they were asked for.
    """
    for name, blended in ((NESTED_FILE, outcome.nested), (IN_SAMPLE_FILE, outcome.in_sample)):
        write_oof(place / name, _oof(data.rows, blended))
    studies = {member.origin.get("study") for member in members}
    content = {
        **({"study": studies.pop()} if len(studies) == 1 and None not in studies else {}),
        "method": outcome.method,
        "pool": outcome.fitted.to_json(),
        "members": [{"name": member.name, **member.origin} for member in members],
        "rows_fingerprint": table_fingerprint(data.rows),
        **outcome.told,
        "in_sample": mean_by_objective(row_sums(data.targets, outcome.in_sample), data.votes),
        "oof": {"nested": NESTED_FILE, "in_sample": IN_SAMPLE_FILE},
        **({} if sets is None else {"sets": sets}),
    }
    write_text(place / BLEND_FILE, json_text(content))


def _oof(rows: pd.DataFrame, blended: Array) -> pd.DataFrame:
    oof = rows[list(KEY_COLUMNS)].copy()
    oof["row_id"] = oof["row_id"].astype(str)
    oof[list(OOF_COLUMNS[len(KEY_COLUMNS) :])] = blended
    return oof


def _weights(weights: Array, report: BlendReport) -> str:
    shown = [number for number in np.argsort(-weights, kind="stable") if weights[number] > 0]
    column = Column("weight", [f"{weights[number]:.4f}" for number in shown])
    room = WIDTH - column.width - 4
    names = [
        shortened(report.names[number], room) + (" *" if report.optimistic[number] else "")
        for number in shown
    ]
    return "\n".join(text_table([column, Column("model", names, right=False)]))
