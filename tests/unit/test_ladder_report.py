from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hms_ray.errors import StudyError
from hms_ray.evaluate.step_scores import GROUPS
from hms_ray.ladder.report import make_report, write_report
from hms_ray.ladder.result import StepResult
from hms_ray.report.ladder_page import ladder_page, ladder_table
from hms_ray.report.ladder_report import LadderReport
from hms_ray.report.ladder_table import ladder_sheets, render_ladder
from hms_ray.report.sheet import Sheet, markdown_table, markdown_text
from hms_ray.report.text_table import Column
from tests.ladder_data import ABOUT, FLOORS, ladder, probabilities, step


@pytest.fixture(scope="module")
def report() -> LadderReport:
    return make_report(*ladder(), ABOUT)


def section(text: str, title: str) -> str:
    """A table of the text, from its title to the next empty line."""
    return next(part for part in text.split("\n\n") if part.split("\n")[0] == title)


def line_of(table: str, name: str) -> str:
    (line,) = [line for line in table.splitlines() if f" {name} " in line]
    return line


def markdown_rows(page: str, title: str) -> list[dict[str, str]]:
    """A table of the page as mappings; every line must have as many cells as the head."""
    part = page.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == len(cells[0]) for row in cells)
    assert all(re.fullmatch(r"-{3}:?", rule) for rule in cells[1])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_ties_are_called_ties(report: LadderReport) -> None:
    table = section(render_ladder(report), "Difference to the step before")
    assert line_of(table, "copy").count(" t") == 3
    assert re.findall(r" t\b", line_of(table, "averaged")) == []
    assert "A tie: the paired 95% interval" in " ".join(table.split())
    rows = markdown_rows(ladder_page(report), "Difference to the step before")
    assert rows[1]["KL all"].endswith(" tie")
    assert rows[2]["KL all"].endswith(" better")
    assert rows[3]["KL all"].endswith(" worse")
    assert rows[0]["KL all"] == "-"
    assert rows[2]["against"] == "1 panels"


def test_a_gain_of_confidence_alone_is_a_tie_after_recalibration(report: LadderReport) -> None:
    title = "Difference to the step before, both recalibrated"
    assert line_of(section(render_ladder(report), title), "sharp").count(" t") == 3
    assert markdown_rows(ladder_page(report), title)[3]["KL \\>=10"].endswith(" tie")


def test_two_stage_figures_stand_beside_the_rows_of_the_second_stage(report: LadderReport) -> None:
    rows = {
        row["step"]: row
        for row in markdown_rows(ladder_page(report), "Published figures beside ours")
    }
    two, one = rows["two\\_stages"], rows["averaged"]
    assert (two["published all"], two["published stage-2"]) == ("-", "0.4142")
    assert (one["published all"], one["published stage-2"]) == ("0.6290", "-")
    assert two["our KL stage-2"] == f"{report.steps[4].kl('kl_stage_2'):.4f}"
    assert two["our KL stage-2"] != two["our KL all"]
    assert (two["published board"], one["published board"]) == ("0.34", "-")
    assert "Two-stage figures were published on the rows of the second stage alone" in (
        ladder_page(report)
    )


def test_distance_to_the_floors(report: LadderReport) -> None:
    averaged = report.steps[2]
    kl = averaged.kl("kl_10")
    assert kl is not None
    found = report.floor_distance(averaged, "tier_unknown", "kl_10")
    assert found is not None
    assert found.above == pytest.approx(kl - 0.12)
    assert found.share == pytest.approx((0.90 - kl) / (0.90 - 0.12))
    table = section(render_ladder(report), "Distance to a model that knows all but who voted")
    assert f"{kl - 0.12:+.4f}  {found.share:.0%}" in line_of(table, "averaged")


@pytest.mark.parametrize(
    "floors",
    [None, {}, {"perfect": FLOORS["perfect"]}, {**FLOORS, "class_mean": {"kl_all": 0.1}}],
)
def test_unknown_floors_are_left_out(floors: Any) -> None:
    report = make_report(*ladder(), {**ABOUT, "floors": floors})
    text = render_ladder(report)
    assert ("Distance to the perfect model" in text) == bool(floors)
    distance = report.floor_distance(report.steps[0], "perfect", "kl_all")
    assert (distance is None) == (not floors)
    assert distance is None or distance.share is None
    json.dumps(report.to_json(), allow_nan=False)


