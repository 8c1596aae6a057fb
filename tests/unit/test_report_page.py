"""The report as a file: contents, bad input, escaping; test_browser_report looks at it drawn."""

import json
import os
import re
import shutil
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from hms_ray.cli.main import main
from hms_ray.errors import StudyError
from hms_ray.report import figures
from hms_ray.report.study_data import StudyData
from hms_ray.report.study_page import study_page
from hms_ray.report.write import report_line, write_report
from hms_ray.storage.folder_names import REPORT_FILE
from hms_ray.storage.structured_files import json_text
from hms_ray.study.cost import read_costs
from hms_ray.study.folder import StudyFolder
from hms_ray.study.overview import last_written
from tests.blend_data import add_trials, make_study
from tests.ladder_data import ABOUT, ladder
from tests.large_study import Ends, write_large_study
from tests.refused import refusal

SECTIONS = [
    *("Scores", "Leaderboard", "Progress of the search", "What the search found", "Curves"),
    *("KL by class and by votes", "Confusion of vote shares", "Reliability", "AUROC and AUPRC"),
    *("Correlation of errors", "Blend", "Cost", "Faults", "Reproduce a trial"),
]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    results = tmp_path_factory.mktemp("results")
    ends = Ends(pruned=4, diverged=6, failed=7)
    made = write_large_study(results, n_trials=7, n_folds=3, n_rows=200, ends=ends)
    without_data_folder(made)
    return made


def without_data_folder(study: StudyFolder) -> None:
    """Removes the run's command, whose competition folder does not exist."""
    (study.path / "environment.json").unlink()


