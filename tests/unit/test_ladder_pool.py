from __future__ import annotations

import csv
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from hms_ray.cli.main import main
from hms_ray.display.combined_report import CombinedReport
from hms_ray.display.combined_table import combined_page, render_combined
from hms_ray.display.forest_plot import forest_figure, forest_svg, step_marks
from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.evaluate.oof import make_oof
from hms_ray.evaluate.step_scores import GroupScore, StepDifference
from hms_ray.ladder.folder import write_ladder
from hms_ray.ladder.multi_seed import combine_ladders, published_difference
from hms_ray.ladder.report import make_report
from hms_ray.ladder.result import StepResult
from tests.ladder_data import ABOUT, CONTROL, ladder, probabilities, step
from tests.refused import refusal

SVG = "{http://www.w3.org/2000/svg}"


def as_control(results: list[StepResult]) -> list[StepResult]:
    """The same ladder, in which averaging has no effect."""
    return [*results[:2], replace(results[2], oof=results[1].oof), *results[3:]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ladders, ``a`` and ``b``, and a negative control, ``c``."""
    place = tmp_path_factory.mktemp("results")
    for name, seed in (("a", 0), ("b", 1), ("c", 2)):
        rows, results = ladder(seed=seed)
        about = ABOUT
        if name == "c":
            results, about = as_control(results), CONTROL
        write_ladder(place / name, rows, results, {**about, "seed": seed})
    return place


@pytest.fixture(scope="module")
def combined(folder: Path) -> CombinedReport:
    return combine_ladders({"a": folder / "a", "b": folder / "b"}, {"c": folder / "c"})


def test_combined_means_are_over_all_rows(combined: CombinedReport) -> None:
    alone = [make_report(*ladder(seed=seed), ABOUT) for seed in (0, 1)]
    for group in ("kl_all", "kl_10"):
        scores = [report.steps[2].scores[group] for report in alone]
        sums = [s.difference.mean * s.kl.n_rows for s in scores]  # type: ignore[union-attr]
        sizes = [s.kl.n_rows for s in scores]
        found = combined.steps[1].difference(group)
        assert found is not None
        assert found.mean == pytest.approx(sum(sums) / sum(sizes))
        assert found.n_patients == 80 if group == "kl_all" else found.n_patients > 40
        means = [s.difference.mean for s in scores]  # type: ignore[union-attr]
        assert combined.steps[1].by_ladder[group] == pytest.approx(means)
    assert [step.name for step in combined.steps] == [
        *("copy", "averaged", "sharp", "two_stages", "blend")
    ]


def test_outcomes(combined: CombinedReport) -> None:
    outcomes = {step.name: step.outcome("kl_all") for step in combined.steps}
    assert outcomes == {
        "copy": "tie",
        "averaged": "reproduces",
        "sharp": "opposite",
        "two_stages": "not comparable",
        "blend": "no published figure",
    }
    by_name = {step.name: step for step in combined.steps}
    assert by_name["sharp"].outcome("kl_all", recalibrated=True) == "tie"
    assert by_name["averaged"].outcome("kl_10", control=True) == "tie"
    assert by_name["averaged"].outcome("kl_stage_2") == "not comparable"
    assert by_name["averaged"].published == pytest.approx(0.6290 - 0.7287)
    assert by_name["two_stages"].published is None
    assert combined.counts("kl_4") == dict.fromkeys(outcomes.values(), 1)


def test_published_differences_need_the_same_rows() -> None:
    rows, results = ladder()
    p = probabilities(results[0])

    def published(cv: float | None, before: float, *on: str) -> object:
        cvs = (cv, before)
        one, other = (
            step(rule, rows, p, None, published_cv=figure, published_rows=rule)
            for figure, rule in zip(cvs, on, strict=True)
        )
        return published_difference(one, other)

    assert published(0.6290, 0.6355, "all", "all") == (
        *(pytest.approx(-0.0065), "best", "kl_all", False),
    )
    # The manifest decides the rows, whatever the figure.
    assert published(0.4142, 0.6290, "all", "all") == (
        *(pytest.approx(-0.2148), "best", "kl_all", False),
    )
    assert published(0.4, 0.6290, "stage_2", "all") == (None, None, None, True)
    on_stage_2 = ("stage_2", "stage_2")
    assert published(0.5, 0.4, *on_stage_2) == (pytest.approx(0.1), "best", "kl_stage_2", False)
    assert published(None, 0.4142, "all", "stage_2") == (None, None, None, False)


@pytest.mark.parametrize(
    ("kept", "last", "expected"),
    [
        # Statistics against panels: the sign is the same, the size is not.
        (("last", "last"), (0.8235, 0.7914), (0.0321, "last")),
        (("best", "best"), (0.8235, 0.7914), (0.0037, "best")),
        (("last", "last"), (None, 0.7914), (0.0037, "best")),
        (("last", "best"), (0.8235, 0.7914), (0.0037, "best")),
    ],
)
def test_published_differences_are_of_the_checkpoint_that_both_keep(
    kept: tuple[str, str], last: tuple[float | None, float], expected: tuple[float, str]
) -> None:
    rows, results = ladder()
    p = probabilities(results[0])
    one, other = (
        step("a", rows, p, None, published_cv=cv, published_last=of, checkpoint=checkpoint)
        for cv, of, checkpoint in zip((0.7324, 0.7287), last, kept, strict=True)
    )
    found = published_difference(one, other)
    assert (found.mean, found.of) == (pytest.approx(expected[0]), expected[1])


def test_ladders_that_keep_other_checkpoints_are_not_combined(tmp_path: Path) -> None:
    for seed, checkpoint in enumerate(("last", "best")):
        rows, results = ladder(seed=seed)
        kept = [replace(result, checkpoint=checkpoint) for result in results]
        write_ladder(tmp_path / checkpoint, rows, kept, ABOUT)
    with pytest.raises(StudyError, match="checkpoint last and best"):
        combine_ladders({name: tmp_path / name for name in ("last", "best")}, {})


def test_two_stage_figures_are_compared_on_rows_of_the_second_stage(tmp_path: Path) -> None:
    rows, results = ladder()
    better = replace(results[2], published_cv=0.41, published_rows="stage_2")
    first = replace(results[0], published_cv=0.42, published_rows="stage_2", optimistic=True)
    write_ladder(tmp_path / "two", rows, [first, better], ABOUT)
    report = combine_ladders({"two": tmp_path / "two"}, {})
    (only,) = report.steps
    assert only.optimistic, "the step before is"
    assert only.outcome("kl_stage_2") == "reproduces"
    assert only.outcome("kl_all") == "not comparable"
    text = render_combined(report)
    assert "rows of the second stage (119)" in text
    assert text.startswith("1 ladder (two), simulated data: 258 rows")
    assert "negative control" not in text


def test_text_has_the_outcome_of_each_step(combined: CombinedReport) -> None:
    text = render_combined(combined, 160)
    table = next(part for part in text.split("\n\n") if part.startswith("Difference to the base"))
    lines = {line.split()[0]: line for line in table.splitlines()[3:8]}
    assert lines["copy"].endswith(" tie")
    assert " same " in lines["two_stages"]
    assert text.count("same: both predict exactly the same") == 1
    assert lines["averaged"].endswith("reproduces")
    assert lines["averaged"].count(" tie ") == 1, "only the control"
    assert lines["sharp"].startswith("sharp *")
    assert lines["sharp"].endswith("opposite")
    assert lines["two_stages"].endswith("not comparable")
    verdict = "Published differences, all rows: reproduces 1, opposite 1, tie 1,"
    heading, summary = (" ".join(part.split()) for part in text.split("\n\n")[:2])
    assert heading.startswith("2 ladders combined (a, b), simulated data")
    assert heading.endswith("Negative control: c.")
    assert summary.startswith(verdict)
    assert "Published differences in the negative control, all rows: opposite 1, tie 2," in summary
    flat = " ".join(text.split())
    assert "a difference between the two is not comparable" in flat
    assert "those of its baseline were." in flat


def test_ladders_without_published_figures_count_better_and_worse(combined: CombinedReport) -> None:
    steps = [
        replace(step, published=None, published_of=None, published_group=None, other_rows=False)
        for step in combined.steps
    ]
    report = replace(combined, steps=tuple(steps))
    text = " ".join(render_combined(report, 200).split())
    assert "published" not in text.lower()
    assert not any("Published" in (one or "") for one in drawn_texts(report))
    assert any("Published" in (one or "") for one in drawn_texts(combined))
    found = [step.difference("kl_10") for step in steps]
    verdicts = [one.verdict for one in found if one is not None]
    assert {"better", "worse", "tie"} == set(verdicts)
    better, worse, tie = (verdicts.count(name) for name in ("better", "worse", "tie"))
    expected = f"Differences, rows with >= 10 votes: better {better}, worse {worse}, tie {tie}."
    assert expected in text


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_longer_than_the_terminal(combined: CombinedReport, width: int) -> None:
    assert max(map(len, render_combined(combined, width).splitlines())) <= width


def test_page(combined: CombinedReport) -> None:
    page = combined_page(combined, {"As predicted": "forest.svg"})
    assert page.startswith("# Ladders combined over seeds: simulated data\n")
    assert "![As predicted: difference to the baseline](forest.svg)" in page
    assert "| averaged | panels | -0.0997 best |" in page
    assert "not comparable" in page
    assert "## Negative control c" in page
    tables = re.findall(r"(?:^\|.*\n)+", page, flags=re.M)
    assert len(tables) == 9
    for table in tables:
        widths = {len(re.split(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


def test_command_writes_text_plots_and_tables(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ladder", "pool", "a", str(folder / "b"), "--control", "c", "--results", str(folder)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert f"written: {tmp_path / 'out'}" in text
    assert "2 ladders combined (a, b)" in " ".join(text.split()), "folders by name, not by path"
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        *("README.md", "forest.csv", "forest.svg", "forest_recalibrated.svg")
    }
    with (tmp_path / "out" / "forest.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 5 * 4 * 2
    (line,) = [
        line
        for line in lines
        if (line["step"], line["group"], line["recalibrated"]) == ("averaged", "kl_10", "False")
    ]
    assert line["outcome"] == "reproduces"
    assert line["control_outcome"] == "tie"
    assert float(line["low"]) < float(line["difference"]) < float(line["high"]) < 0
    assert float(line["detectable"]) > 0


def test_unknown_and_repeated_ladders_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ladder", "pool", "a", "elsewhere", "--results", str(folder)]) == 2
    assert "got elsewhere" in capsys.readouterr().err
    assert main(["ladder", "pool", "a", "b", "a", "--results", str(folder)]) == 2
    assert f"must be named once, got {folder / 'a'}" in capsys.readouterr().err


def test_different_steps_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    rows, results = ladder(seed=5)

    def refused(changed: list[StepResult], message: str, *, control: bool = True) -> None:
        write_ladder(tmp_path / "x", rows, changed, CONTROL)
        with pytest.raises(StudyError, match=message):
            combine_ladders({"a": folder / "a", "x": tmp_path / "x"}, {})
        if control:
            with pytest.raises(StudyError, match=message):
                combine_ladders({"a": folder / "a"}, {"x": tmp_path / "x"})

    fewer = r"the same steps, got blend in a only, in a and x\. Run the same"
    refused(results[:-1], fewer, control=False)
    more = [*results, replace(results[0], name="more")]
    refused(more, r"the same steps, got more in x only")
    refused([results[1], results[0], *results[2:]], r"same order, got another order")
    other = [*results[:4], replace(results[4], before="panels"), results[5]]
    refused(other, r"got step two_stages with before averaged and panels")


def test_a_control_may_have_some_of_the_steps(
    folder: Path, combined: CombinedReport, tmp_path: Path
) -> None:
    """Those whose cause its data lack, and their baselines, which have no own one there."""
    rows, results = ladder(seed=2)
    averaged, _, two_stages = as_control(results)[2:5]
    some = [replace(averaged, before=None), two_stages]
    write_ladder(tmp_path / "some", rows, some, {**CONTROL, "seed": 2})
    report = combine_ladders({name: folder / name for name in "ab"}, {"some": tmp_path / "some"})
    controls = {step.name: step.control for step in report.steps}
    assert [name for name, control in controls.items() if control] == ["two_stages"]
    whole = {step.name: step.control for step in combined.steps}
    assert controls["two_stages"] == whole["two_stages"]
    assert render_combined(report)
    assert forest_svg(report, recalibrated=False)
    assert sum(report.counts("kl_all", control=True).values()) == 1
    rows, results = ladder(seed=3)
    write_ladder(tmp_path / "all", rows, as_control(results), {**CONTROL, "seed": 3})
    both = {name: tmp_path / name for name in ("some", "all")}
    with refusal(StudyError, "the same steps", where="some and all"):
        combine_ladders({"a": folder / "a"}, both)


def test_shared_rows_and_mixed_data_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"rows, folds or training seed, got a and again with"):
        combine_ladders({"a": folder / "a", "again": folder / "a"}, {})
    rows, results = ladder(seed=5)
    write_ladder(tmp_path, rows, results, {**ABOUT, "simulated": False, "simulator": None})
    with pytest.raises(StudyError, match=r"kind of data, got simulated and recorded, in a and"):
        combine_ladders({"a": folder / "a", "real": tmp_path}, {})
    for key, value, what in (("scale", "full", "scale"), ("rows", {"unit": "eeg"}, "kind of rows")):
        write_ladder(tmp_path, rows, results, {**ABOUT, key: value})
        with pytest.raises(StudyError, match=rf"the same {what}.*, got .*, in a and other"):
            combine_ladders({"a": folder / "a", "other": tmp_path}, {})
    write_ladder(tmp_path, rows, results[:1], ABOUT)
    rule = "a forest plot needs a step with its baseline"
    with refusal(StudyError, rule, got="none", where="one", fix="Train both: hms-ray ladder"):
        combine_ladders({"one": tmp_path}, {})


def test_ladders_on_the_same_rows_are_seeds_of_the_same_patients(tmp_path: Path) -> None:
    """Also under other folds: patients are not counted twice."""
    rows, results = ladder()
    moved = rows.assign(fold=4 - rows["fold"])
    changed = [
        replace(result, oof=make_oof(rows, moved["fold"].to_numpy(), 0.9 * p + 0.1 / 6))
        for result in results
        for p in [probabilities(result)]
    ]
    write_ladder(tmp_path / "s0", rows, results, {**ABOUT, "seed": 0})
    write_ladder(tmp_path / "s1", moved, changed, {**ABOUT, "seed": 0})
    places = {name: tmp_path / name for name in ("s0", "s1")}
    both = combine_ladders(places, {})
    assert both.n_data_sets == 1
    assert both.n_patients == rows["patient_id"].nunique()
    assert both.n_rows["kl_all"] == len(rows)
    text = " ".join(render_combined(both).split())
    assert text.startswith("2 ladders combined on 1 data set (s0, s1)")
    assert "Differences are means over training seeds" in text
    alone = combine_ladders({"s0": tmp_path / "s0"}, {})
    assert "The intervals do not include differences between training seeds" in " ".join(
        render_combined(alone).split()
    )
    assert both.steps[1].by_ladder["kl_all"][0] == alone.steps[1].by_ladder["kl_all"][0]


def test_control_that_was_not_simulated_as_one_is_refused(folder: Path) -> None:
    with pytest.raises(StudyError, match=r"with a cause removed, got none, in b\. Simulate"):
        combine_ladders({"a": folder / "a"}, {"b": folder / "b"})


def drawn_texts(report: CombinedReport, *, recalibrated: bool = False) -> set[str | None]:
    svg = forest_svg(report, recalibrated=recalibrated)
    assert forest_svg(report, recalibrated=recalibrated) == svg
    return {one.text for one in ET.fromstring(svg).iter(SVG + "text")}


def with_differences(
    report: CombinedReport, ours: StepDifference, control: StepDifference | None = None
) -> CombinedReport:
    """The second step alone, with these differences on every group of rows."""

    def scores(difference: StepDifference) -> dict[str, GroupScore]:
        return {group: replace(score, difference=difference) for group, score in step.ours.items()}

    step = report.steps[1]
    changed = replace(step, ours=scores(ours), control=None if control is None else scores(control))
    return replace(report, steps=(changed,))


def test_marks_stand_at_their_values_and_ties_are_hollow(combined: CombinedReport) -> None:
    tie, worse = StepDifference(-0.1, -0.2, 0.05, 9, 3), StepDifference(0.1, 0.05, 0.2, 9, 3)
    axes = forest_figure(with_differences(combined, tie, worse), recalibrated=False).axes[0]
    points = {line.get_marker(): line for line in axes.lines if line.get_marker() != "None"}
    assert {name: line.get_xdata()[0] for name, line in points.items()} == {
        "o": -0.1, "D": 0.1, "x": pytest.approx(-0.0997)
    }  # fmt: skip
    assert [points[name].get_markerfacecolor() == "white" for name in "oD"] == [True, False]
    intervals = [tuple(line.get_xdata()) for line in axes.lines if line.get_marker() == "None"]
    assert {(-0.2, 0.05), (0.05, 0.2)} <= set(intervals)
    low, high = axes.get_xlim()
    assert low < -0.2 < 0.2 < high


def test_infinite_intervals_reach_the_edge_of_a_panel(combined: CombinedReport) -> None:
    wide = StepDifference(0.01, float("-inf"), float("inf"), 9, 1)
    alone = with_differences(combined, wide)
    axes = forest_figure(alone, recalibrated=False).axes[0]
    assert axes.get_xlim() in [tuple(line.get_xdata()) for line in axes.lines]
    texts = drawn_texts(alone)
    assert "negative control" not in texts, "a series without data is not in the legend"
    assert not {text for text in texts if text and "inf" in text}


def test_ladders_without_differences_have_a_plot(combined: CombinedReport) -> None:
    (same,) = (step for step in combined.steps if step.name == "two_stages")
    alone = replace(combined, steps=(replace(same, control=None),))
    axes = forest_figure(alone, recalibrated=False).axes[0]
    assert axes.get_xlim()[0] < 0 < axes.get_xlim()[1]
    assert {line.get_marker() for line in axes.lines} == {"None"}, "the same predictions are no tie"


def test_plot_of_combined_ladders(combined: CombinedReport) -> None:
    texts = drawn_texts(combined)
    assert {
        *("Difference to the baseline, simulated data", "sharp *", "minus panels", "simulated"),
        *("negative control", "published", "all rows (519)"),
    } <= texts
    assert any(text and text.startswith("2 ladders combined, 80 patients;") for text in texts)
    assert any(text and text.startswith("rows with \u2265 4 votes (") for text in texts)
    assert any(text and text.startswith("* optimistic") for text in texts)
    title = "Difference to the baseline, simulated data, both recalibrated"
    assert title in drawn_texts(combined, recalibrated=True)
    averaged, on_stage_2 = combined.steps[1], combined.steps[3]
    marks = {group: step_marks(averaged, group, recalibrated=False) for group in OBJECTIVES}
    published = [None if mark[2] is None else mark[2].mean for mark in marks.values()]
    assert published == [pytest.approx(-0.0997), None, None]
    control = marks["kl_all"][1]
    assert control is not None
    assert control.tie
    assert step_marks(on_stage_2, "kl_all", recalibrated=False)[::2] == [None, None]