def test_optimistic_scores_are_marked(report: LadderReport) -> None:
    text = section(render_ladder(report), "Scores")
    assert line_of(text, "sharp").startswith("4*")
    assert line_of(text, "panels").startswith("1 ")
    assert "* optimistic: its checkpoints were chosen on the rows" in text
    rows, results = ladder()
    clean = make_report(rows, [replace(result, optimistic=False) for result in results], ABOUT)
    assert "optimistic:" not in render_ladder(clean)
    assert "4\\*" in ladder_page(report)
    assert "4\\*" not in ladder_page(clean)


def test_simulated_data_are_called_simulated(report: LadderReport) -> None:
    page = ladder_page(report)
    assert page.startswith("# The ladder: simulated data\n")
    assert "no figure here is of recorded EEGs (profile small, seed 0, patients 40" in page
    assert "Ladder of 6 steps on simulated data: 258 rows of 40 patients" in render_ladder(report)
    recorded = make_report(*ladder(), {**ABOUT, "simulated": False, "simulator": None})
    assert "imulated" not in render_ladder(recorded)
    assert "# The ladder\n" in ladder_page(recorded)


def test_the_page_says_where_its_figures_come_from(report: LadderReport) -> None:
    page = ladder_page(report)
    for line in (
        "- Command: `hms-ray ladder --data simulated --scale small`",
        "- Scale: small, the overlay `small.yaml` over every experiment",
        "- Seed: 42",
        "- Machine: cpu two cores, memory\\_gb 8",
        "- Date: 2026-11-25",
    ):
        assert f"\n{line}\n" in page
    full = ladder_page(make_report(*ladder(), {**ABOUT, "scale": "full"}))
    assert "\n- Scale: full\n" in full


def test_one_experiment_by_two_names_is_no_tie(report: LadderReport) -> None:
    text = render_ladder(report)
    assert report.same_experiments() == [["averaged", "two_stages"]]
    assert "trained once: averaged, two_stages." in " ".join(section(text, "Steps").split())
    for title in ("Difference to the step before", "Difference to the step before, both recal"):
        table = next(part for part in text.split("\n\n") if part.startswith(title))
        assert line_of(table, "two_stages").split()[-3:] == 3 * ["same"]
        assert "same: both predict exactly the same" in table
    detectable = section(text, "Smallest detectable difference")
    assert line_of(detectable, "two_stages").split()[-6:] == 6 * ["-"]
    score = report.steps[4].scores["kl_all"]
    assert score is not None
    assert score.to_json()["difference"]["verdict"] == "same"
    rows, results = ladder()
    others = render_ladder(make_report(rows, results[:4], ABOUT))
    assert "same" not in others.replace("the same", "")
    assert "trained once" not in others


def test_failed_steps_are_on_the_page(report: LadderReport) -> None:
    assert "failed" not in ladder_page(report)
    failed = {"a_b": "its member c failed"}
    page = ladder_page(make_report(*ladder(), {**ABOUT, "failed": failed}))
    assert "\n## Steps that failed\n\n- a\\_b: its member c failed\n" in page


def test_cost_counts_an_experiment_once(report: LadderReport) -> None:
    # Two of the five are one experiment, and a blend costs nothing.
    assert report.trained_minutes() == (8.0, 0.5)
    table = section(render_ladder(report), "Cost")
    assert "8.0 fold-minutes by themselves" in table
    assert "saved 0.5 (6%)" in " ".join(table.split())
    assert line_of(table, "averaged").split()[-3:] == ["2.0", "0.5", "1.5"]


def test_weights_of_blends(report: LadderReport) -> None:
    assert "fixed    0.500 #1 + 0.500 #3" in section(render_ladder(report), "Weights of blends")
    (row,) = markdown_rows(ladder_page(report), "Weights of blends")
    assert row["members"] == "0.500 panels + 0.500 averaged"


def many_steps() -> tuple[Any, list[StepResult]]:
    """Forty steps with long names, the last one a blend of all others."""
    rows, results = ladder(n_patients=12)
    names = [f"kaggle and eeg percentiles with global norm | {number}" for number in range(39)]
    steps = [
        step(
            name,
            rows,
            probabilities(results[number % 6]),
            names[number - 1] if number else None,
            change="a long sentence about what this step changes against the one before it",
            optimistic=number % 2 == 0,
            chain="one_factor",
            fold_minutes=1234.5,
        )
        for number, name in enumerate(names)
    ]
    weights = dict.fromkeys(names, 1 / 39)
    changes = {"kind": "optimised_blend", "weights": weights}
    blend = step("all of them", rows, probabilities(results[5]), names[0], **changes)
    return rows, [*steps, blend]