@pytest.fixture
def study(large: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy of ``large`` that a test may damage."""
    shutil.copytree(large.path.parent, tmp_path / "results")
    return StudyFolder.open(large.name, tmp_path / "results")


@pytest.fixture
def no_importance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the slowest figures."""
    monkeypatch.setattr("hms_ray.report.search_figures.optuna_study", lambda data: None)


def page_of(study: StudyFolder) -> tuple[str, list[str]]:
    """HTML without Plotly, and what is missing."""
    page = study_page(StudyData(study))
    return page.html("/* plotly */"), list(page.missing)


def titles(html: str) -> list[str]:
    return [unescape(title) for title in re.findall(r'<h2 id="s\d+">(.*?)</h2>', html)]


def cells(html: str, caption: str) -> list[list[str]]:
    """A table's rows as texts."""
    body = re.search(rf"<caption>{re.escape(caption)}</caption>.*?<tbody>(.*?)</tbody>", html)
    assert body is not None
    rows = re.findall(r"<tr.*?>(.*?)</tr>", body[1])
    return [[unescape(cell) for cell in re.findall(r"<td.*?>(.*?)</td>", row)] for row in rows]


@pytest.fixture(scope="module")
def page(large: StudyFolder) -> tuple[str, list[str]]:
    """Of ``large``, whose journal must stay as it is."""
    journal = large.journal.read_bytes()
    made = page_of(large)
    assert large.journal.read_bytes() == journal
    return made


def test_a_sound_study_has_all_sections_and_misses_nothing(
    large: StudyFolder, page: tuple[str, list[str]]
) -> None:
    html, missing = page
    assert titles(html) == SECTIONS
    assert "Largest confusion: where experts vote for LRDA, Other is predicted with 0." in html
    shares = [float(row[1]) for row in cells(html, "Importance")]
    assert shares == sorted(shares, reverse=True)
    assert missing == []
    assert "What is missing" not in html
    (cost,) = read_costs(large.path)
    assert f"Useful share: {cost.useful_share:.0%} of the slots" in html
    names = {file.name for file in large.path.iterdir()}
    assert not any("lock" in name for name in names), names


def test_the_leaderboard_has_the_numbers_of_the_command(
    large: StudyFolder, page: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["leaderboard", large.name, "--results", str(large.path.parent), "--json"])
    trials = json.loads(capsys.readouterr().out)["trials"]
    rows = cells(page[0], "All trials, best first")
    assert [row[1] for row in rows] == [trial["trial"] for trial in trials]
    assert [row[2] for row in rows if row[2] != "-"] == [
        f"{trial['kl_10']:.4f}" for trial in trials if trial["kl_10"] is not None
    ]
    assert re.fullmatch(r"\[0\.\d{4},\xa00\.\d{4}\]", rows[0][3])
    assert rows[0][4] == f"{trials[0]['kl_10_recalibrated']:.4f}"
    assert rows[0][5] == "best"
    assert f"on the rows that chose it; recalibrated {rows[0][4]}" in page[0]
    assert "recalibrated: after six class biases and a temperature" in page[0]


def test_a_study_without_finished_trials(tmp_path: Path) -> None:
    study = make_study(tmp_path, "empty")
    html, missing = page_of(study)
    assert "No trial has ended yet." in missing
    assert "Optuna's journal, optuna.journal: a resumed search starts again." in missing
    assert titles(html) == ["Cost", "Faults"]
    study.write_failure(0, {}, study.space().experiment, "no GPU")
    html, missing = page_of(study)
    assert "No trial has finished: there are no scores and no predictions." in missing
    assert cells(html, "All trials, best first")[0][:2] == ["-", "0000"]
    assert cells(html, "Faults met") == [["failed", "1", "no GPU", "trials 0000"]]


@pytest.mark.usefixtures("no_importance")
def test_a_trial_without_predictions_is_listed_and_named(study: StudyFolder) -> None:
    best = study.finished_trials()[0]
    (best.path / "oof.parquet").unlink()
    (best.path / "row_scores.npz").unlink()
    html, missing = page_of(study)
    assert len(missing) == 1
    assert missing[0].startswith("A trial that cannot be read in full: ")
    assert best.path.name in missing[0]
    first = cells(html, "All trials, best first")[0]
    assert first[1:4] == [best.path.name, f"{best.scores['kl_10']:.4f}", ""]
    assert f"Without predictions, and so without interval and tie: {best.path.name}." in html
    assert "Reliability" in titles(html)
    (best.path / "result.json").write_text("{")
    (study.path / "space.yaml").unlink()
    html, missing = page_of(study)
    assert [text for text in missing if "result.json" in text] == [missing[0]]
    assert best.path.name not in [row[1] for row in cells(html, "All trials, best first")]
    assert "Reliability" in titles(html)


@pytest.mark.usefixtures("no_importance")
def test_missing_records_journal_rows_and_packs_are_named(
    study: StudyFolder, tmp_path: Path
) -> None:
    store = study.path.parent / ".store"
    for fold in study.finished_trials()[0].keys.values():
        shutil.rmtree(store / fold[:2] / fold)
    study.journal.write_text(study.journal.read_text()[:-9])
    data = tmp_path / "data"
    data.mkdir()
    run = {"command": ["hms-ray", "sweep", "demo", "--data", str(data)]}
    (study.path / "environment.json").write_text(json_text([run]))
    (study.path / "costs.json").write_text("{")
    html, missing = page_of(study)
    texts = " ".join(missing)
    assert "The end of Optuna's journal: its last record is incomplete" in texts
    assert f"The packs in {data / 'packed'} are gone" in texts
    assert "Curves of 3 folds, which the fold store does not have any more" in texts
    assert "The cost of the runs:" in texts
    assert "Curves" in titles(html)
    (study.path / "rows.parquet").write_bytes(b"torn")
    html, missing = page_of(study)
    assert any(text.startswith("The study's rows, and all that is computed") for text in missing)
    assert "Reliability" not in titles(html)
    assert "Leaderboard" in titles(html)
    study.journal.write_text("{torn\n")
    assert "Optuna's journal cannot be read from its line 1 on." in page_of(study)[1]


@pytest.mark.usefixtures("no_importance")
def test_a_running_study_is_called_running(study: StudyFolder) -> None:
    study.journal.write_text(study.journal.read_text()[:-9])
    with study.lock():
        html, missing = page_of(study)
    assert "The study is running: this is what there was" in html
    assert missing == []


@pytest.mark.usefixtures("no_importance")
def test_a_study_by_blend_gain(tmp_path: Path) -> None:
    from tests.unit.test_gain_search import make_study, proposals_of, run

    study = make_study(tmp_path)
    run(study, proposals_of(study), 3)
    html, missing = page_of(study)
    assert [text for text in missing if "Curves of" not in text] == []
    titles_of_columns = re.findall(r'<button type="button">(.*?)</button>', html)
    assert titles_of_columns[:4] == ["#", "trial", "gain", "KL &gt;=10"]
    assert "Reliability" in titles(html)


def test_to_write_a_report_is_no_result(study: StudyFolder) -> None:
    before = last_written(study.path)
    (study.path / REPORT_FILE).write_text("")
    os.utime(study.path / REPORT_FILE, (2e9, 2e9))
    os.utime(study.path, (2e9, 2e9))
    assert last_written(study.path) == before


@pytest.mark.usefixtures("no_importance")
def test_a_section_that_fails_is_left_out(
    study: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(frame: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr(figures, "confusion", fail)
    html, missing = page_of(study)
    assert missing == ["The section Confusion of vote shares: RuntimeError: no ink"]
    assert "Reliability" in titles(html)


@pytest.mark.usefixtures("no_importance")
def test_texts_of_users_are_escaped(tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>"
    study = make_study(tmp_path, "one")
    study.write_failure(0, {"model.name": evil}, study.space().experiment, evil)
    (study.path / "log.txt").write_text(f"2026-01-01T00:00:00Z WARNING a.b: {evil}\n")
    run = {"command": ["hms-ray", "sweep", evil, "--data", evil]}
    (study.path / "environment.json").write_text(json_text([run]))
    html, missing = page_of(study)
    assert missing
    assert "<script>alert" not in html
    assert "&lt;/script&gt;&lt;script&gt;alert(1)" in html
    assert html.count("<script") == html.count("</script")


@pytest.mark.usefixtures("no_importance")
def test_names_within_figures_are_escaped(study: StudyFolder) -> None:
    html = study_page(StudyData(replace_name(study, "</script><b>"))).html("")
    assert "</script><b>" not in html
    data = re.findall(r'<script type="application/json" id="[\w-]+">(.*?)</script>', html)
    assert len(data) >= 11
    assert not [text for text in data if "<" in text]
    # Plotly takes some tags for HTML.
    assert any("&lt;/script&gt;&lt;b&gt;" in text for text in data)


def replace_name(study: StudyFolder, name: str) -> StudyFolder:
    """A blend whose member has another name."""
    content = {
        "method": "simplex",
        "members": [{"name": name}],
        "nested": {"kl_10": 0.5},
        "in_sample": {"kl_10": 0.4},
        "weights": {name: 1.0},
        "gap": 1e-7,
        "fit_rows": "kl_10",
    }
    (study.path / "blend").mkdir()
    (study.path / "blend" / "blend.json").write_text(json_text(content))
    return study


@pytest.mark.usefixtures("no_importance")
def test_a_blend_is_shown_with_its_certificate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(tmp_path, "one")
    add_trials(study, range(3), optimistic=[1])
    assert main(["blend", "one", "--results", str(study.path.parent)]) == 0
    out = capsys.readouterr().out
    assert f"report: {study.path / REPORT_FILE}\n" in out
    html = (study.path / REPORT_FILE).read_text()
    assert "Certificate: no weights of these models have an in-sample KL lower by more" in html
    rows = cells(html, "Weights")
    weights = json.loads((study.path / "blend" / "blend.json").read_text())["weights"]
    assert {row[0]: row[1] for row in rows} == {name: f"{w:.4f}" for name, w in weights.items()}
    assert "Blend, nested (optimistic)" in html
    assert "Against best single model, nested: nested difference " in html
    assert main(["report", "one", "--results", str(study.path.parent)]) == 0
    assert "next: hms-ray submit one/blend --data DIR" in capsys.readouterr().out
    assert "optimistic: its checkpoints were chosen on the rows" in html


@pytest.mark.usefixtures("no_importance")
def test_a_hold_out_is_shown_beside_the_choice(tmp_path: Path) -> None:
    study = make_study(tmp_path, "one")
    add_trials(study, range(2))
    file = study.path / "study.json"
    content = json.loads(file.read_text())
    content["identity"]["data"]["holdout"] = "h" * 64
    file.write_text(json_text(content))
    study = StudyFolder(study.path)
    assert "The held-out patients were not scored yet." in page_of(study)[0]
    interval = {"mean": 0.4321, "low": 0.4, "high": 0.47}
    scores = [
        {
            "name": "trial 0000",
            "single_fold_models": {"kl_4": interval},
            "mean_of_fold_models": {"kl_4": interval},
            "out_of_fold": {"kl_4": None},
        }
    ]
    opening = {"date": "2026-01-02", "scores": scores}
    (study.path / "holdout_openings.json").write_text(json_text([opening]))
    html, _ = page_of(study)
    assert "Hold-out, trial 0000" in html
    assert cells(html, "Held-out patients")[0][1] == "0.4321 [0.4000,\xa00.4700]"


@pytest.mark.usefixtures("no_importance")
def test_simulated_data_are_called_simulated(study: StudyFolder, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "packed").mkdir(parents=True)
    run = {"command": ["hms-ray", "sweep", "demo", f"--data={data}"]}
    (study.path / "environment.json").write_text(json_text([run]))
    assert "The data are simulated" not in page_of(study)[0]
    (data / "simulation.json").write_text("{}")
    html, missing = page_of(study)
    assert "The data are simulated" in html
    assert missing == []
    assert f"--data {data} --folds {study.path / 'rows.parquet'}" in unescape(html)


def test_the_report_of_a_ladder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hms_ray.ladder.folder import write_ladder

    rows, steps = ladder()
    steps = [replace(steps[0], keys={"0": "a" * 64}), *steps[1:]]
    write_ladder(tmp_path / "mini", rows, steps, {**ABOUT, "failed": {"<b>": "no <i>"}})
    out = tmp_path / "mine.html"
    assert main(["report", "mini", "--results", str(tmp_path), "--out", str(out)]) == 0
    assert f"report: {out} (" in capsys.readouterr().out
    html = out.read_text()
    assert titles(html) == [
        *("Our scores and published figures", "Difference to the baseline", "Scores by step"),
        *("Cost", "Faults", "More tables", "Reproduce"),
    ]
    assert "&lt;b&gt;: no &lt;i&gt;" in html
    assert "Curves that the fold store does not have any more: panels fold 0." in html
    assert cells(html, "Our scores and published figures")[0][5] == "0.7914"


def test_what_has_no_report_is_refused(results: Path) -> None:
    with refusal(
        StudyError,
        "a report needs a study or a ladder",
        got="onne (did you mean one?)",
        where=str(results),
        fix="List them with: hms-ray studies",
    ):
        write_report("onne", results)


def test_the_line_at_the_end_of_other_commands(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = StudyFolder.open("one", results)
    file = study.path / REPORT_FILE
    monkeypatch.setattr("hms_ray.report.write.plotly_missing", lambda: True)
    line = report_line(study)
    assert (
        line == f"report: hms-ray report {study.path} (needs Plotly: pip install 'hms_ray[report]')"
    )
    assert not file.exists()
    monkeypatch.setattr("hms_ray.report.write.plotly_missing", lambda: False)
    file.write_text("old")
    assert report_line(study, changed=False) == f"report: {file}"
    assert file.read_text() == "old"

    def fail(*arguments: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("hms_ray.report.write.write_report", fail)
    assert report_line(study).startswith("report: not written, RuntimeError: no ink. Try: hms-ray")
