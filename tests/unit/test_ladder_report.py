from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hms_ray.display.ladder_page import ladder_page, ladder_table
from hms_ray.display.ladder_report import LadderReport
from hms_ray.display.ladder_table import ladder_tables, render_ladder
from hms_ray.errors import StudyError
from hms_ray.evaluate.step_scores import GROUPS
from hms_ray.ladder.report import make_report, write_report
from tests.ladder_data import ABOUT, ORACLES, ladder


@pytest.fixture(scope="module")
def report() -> LadderReport:
    return make_report(*ladder(), ABOUT)


PUBLISHED = "Our scores and published figures"


def cells_of(report: LadderReport, title: str, step: str) -> dict[str, str]:
    """Column -> cell of one step."""
    table = next(table for table in ladder_tables(report) if table.title == title)
    names = [name.removesuffix(" *") for name in table.columns[0].cells]
    place = names.index(step)
    return {column.title: column.cells[place].replace("\xa0", " ") for column in table.columns}


def markdown_rows(page: str, title: str) -> list[dict[str, str]]:
    """A table of the page as mappings; every line must have as many cells as the head."""
    part = page.split(f"## {title}\n")[1].split("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert all(len(row) == len(cells[0]) for row in cells)
    assert all(re.fullmatch(r"-{3}:?", rule) for rule in cells[1])
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_differences_have_interval_and_verdict(report: LadderReport) -> None:
    title = "Difference to the baseline"
    assert cells_of(report, title, "copy")["KL all"].endswith(" tie")
    averaged = cells_of(report, title, "averaged")
    assert re.fullmatch(r"-0\.\d{4} \[-0\.\d{4}, -0\.\d{4}\] better", averaged["KL all"])
    assert averaged["baseline"] == "panels"
    assert cells_of(report, title, "sharp")["KL >=10"].endswith(" worse")
    assert cells_of(report, title, "panels")["KL all"] == "-"
    rows = markdown_rows(ladder_page(report), title)
    assert rows[2]["KL all"].replace("\\", "") == averaged["KL all"]
    assert "tie: the paired 95% interval" in ladder_page(report)


def test_verdict_comes_first(report: LadderReport) -> None:
    score = report.steps[2].kl("kl_all")
    verdict = " ".join(render_ladder(report, 120).split("\n\n")[1].split())
    assert verdict.startswith(f"Lowest KL all: {score:.4f} [")
    assert "step averaged. Steps against their baselines by KL all: better 1, tie 1," in verdict
    first = make_report(*(part[:1] if isinstance(part, list) else part for part in ladder()), ABOUT)
    assert "baselines" not in render_ladder(first).split("\n\n")[1]


def test_gain_of_confidence_alone_is_a_tie_after_recalibration(report: LadderReport) -> None:
    cells = cells_of(report, "Difference to the baseline, both recalibrated", "sharp")
    assert [cells[name][-4:] for name in ("KL all", "KL >=4", "KL >=10")] == 3 * [" tie"]


def test_two_stage_figures_are_shown_on_rows_of_the_second_stage(report: LadderReport) -> None:
    two, one = (cells_of(report, PUBLISHED, name) for name in ("two_stages", "averaged"))
    assert (two["published rows"], two["published best"]) == ("stage 2", "0.4142")
    assert (one["published rows"], one["published best"]) == ("all", "0.6290")
    assert two["our KL stage 2"] == f"{report.steps[4].kl('kl_stage_2'):.4f}"
    assert two["our KL stage 2"] != two["our KL all"]
    assert (two["public score"], one["public score"]) == ("0.34", "-")
    assert "published on the rows of the second stage alone" in ladder_page(report)


def test_scores_are_compared_with_the_published_ones_of_the_same_checkpoint() -> None:
    report = make_report(*ladder(), {**ABOUT, "simulated": False, "simulator": None})
    steps = {step.name: step for step in report.steps}
    for name, kept, published in (
        ("panels", "last", 0.7914),
        ("sharp", "best", 0.6767),
        ("averaged", "last", None),
        ("two_stages", "last", 0.4572),
        ("blend", "last", None),
    ):
        cells = cells_of(report, PUBLISHED, name)
        ours = steps[name].kl("kl_stage_2" if name == "two_stages" else "kl_all")
        assert ours is not None
        difference = "-" if published is None else f"{ours - published:+.4f}"
        assert (cells["kept"], cells["ours minus published"]) == (kept, difference)
    assert cells_of(report, PUBLISHED, "panels")["published last"] == "0.7914"
    assert "(kept: last) with published last" in ladder_page(report)
    lines = {line["name"]: line for line in ladder_table(report).to_dict("records")}
    assert (lines["panels"]["published_last"], lines["sharp"]["checkpoint"]) == (0.7914, "best")


@pytest.mark.parametrize(
    ("departures", "note"),
    [
        (None, ""),
        ({"panels": [], "copy": []}, "All values of the published recipes are used as published."),
        (
            {"panels": ["a.b", "c"], "copy": ["c"]},
            "Values that differ from the published recipes: a.b (in panels), c.",
        ),
    ],
)
def test_page_names_departures_from_the_published_recipes(departures: Any, note: str) -> None:
    page = ladder_page(make_report(*ladder(), {**ABOUT, "departures": departures}))
    assert f"\n{note}\n" in page
    assert ("published recipes" in page) == bool(note)


def test_levels_of_simulated_data_are_not_compared(report: LadderReport) -> None:
    cells = cells_of(report, PUBLISHED, "panels")
    assert "ours minus published" not in cells
    assert (cells["published last"], cells["published best"]) == ("0.7914", "0.7287")


def test_distance_to_the_oracles(report: LadderReport) -> None:
    averaged = report.steps[2]
    kl = averaged.kl("kl_10")
    assert kl is not None
    found = report.oracle_distance(averaged, "tier_unknown", "kl_10")
    assert found is not None
    assert found.above == pytest.approx(kl - 0.12)
    assert found.share == pytest.approx((0.90 - kl) / (0.90 - 0.12))
    title = "Distance to an oracle that does not know who voted"
    cells = cells_of(report, title, "averaged")
    assert cells["KL >=10"] == f"{kl - 0.12:+.4f}  {found.share:.0%}"


@pytest.mark.parametrize(
    "floors",
    [None, {}, {"perfect": ORACLES["perfect"]}, {**ORACLES, "class_mean": {"kl_all": 0.1}}],
)
def test_unknown_oracles_have_no_table(floors: Any) -> None:
    report = make_report(*ladder(), {**ABOUT, "floors": floors})
    text = render_ladder(report)
    assert ("Distance to the oracle, which" in text) == bool(floors)
    distance = report.oracle_distance(report.steps[0], "perfect", "kl_all")
    assert (distance is None) == (not floors)
    assert distance is None or distance.share is None


def test_optimistic_scores_are_marked(report: LadderReport) -> None:
    text = render_ladder(report, 120)
    assert "sharp *" in text
    assert "panels *" not in text
    assert "* optimistic: its checkpoints were chosen on the rows" in text
    rows, results = ladder()
    clean = make_report(rows, [replace(result, optimistic=False) for result in results], ABOUT)
    assert "optimistic:" not in render_ladder(clean)
    assert "sharp \\*" in ladder_page(report)
    assert "sharp \\*" not in ladder_page(clean)


def test_simulated_data_are_named(report: LadderReport) -> None:
    page = ladder_page(report)
    assert page.startswith("# The ladder: simulated data\n")
    assert "no figure here comes from recorded EEGs (profile small, seed 0, patients 40" in page
    assert "Ladder of 6 steps on simulated data: 258 rows of 40 patients" in (
        render_ladder(report, 120)
    )
    recorded = make_report(*ladder(), {**ABOUT, "simulated": False, "simulator": None})
    assert "imulated" not in render_ladder(recorded)
    assert "# The ladder\n" in ladder_page(recorded)


def test_page_has_data_command_and_machine(report: LadderReport) -> None:
    page = ladder_page(report)
    for line in (
        "- Command: `hms-ray ladder --data simulated --scale small`",
        "- Scale: small, every experiment with the overlay `small.yaml`",
        "- Seed: 42",
        "- Machine: cpu two cores, memory\\_gb 8",
        "- Date: 2026-11-25",
    ):
        assert f"\n{line}\n" in page
    full = ladder_page(make_report(*ladder(), {**ABOUT, "scale": "full"}))
    assert "\n- Scale: full\n" in full


def test_one_experiment_under_two_names_is_no_tie(report: LadderReport) -> None:
    text = " ".join(render_ladder(report, 120).split())
    assert report.same_experiments() == [["averaged", "two_stages"]]
    assert "trained once: averaged, two_stages." in text
    assert "same: both predict exactly the same" in text
    names = ("KL all", "KL >=4", "KL >=10")
    for title, cell in (
        ("Difference to the baseline", "same"),
        ("Difference to the baseline, both recalibrated", "same"),
        ("Smallest detectable difference", "-"),
    ):
        cells = cells_of(report, title, "two_stages")
        assert [cells[name] for name in names] == 3 * [cell]
    assert ladder_table(report)["kl_all_difference_verdict"][4] == "same"
    rows, results = ladder()
    others = render_ladder(make_report(rows, results[:4], ABOUT))
    assert "same:" not in others
    assert "trained once" not in others


def test_failed_steps_are_on_the_page(report: LadderReport) -> None:
    assert "failed" not in ladder_page(report)
    failed = {"a_b": "its member c failed"}
    page = ladder_page(make_report(*ladder(), {**ABOUT, "failed": failed}))
    assert "\n## Steps that failed\n\n- a\\_b: its member c failed\n" in page


def test_cost_counts_an_experiment_once(report: LadderReport) -> None:
    # Two of the five are one experiment, and a blend costs nothing.
    assert report.trained_minutes() == (8.0, 0.5)
    text = " ".join(render_ladder(report, 120).split())
    assert "8.0 fold-minutes; stages reused from the fold store saved 0.5 (6%)." in text
    assert list(cells_of(report, "Cost", "averaged").values())[1:] == ["2.0", "0.5", "1.5"]


def test_weights_of_blends(report: LadderReport) -> None:
    cells = cells_of(report, "Weights of blends", "blend")
    assert cells["members"] == "0.500 panels + 0.500 averaged"
    assert cells["weights"] == "fixed"


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_longer_than_the_terminal(report: LadderReport, width: int) -> None:
    assert max(map(len, render_ladder(report, width).splitlines())) <= width


def test_page_has_every_table(report: LadderReport) -> None:
    page = ladder_page(report)
    tables = ladder_tables(report)
    assert len(tables) == 12
    for table in tables:
        n_lines = 1 if table.title == "Weights of blends" else 6
        assert len(markdown_rows(page, table.title)) == n_lines


def test_group_without_rows_has_no_scores_and_no_nan(tmp_path: Path) -> None:
    rows, results = ladder()
    few = rows.assign(total_votes=np.minimum(rows["total_votes"], 9))
    report = make_report(few, results, ABOUT)
    assert cells_of(report, "Scores", "panels")["KL >=10"] == "-"
    assert report.n_rows("kl_10") == 0
    write_report(tmp_path, report)
    with (tmp_path / "ladder.csv").open() as file:
        line = list(csv.DictReader(file))[1]
    assert {value for name, value in line.items() if name.startswith("kl_10")} == {""}
    assert not re.search(r"\bnan\b", (tmp_path / "README.md").read_text().lower())


def test_one_patient_has_no_interval() -> None:
    rows, results = ladder()
    one = rows.assign(patient_id=1)
    alone = [replace(result, oof=result.oof.assign(patient_id=1)) for result in results]
    report = make_report(one, alone, ABOUT)
    text = render_ladder(report)
    assert cells_of(report, "Scores", "panels")["KL all"].endswith(" [no interval]")
    assert "inf" not in text
    assert "inf" not in ladder_page(report)


def test_table_file_has_one_row_per_step(report: LadderReport, tmp_path: Path) -> None:
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


def test_repeated_step_is_refused() -> None:
    rows, results = ladder()
    with pytest.raises(StudyError, match=r"different names, got panels"):
        make_report(rows, [results[0], results[0]], ABOUT)