@pytest.fixture(scope="module")
def long_report() -> LadderReport:
    return make_report(*many_steps(), ABOUT)


def test_no_line_is_longer_than_80_columns(report: LadderReport, long_report: LadderReport) -> None:
    for text in (render_ladder(report), render_ladder(long_report)):
        assert max(map(len, text.splitlines())) <= 80
        assert "\n\n\n" not in text


def test_long_ladders_name_every_member_of_a_blend(long_report: LadderReport) -> None:
    table = section(render_ladder(long_report), "Weights of blends")
    assert len(re.findall(r"0\.026 #\d+", table)) == 39
    rows = markdown_rows(ladder_page(long_report), "Steps")
    assert rows[3]["step"] == "kaggle and eeg percentiles with global norm \\| 3"


def test_every_table_of_the_page_is_one(report: LadderReport) -> None:
    page = ladder_page(report)
    sheets = ladder_sheets(report, "markdown")
    assert len(sheets) == 12
    for sheet in sheets:
        n_lines = 1 if sheet.title == "Weights of blends" else 6
        assert len(markdown_rows(page, sheet.title)) == n_lines


def test_rows_without_many_votes_leave_gaps_and_no_nan(tmp_path: Path) -> None:
    rows, results = ladder()
    few = rows.assign(total_votes=np.minimum(rows["total_votes"], 9))
    report = make_report(few, results, ABOUT)
    assert line_of(section(render_ladder(report), "Scores"), "panels").endswith("  -")
    write_report(tmp_path, report)
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["steps"][1]["scores"]["kl_10"] is None
    assert content["rows"]["kl_10"] == 0
    assert not re.search(r"\bnan\b", (tmp_path / "README.md").read_text().lower())


def test_one_patient_has_no_interval_to_show() -> None:
    rows, results = ladder()
    one = rows.assign(patient_id=1)
    alone = [replace(result, oof=result.oof.assign(patient_id=1)) for result in results]
    report = make_report(one, alone, ABOUT)
    text = render_ladder(report)
    assert "+-?" in line_of(section(text, "Scores"), "panels")
    assert "inf" not in text
    assert "inf" not in ladder_page(report)
    json.dumps(report.to_json(), allow_nan=False)


def test_the_table_file_has_a_line_a_step_with_everything(
    report: LadderReport, tmp_path: Path
) -> None:
    write_report(tmp_path, report)
    with (tmp_path / "ladder.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == [step.name for step in report.steps]
    averaged, first = lines[2], lines[0]
    assert float(averaged["kl_10"]) == pytest.approx(report.steps[2].kl("kl_10"))
    assert averaged["kl_10_difference_verdict"] == "better"
    assert lines[1]["kl_all_difference_verdict"] == "tie"
    assert first["kl_all_difference"] == ""
    assert lines[4]["published_group"] == "kl_stage_2"
    assert json.loads(lines[5]["weights"]) == {"panels": 0.5, "averaged": 0.5}
    for group in GROUPS:
        for name in ("", "_low", "_rows", "_bootstrap_high", "_recalibrated"):
            assert float(averaged[f"{group}{name}"]) > 0
        assert float(averaged[f"{group}_recalibrated_difference_detectable"]) > 0
    assert float(averaged["kl_all_share_perfect"]) < 1
    assert (tmp_path / "README.md").read_text() == ladder_page(report)
    assert list(ladder_table(report)) == list(lines[0])


def test_a_report_is_made_of_a_ladder_only() -> None:
    rows, results = ladder()
    with pytest.raises(StudyError, match=r"different names, got panels"):
        make_report(rows, [results[0], results[0]], ABOUT)


def test_markdown_has_no_markup_of_its_own() -> None:
    columns = [Column("a|b", ["x_y"], right=False), Column("n", ["1*"])]
    assert markdown_table(columns) == ["| a\\|b | n |", "| --- | ---: |", "| x\\_y | 1\\* |"]
    assert markdown_text("a\nb `c` [d]") == "a b \\`c\\` \\[d\\]"


def test_an_elastic_column_is_cut_before_a_line_is_too_long() -> None:
    columns = (
        Column("step", ["a name of some length"], right=False),
        Column("note", ["a note of some length"], right=False),
        Column("value", ["0.1234"]),
    )
    lines = Sheet("title", columns, ("some words below",), ("note", "step")).to_text(40)
    assert lines[-2] == "a name of some length  a note...  0.1234"
    assert lines[-1] == "some words below"
    lines = Sheet("title", columns, (), ("note", "step")).to_text(30)
    assert lines[-1] == "a name of...  a not...  0.1234"
