import json
from pathlib import Path

import numpy as np
import pytest

from hms_ray.blend.fit_command import blend
from hms_ray.blend.settings import Settings
from hms_ray.blend.study_scores import best_scores
from hms_ray.cli.main import main
from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.ensemble.report import blend_report
from hms_ray.ensemble.result import BlendReport
from hms_ray.ensemble.simplex import blend_probabilities
from hms_ray.errors import StudyError
from hms_ray.evaluate.oof import read_oof
from hms_ray.study.folder import StudyFolder
from tests.blend_data import add_trials, make_study, stored_blend, targets
from tests.refused import refusal


@pytest.fixture
def study(tmp_path: Path) -> StudyFolder:
    return make_study(tmp_path, "one")


def models(study: StudyFolder) -> np.ndarray:
    """Predictions of the finished trials, best first."""
    rows = study.rows()
    tables = [trial.oof(rows)[list(PROBABILITY_COLUMNS)] for trial in study.finished_trials()]
    return np.stack([table.to_numpy() for table in tables])


def expected(study: StudyFolder, fit_rows: str, n_splits: int = 5, seed: int = 0) -> BlendReport:
    rows = study.rows()
    finished = study.finished_trials()
    return blend_report(
        targets(rows),
        models(study),
        [f"{trial.number:04d}" for trial in finished],
        rows["patient_id"],
        rows["total_votes"],
        objective=fit_rows,
        optimistic=[trial.optimistic for trial in finished],
        n_splits=n_splits,
        seed=seed,
    )


def reported(study: StudyFolder, report: BlendReport) -> dict:
    """The content of the file, checked to contain the report."""
    expected = json.loads(json.dumps({"study": "one", **report.to_json()}))
    found = stored_blend(study.path / "blend")
    for content in (expected, found):
        for candidate in content["methods"]["candidates"]:
            assert candidate.pop("fit_seconds") >= 0
    assert {name: found[name] for name in expected} == expected
    return found


def test_a_blend_is_printed_and_written(study: StudyFolder) -> None:
    add_trials(study, range(3), optimistic=[1])
    text = blend(["one"], study.path.parent)
    report = expected(study, "kl_4")
    found = reported(study, report)
    assert found["nested"] == report.nested.scores
    assert found["method"] == "simplex"
    assert found["fitted"]["form"] == "mean"
    assert found["fitted"]["weights"] == list(found["weights"].values())
    assert found["members"] == [
        {"name": f"{number:04d}", "study": "one", "trial": number, "keys": {"0": "a"}}
        for number in [trial.number for trial in study.finished_trials()]
    ]
    assert found["optimistic"] == ["0001"]
    assert set(found["weights"]) == {"0000", "0001", "0002"}
    assert text.startswith("Blend of 3 models: 60 rows of 12 patients, fitted and scored on rows")
    assert text.endswith(f"written to {study.path / 'blend'}")
    files = {
        "oof_in_sample.parquet": blend_probabilities(models(study), report.weights),
        "oof_nested.parquet": report.nested.probabilities,
    }
    names = sorted(file.name for file in (study.path / "blend").iterdir())
    assert names == ["blend.json", *files]
    rows = study.rows()
    for name, probabilities in files.items():
        oof = read_oof(study.path / "blend" / name, rows)
        assert oof[["row_id", "fold"]].equals(rows[["row_id", "fold"]])
        np.testing.assert_allclose(oof[list(PROBABILITY_COLUMNS)], probabilities, atol=1e-12)


def test_rows_splits_and_seed_are_passed_on(
    study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    add_trials(study, range(3))
    words = ["blend", "one", "--results", str(study.path.parent)]
    assert main([*words, "--fit-on", "kl_all", "--splits", "3", "--seed", "5"]) == 0
    report = expected(study, "kl_all", n_splits=3, seed=5)
    reported(study, report)
    assert report.to_json() != expected(study, "kl_all", n_splits=3).to_json()
    assert "fitted and scored on all rows (60)" in " ".join(capsys.readouterr().out.split())


def test_a_blend_needs_finished_trials_and_groups(study: StudyFolder) -> None:
    results = study.path.parent
    study.write_failure(0, {}, study.space().experiment, "lost")
    with refusal(StudyError, "needs a finished trial", where="one"):
        blend(["one"], results)
    with refusal(StudyError, "needs a finished trial", where="one"):
        best_scores(study)
    with refusal(StudyError, "at least two groups of patients", got="1"):
        blend(["one"], results, Settings(n_splits=1))
    add_trials(study, [1])
    (study.trial_path(1) / "oof.parquet").write_bytes(b"half")
    with refusal(StudyError, where="0001/oof.parquet", fix="Move the trial's folder away"):
        blend(["one"], results)
    assert not (study.path / "blend").exists()


def test_the_best_scores_are_those_of_the_best_trial_and_the_nested_blend(
    study: StudyFolder,
) -> None:
    add_trials(study, range(3))
    best = study.finished_trials()[0]
    assert best_scores(study) == {f"best trial {best.number:04d}": best.scores}
    blend(["one"], study.path.parent)
    assert best_scores(study) == {
        f"best trial {best.number:04d}": best.scores,
        "blend, nested by patient": expected(study, "kl_4").nested.scores,
    }


@pytest.mark.parametrize(
    ("added", "gone", "optimistic", "title"),
    [
        ([3, 4], [], [], "blend of 3 of 5 trials, nested"),
        ([], [2], [], "blend of 3 trials, 1 removed since, nested"),
        ([3], [2], [], "blend of 3 trials, 1 removed since, nested"),
        ([], [], [1], "blend, nested by patient (optimistic)"),
        ([3], [], [1], "blend of 3 of 4 trials, nested (optimistic)"),
        ([], [], [0, 1, 2], "blend, nested by patient (optimistic)"),
    ],
)
def test_the_title_of_a_blend_states_whether_it_is_stale_or_optimistic(
    study: StudyFolder, added: list[int], gone: list[int], optimistic: list[int], title: str
) -> None:
    add_trials(study, range(3), optimistic)
    blend(["one"], study.path.parent)
    add_trials(study, added)
    for number in gone:
        study.trial_path(number).rename(study.path / "moved")
    first, second = best_scores(study)
    assert second == title
    assert first.endswith(" (optimistic)") == (study.finished_trials()[0].optimistic)


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weights": {}, "optimistic": [], "methods": {}}']
)
def test_a_damaged_or_older_blend_is_refused(study: StudyFolder, content: str) -> None:
    add_trials(study, range(2))
    blend(["one"], study.path.parent)
    (study.path / "blend" / "blend.json").write_text(content)
    with refusal(StudyError, "blend.json must", where="one", fix="hms-ray blend one"):
        best_scores(study)
