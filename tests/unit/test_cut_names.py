"""Names that are cut to fit a table stay different."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from hms_ray.ladder.report import make_report
from hms_ray.report.forest_plot import ForestPlot, ForestRow, forest_svg
from hms_ray.report.ladder_report import LadderReport
from hms_ray.report.ladder_table import ladder_sheets
from hms_ray.report.ladder_weights import weights_sheets
from hms_ray.report.sheet import Sheet
from hms_ray.report.text_table import Column, shortened_names
from tests.ladder_data import ABOUT, ladder

MANIFEST = Path(__file__).parents[2] / "search_spaces" / "ladder" / "ladder.yaml"
NAMES = {
    "panels": "4_eeg_statistics_of_all_panels_fixed",
    "copy": "4_eeg_statistics_of_all_panels_optimised",
    "averaged": "9_eeg_statistics_of_all_panels_4",
    "sharp": "9_eeg_statistics_of_all_panels_5u",
    "two_stages": "a_transformer_without_any_end_1",
    "blend": "a_transformer_without_any_end_2",
}


def manifest_names() -> list[str]:
    steps = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["steps"]
    return [step["name"] for step in steps]


@pytest.mark.parametrize("width", range(8, 21))
def test_no_two_steps_of_the_ladder_are_cut_alike(width: int) -> None:
    names = manifest_names()
    cut = shortened_names(names, width)
    assert len(set(names)) == len(set(cut)) > 40
    assert max(map(len, cut)) <= width
    assert all(short == name for short, name in zip(cut, names, strict=True) if len(name) <= width)


def test_the_number_and_the_last_word_stay() -> None:
    names = ["3_ensemble_fixed", "3_ensemble_optimised", "9_eeg_statistics_5u"]
    assert shortened_names(names, 13) == ["3_ensem_fixed", "3_ensem_optim", "9_eeg_stat_5u"]


def test_names_that_words_do_not_tell_apart_are_numbered() -> None:
    names = ["abcdefghij", "abcdefghik", "abcdefgh", "xyzxyzxyz1", "xyzxyzxyz2", "abcdefghij"]
    cut = shortened_names(names, 8)
    assert cut == ["abcdef~1", "abcdef~2", "abcdefgh", "xyzxyz~3", "xyzxyz~4", "abcdef~1"]


def test_all_words_lose_letters_before_one_loses_its_last() -> None:
    names = ["one_two_three_four_five", "one_two_three_four_six"]
    assert shortened_names(names, 14) == ["on_tw_th_fo_fi", "on_tw_th_fo_si"]


def test_a_number_that_a_name_has_already_is_passed_over() -> None:
    names = ["abcdefghij", "abcdefghik", "abcdef~1"]
    assert shortened_names(names, 8) == ["abcdef~2", "abcdef~3", "abcdef~1"]


def test_more_words_than_characters_fit_too() -> None:
    names = ["a_b_c_d_e_f_g", "a_b_c_d_e_f_h", "", ""]
    assert shortened_names(names, 8) == ["a_b_c_~1", "a_b_c_~2", "", ""]


def test_only_names_are_numbered() -> None:
    cells = ["the same beginning 1", "the same beginning 2"]
    columns = (Column("step", cells, right=False), Column("value", ["0.1", "0.2"]))
    assert Sheet("title", columns).to_text(17)[-1].split("  ")[0] == "the sam..."


@pytest.fixture(scope="module")
def report() -> LadderReport:
    rows, results = ladder()
    return make_report(
        rows,
        [
            replace(
                result,
                name=NAMES[result.name],
                before=result.before and NAMES[result.before],
                weights=result.weights and {NAMES[name]: w for name, w in result.weights.items()},
            )
            for result in results
        ],
        ABOUT,
    )


@pytest.mark.parametrize("width", [64, 80])
def test_no_table_of_a_ladder_cuts_two_steps_alike(report: LadderReport, width: int) -> None:
    n_cut = 0
    for sheet in ladder_sheets(report, "text"):
        if sheet.title == "Weights of blends":
            continue
        lines = sheet.to_text(width)
        rule = next(n for n, line in enumerate(lines) if line.startswith("--"))
        rows = lines[rule + 1 : rule + 1 + len(NAMES)]
        start = lines[rule].index("  ") + 2
        names = [row[start:].split("  ")[0].strip() for row in rows]
        assert len(set(names)) == len(NAMES), sheet.title
        n_cut += not set(names) <= set(NAMES.values())
    assert n_cut > 3


def test_members_that_are_no_steps_of_the_report_stay_different(report: LadderReport) -> None:
    weights = {"eeg_statistics_1": 0.25, "eeg_statistics_2": 0.75}
    steps = tuple(
        replace(step, weights=weights) if step.weights is not None else step
        for step in report.steps
    )
    (sheet,) = weights_sheets(replace(report, steps=steps), "text")
    (told,) = [column.cells[0] for column in sheet.columns if column.title == "members"]
    assert told == "0.250 eeg_sta_1 + 0.750 eeg_sta_2"


def test_no_two_lines_of_a_plot_are_cut_alike() -> None:
    labels = [f"statistics_of_all_eeg_panels_with_global_norms_{n}" for n in range(2)]
    rows = tuple(
        ForestRow(label, f"against_{label}", (None,), (None,), (None,)) for label in labels
    )
    plot = ForestPlot("title", "subtitle", ("ours", "control", "published"), ("all",), rows, "nats")
    texts = [element.text or "" for element in ElementTree.fromstring(forest_svg(plot)).iter()]
    cut = [text for text in texts if text.endswith(("_0", "_1"))]
    assert len(set(cut)) == 4
    assert max(map(len, cut)) <= 38
