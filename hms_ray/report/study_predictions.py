"""What a study's report shows of the predictions."""

from __future__ import annotations

from typing import Final

import pandas as pd

from hms_ray.competition.schema import CLASSES
from hms_ray.display.cells import rows_text
from hms_ray.display.tables import Column, Table
from hms_ray.report import figures, frames
from hms_ray.report.page import code, paragraphs, table
from hms_ray.report.study_view import (
    StudyView,
    ends_cell,
    score_cell,
    share_cell,
)
from hms_ray.text import command_line, counted

_MIN_ROWS: Final = 10
"""Summed share of the votes below which a class is not spoken of."""


def parts(view: StudyView) -> list[str]:
    """KL of the best trials and the blend, by class and by votes."""
    frame = frames.kl_parts(view.data)
    if frame.empty:
        return []
    rows = rows_text(view.objective)
    texts = {
        "class": f"Parts of {view.score} by class ({rows}); they sum to it. A part below 0: "
        "the class is predicted above its share.",
        "tier": "Mean KL of rows with 1-3, 4-9 and at least 10 votes.",
    }
    made = []
    for by, text in texts.items():
        chosen = frame[frame["by"] == by]
        wide = chosen.pivot(index="model", columns="part", values="kl")
        wide = wide.loc[chosen["model"].unique(), chosen["part"].unique()]
        columns = [Column("model", [str(name) for name in wide.index], right=False)]
        columns += [Column(str(part), [score_cell(kl) for kl in wide[part]]) for part in wide]
        about = "KL by class" if by == "class" else "KL by number of votes"
        numbers = table(Table(about, tuple(columns)))
        made.append(view.page.figure(figures.kl_parts(frame, by), about, text, numbers))
    return [f'<div class="pair">{"".join(made)}</div>']


def confusion(view: StudyView) -> list[str]:
    """Confusion of vote shares of the best trial."""
    frame = frames.confusion(view.data)
    if frame.empty:
        return []
    wide = frame.pivot(index="true", columns="predicted", values="share").loc[list(CLASSES)]
    ideal = frame.pivot(index="true", columns="predicted", values="ideal").loc[list(CLASSES)]
    rows = frame.drop_duplicates("true").set_index("true")["rows"]
    columns = (
        Column("experts' votes", list(CLASSES), right=False),
        *(
            Column(
                name,
                [
                    f"{share_cell(a)} ({share_cell(b)})"
                    for a, b in zip(wide[name], ideal[name], strict=True)
                ],
            )
            for name in CLASSES
        ),
        Column("rows", [f"{rows[name]:,.1f}" for name in CLASSES]),
    )
    note = "In brackets: the same for predictions equal to the votes."
    return [
        paragraphs(_largest_confusion(frame)),
        view.page.figure(
            figures.confusion(frame),
            f"Mean predicted share by the class that experts voted for, {view.best}",
            f"Of {view.best} on {rows_text(view.objective)}. Each row: the mean predicted "
            "shares where experts voted for its class, weighted by their share of votes; it "
            "sums to 1. Experts disagree, so a perfect model has less than 1 on the diagonal "
            "(its numbers are in the table).",
            table(Table("Mean predicted share", columns, (note,))),
        ),
        paragraphs("The rows themselves, those of largest loss first:"),
        code(command_line("rows", view.folder.name)),
    ]


def reliability(view: StudyView) -> list[str]:
    """Reliability and ECE of the best trial."""
    frame = frames.reliability(view.data)
    if frame.empty:
        return []
    ece = frame.drop_duplicates("name")
    means = Table(
        "Expected calibration error (ECE)",
        (
            Column("class", ece["name"].tolist(), right=False),
            Column("ECE", [f"{value:.4f}" for value in ece["ece"]]),
        ),
        (f"Mean over classes: {ece['ece'].mean():.4f}.",),
    )
    bins = frame[frame["rows"] > 0]
    numbers = Table(
        "Bins",
        (
            Column("class", bins["name"].tolist(), right=False),
            Column(
                "bin",
                [f"{a:.1f} to {b:.1f}" for a, b in zip(bins["low"], bins["high"], strict=True)],
            ),
            Column("rows", [f"{count:,}" for count in bins["rows"]]),
            Column("predicted", [f"{value:.3f}" for value in bins["predicted"]]),
            Column("votes", [f"{value:.3f}" for value in bins["true"]]),
        ),
    )
    return [
        view.page.figure(
            figures.reliability(frame),
            f"Mean predicted share against mean share of the votes by class, {view.best}",
            f"Of {view.best} on {rows_text(view.objective)}, in ten bins of the predicted "
            "share; bars count the rows of a bin. Points above the dashed line: predicted too "
            "low. ECE: mean distance from the line, weighted by rows (Naeini et al. 2015; by "
            "class as in Kull et al. 2019). Few votes are noisy, so it is above 0 for a "
            "perfect model too.",
            table(numbers),
        ),
        table(means),
    ]


def discrimination(view: StudyView) -> list[str]:
    """AUROC and AUPRC of the best trial."""
    frame = frames.discrimination(view.data)
    if frame.empty:
        return []

    def area(name: str) -> list[str]:
        ends = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
        return [f"{value:.4f} {ends_cell(low, high)}" for value, low, high in ends]

    columns = (
        Column("class", frame["name"].tolist(), right=False),
        Column("AUROC", area("auroc")),
        Column("AUPRC", area("auprc")),
        Column("AUPRC of a constant", [f"{share:.4f}" for share in frame["share"]]),
    )
    counts = (
        f"{counted(int(frame['rows'].iloc[0]), 'row')} of "
        f"{counted(int(frame['patients'].iloc[0]), 'patient')} with >= 10 votes."
    )
    note = (
        "Each row is positive with its share of the votes and negative with the rest. "
        "95% intervals: bootstrap over patients."
    )
    return [
        view.page.figure(
            figures.discrimination(frame),
            f"AUROC and AUPRC of each class with 95% intervals, {view.best}",
        ),
        table(Table(f"Areas of {view.best}", columns, (note, counts))),
    ]


def correlation(view: StudyView) -> list[str]:
    """Correlation of the errors of the best trials."""
    frame = frames.error_correlation(view.data)
    if frame.empty:
        return []
    columns = [Column("trial", [str(name) for name in frame.index], right=False)]
    columns += [Column(str(name), [share_cell(value) for value in frame[name]]) for name in frame]
    return [
        view.page.figure(
            figures.error_correlation(frame),
            "Correlation of the errors of the best trials",
            f"Of the errors, predicted minus true shares, of the best trials on "
            f"{rows_text(view.objective)}. The lower it is, the more a blend gains.",
            table(Table("Correlation of errors", tuple(columns))),
        )
    ]


def _largest_confusion(frame: pd.DataFrame) -> str:
    """The class that takes most from another one, beyond what experts themselves do."""
    apart = frame[(frame["true"] != frame["predicted"]) & (frame["rows"] >= _MIN_ROWS)]
    if apart.empty:
        return ""
    excess = apart["share"] - apart["ideal"]
    worst = apart.iloc[int(excess.to_numpy().argmax())]
    if excess.max() < 0.02:
        return "No class takes much more from another one than the votes themselves."
    return (
        f"Largest confusion: where experts vote for {worst['true']}, {worst['predicted']} is "
        f"predicted with {worst['share']:.2f} on average; the votes themselves have "
        f"{worst['ideal']:.2f}."
    )
