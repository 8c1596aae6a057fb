"""A ladder's page in Markdown, and its data frame with one row per step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from hms_ray.display.ladder_report import ORACLES, LadderReport, StepLine
from hms_ray.display.ladder_table import heading, ladder_tables, verdict
from hms_ray.display.tables import markdown_text, to_markdown
from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.evaluate.step_scores import GROUPS, GroupScore


def ladder_page(report: LadderReport) -> str:
    """The page, Markdown."""
    lines = ["# The ladder" + (": simulated data" if report.simulated else ""), ""]
    lines += [markdown_text(heading(report)), "", markdown_text(verdict(report)), ""]
    lines += [*origin(report.about), *_failures(report)]
    for table in ladder_tables(report):
        lines += ["", *to_markdown(table)]
    return "\n".join(lines) + "\n"


def origin(about: Mapping[str, Any]) -> list[str]:
    """Data, command, seed, machine and date of a ladder's run."""
    data = f"`{about['data']}`"
    if about["simulated"]:
        data += ", simulated: no figure here comes from recorded EEGs"
        if about["simulator"]:
            data += f" ({_pairs(about['simulator'])})"
    scale = markdown_text(str(about["scale"]))
    if scale != "full":
        scale += f", every experiment with the overlay `{about['scale']}.yaml`"
    return [
        f"- Data: {data}",
        f"- Command: `{about['command']}`",
        f"- Scale: {scale}",
        f"- Seed: {markdown_text(str(about['seed']))}",
        f"- Machine: {_pairs(about['machine'])}",
        f"- Date: {markdown_text(str(about['date']))}",
    ]


def _failures(report: LadderReport) -> list[str]:
    """The steps that are missing from the tables, with reasons."""
    if not report.failed:
        return []
    reasons = [f"- {markdown_text(f'{name}: {reason}')}" for name, reason in report.failed.items()]
    note = "They are in no table; steps with one of them as baseline have no difference."
    return ["", "## Steps that failed", "", *reasons, "", note]


def _pairs(values: Mapping[str, Any]) -> str:
    return markdown_text(", ".join(f"{name} {_plain(value)}" for name, value in values.items()))


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " and ".join(map(str, value)) or "none"
    return str(value)


def ladder_table(report: LadderReport) -> pd.DataFrame:
    """One row per step with all of its scores."""
    return pd.DataFrame([_line(report, step) for step in report.steps])


def _line(report: LadderReport, step: StepLine) -> dict[str, Any]:
    line = {name: value for name, value in vars(step).items() if name != "scores"}
    line["weights"] = None if step.weights is None else json.dumps(step.weights)
    line["published_group"] = step.published_group
    for group in GROUPS:
        score = step.scores.get(group)
        line |= {f"{group}{name}": value for name, value in _group_line(score).items()}
    for oracle in ORACLES:
        for group in OBJECTIVES:
            distance = report.oracle_distance(step, oracle, group)
            for name in ("above", "share"):
                line[f"{group}_{name}_{oracle}"] = distance and getattr(distance, name)
    return line


def _group_line(score: GroupScore | None) -> dict[str, Any]:
    """Column suffix -> value; the columns do not depend on whether there are rows."""
    kl = score and score.kl
    line: dict[str, Any] = {"_rows": kl and kl.n_rows, "_patients": kl and kl.n_patients}
    for name in ("kl", "bootstrap", "recalibrated", "difference", "recalibrated_difference"):
        interval: Interval | None = None if score is None else getattr(score, name)
        plain = {} if interval is None else interval.to_json()
        prefix = "" if name == "kl" else f"_{name}"
        line |= {f"{prefix}{end}": plain.get(key) for end, key in _ENDS.items()}
        if "difference" in name:
            line |= {f"{prefix}_{key}": plain.get(key) for key in ("verdict", "detectable")}
    return line


_ENDS = {"": "mean", "_low": "low", "_high": "high"}
