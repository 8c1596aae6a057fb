"""Files of a blend: ``blend.json`` and two tables of predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import pandas as pd

from hms_ray.blend.align import Aligned, Member
from hms_ray.ensemble.result import BlendReport
from hms_ray.evaluate.metric import Array
from hms_ray.evaluate.oof import KEY_COLUMNS, OOF_COLUMNS, OPTIMISTIC, write_oof
from hms_ray.evaluate.shares import Renormalised
from hms_ray.storage import folder_names
from hms_ray.storage.hashing import table_fingerprint
from hms_ray.storage.structured_files import json_text, write_text

BLEND_FILE: Final = folder_names.BLEND_FILE
NESTED_FILE: Final = "oof_nested.parquet"
IN_SAMPLE_FILE: Final = "oof_in_sample.parquet"


def write_blend(
    place: Path,
    report: BlendReport,
    members: Sequence[Member],
    data: Aligned,
    recalibrated: Mapping[str, float | None],
    sets: dict[str, Any] | None = None,
    renormalised: Mapping[str, Renormalised] | None = None,
) -> None:
    """Writes ``blend.json`` and both tables of blended predictions into a folder.

    ``recalibrated`` are the scores of the nested predictions after nested recalibration;
    ``sets`` is the report on subsets as plain data, if requested; ``renormalised`` is what was
    renormalised, by model or file.
    """
    nested = _oof(data.rows, report.nested.probabilities, any(report.optimistic))
    write_oof(place / NESTED_FILE, nested)
    write_oof(place / IN_SAMPLE_FILE, _oof(data.rows, report.in_sample, optimistic=True))
    studies = {member.origin.get("study") for member in members}
    content = {
        **({"study": studies.pop()} if len(studies) == 1 and None not in studies else {}),
        "method": report.method,
        "fitted": report.fitted.to_json(),
        "members": [{"name": member.name, **member.origin} for member in members],
        "rows_fingerprint": table_fingerprint(data.rows),
        **report.to_json(),
        "nested_recalibrated": dict(recalibrated),
        "oof": {"nested": NESTED_FILE, "in_sample": IN_SAMPLE_FILE},
        **({} if sets is None else {"sets": sets}),
        "renormalised": {name: asdict(done) for name, done in (renormalised or {}).items()},
    }
    write_text(place / BLEND_FILE, json_text(content))


def _oof(rows: pd.DataFrame, blended: Array, optimistic: bool) -> pd.DataFrame:
    """A table of blended predictions; ``attrs`` mark it as optimistic if it is."""
    oof = rows[list(KEY_COLUMNS)].copy()
    oof.attrs = {**rows.attrs, **({OPTIMISTIC: True} if optimistic else {})}
    oof["row_id"] = oof["row_id"].astype(str)
    oof[list(OOF_COLUMNS[len(KEY_COLUMNS) :])] = blended
    return oof
