"""The list of the row browser and the details of a row, against plain loops."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from hms_ray.blend.result_files import NESTED_FILE
from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import UNIT_KEYS, Unit, make_rows
from hms_ray.competition.schema import CLASSES, PROBABILITY_COLUMNS, TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.dataset.hold_out import DATA_DIR
from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import kl_rows
from hms_ray.evaluate.oof import make_oof, write_oof
from hms_ray.report import rows_table
from hms_ray.report.rows_recordings import Recordings, data_folder
from hms_ray.report.rows_table import RowQuery, RowTable, jensen_shannon
from hms_ray.study.folder import StudyFolder
from tests.competition_folder import make_labels
from tests.refused import refusal
from tests.row_study import make_row_study


@pytest.fixture(scope="module")
def labels_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train.csv`` of 12 patients alone."""
    place = tmp_path_factory.mktemp("data")
    make_labels(np.random.default_rng(0)).to_csv(place / "train.csv", index=False)
    return place


@pytest.fixture(scope="module")
def made(labels_only: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study of three finished trials; only read."""
    return make_row_study(tmp_path_factory.mktemp("study"), labels_only)


@pytest.fixture
def study(made: StudyFolder, tmp_path: Path) -> StudyFolder:
    """A copy of ``made`` that a test may damage."""
    return StudyFolder(shutil.copytree(made.path, tmp_path / "rows"))


def listed(table: RowTable, **query: object) -> list[str]:
    return [row["id"] for row in table.page(RowQuery(**query))["rows"]]  # type: ignore[arg-type]


def test_disagreement_is_the_mean_divergence_from_the_mean_prediction() -> None:
    shares = np.random.default_rng(0).dirichlet(np.ones(6), size=(3, 20))
    shares[:, 0] = [1, 0, 0, 0, 0, 0]
    shares[:, 1] = np.eye(6)[:3]
    found = jensen_shannon(shares)
    middle = shares.mean(axis=0)
    for row in range(20):
        expected = 0.0
        for model in shares[:, row]:
            kl = sum(p * np.log(p / m) for p, m in zip(model, middle[row], strict=True) if p > 0)
            expected += kl / 3
        assert found[row] == pytest.approx(expected, abs=1e-12)
    assert found[0] == 0
    assert found[1] == pytest.approx(np.log(3))


def test_list_has_the_loss_of_the_best_trial_and_the_class_with_most_votes(
    made: StudyFolder,
) -> None:
    table, best = RowTable(made), made.finished_trials()[0]
    rows = made.rows()
    oof = best.oof(rows)
    losses = kl_rows(rows[list(TARGET_COLUMNS)], oof[list(PROBABILITY_COLUMNS)])
    everything = {row["id"]: row for row in table.page(RowQuery())["rows"]}
    assert len(everything) == len(rows)
    for position, row in rows.iterrows():
        found = everything[row["row_id"]]
        assert found["loss"] == pytest.approx(losses[position])
        assert found["class"] == CLASSES[int(np.argmax([row[name] for name in VOTE_COLUMNS]))]
        assert found["votes"] == row["total_votes"]
    assert [model.name for model in table.models] == [
        f"trial {trial.number:04d}" for trial in made.finished_trials()
    ]
    assert table.notes == []


def test_list_is_sorted_filtered_and_cut_into_pages(
    made: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, rows = RowTable(made), made.rows()
    everything = table.page(RowQuery())["rows"]
    for sort in ("loss", "votes", "disagreement"):
        for descending in (True, False):
            found = table.page(RowQuery(sort=sort, descending=descending))["rows"]  # type: ignore[arg-type]
            expected = sorted((row[sort] for row in everything), reverse=descending)
            assert [row[sort] for row in found] == expected
    assert listed(table, sort="row", descending=False) == rows["row_id"].tolist()
    classes = [row["class"] for row in table.page(RowQuery(sort="class", descending=False))["rows"]]
    assert classes == sorted(classes, key=CLASSES.index)
    few = rows[rows["total_votes"].between(4, 9) & (rows["expert_consensus"] == "LPD")]
    assert len(few) > 0
    assert set(listed(table, votes="4-9", of_class="LPD")) == set(few["row_id"])
    monkeypatch.setattr(rows_table, "PAGE_ROWS", 4)
    order = [row["id"] for row in everything]
    second = table.page(RowQuery(page=1))
    assert [row["id"] for row in second["rows"]] == order[4:8]
    assert (second["total"], second["first"]) == (len(order), 5)
    assert second["pages"] == -(-len(order) // 4)
    assert table.page(RowQuery(row=order[9]))["page"] == 2
    assert table.page(RowQuery(page=99))["page"] == second["pages"] - 1
    # A row that the filter hides does not move the list.
    assert table.page(RowQuery(row=order[9], votes=">=10", page=0))["page"] == 0


def test_a_list_that_does_not_exist_is_refused() -> None:
    for name, value, known in (
        ("sort", "size", "loss"),
        ("of_class", "Seizures", "Seizure"),
        ("votes", "many", "1-3"),
    ):
        with refusal(StudyError, f"{known}", got=value, fix="Use "):
            RowQuery(**{name: value})  # type: ignore[arg-type]


def test_details_have_votes_and_the_shares_of_every_model(made: StudyFolder) -> None:
    table, rows = RowTable(made), made.rows()
    row = rows.iloc[7]
    found = table.details(row["row_id"])
    assert found["vote_counts"] == [row[name] for name in VOTE_COLUMNS]
    assert found["truth"] == pytest.approx([row[name] for name in TARGET_COLUMNS])
    assert [found[name] for name in ("eeg", "patient", "fold")] == [
        row["eeg_id"],
        row["patient_id"],
        row["fold"],
    ]
    for model, trial in zip(found["models"], made.finished_trials(), strict=True):
        shares = trial.oof(rows).iloc[7][list(PROBABILITY_COLUMNS)].to_numpy(float)
        assert model["shares"] == pytest.approx(shares)
        assert model["loss"] == pytest.approx(kl_rows([found["truth"]], [shares])[0])
    same = rows[rows["eeg_id"] == row["eeg_id"]]["row_id"].tolist()
    assert [one["id"] for one in found["same_eeg"]] == same


def test_a_chosen_trial_is_shown_first_and_counts_once(made: StudyFolder) -> None:
    last = made.finished_trials()[-1].number
    table = RowTable(made, last)
    assert table.models[0].name == f"trial {last:04d}"
    assert len(table.models) == 3


def test_the_best_trials_are_shown_and_the_others_counted(
    made: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_table, "MAX_MODELS", 2)
    table = RowTable(made)
    best = [f"trial {trial.number:04d}" for trial in made.finished_trials()[:2]]
    assert [model.name for model in table.models] == best
    assert table.notes == ["Shown are 2 of 3 finished trials."]


def test_a_blend_is_shown_last_and_does_not_count_as_disagreement(study: StudyFolder) -> None:
    rows = study.rows()
    before = RowTable(study).disagreement
    (study.path / "blend").mkdir()
    oof = make_oof(rows, rows["fold"], np.full((len(rows), 6), 1 / 6))
    write_oof(study.path / "blend" / NESTED_FILE, oof)
    table = RowTable(study)
    assert table.models[-1].name == "blend, nested"
    assert np.array_equal(table.models[-1].shares, np.full((len(rows), 6), 1 / 6))
    assert before is not None
    assert table.disagreement is not None
    assert np.array_equal(table.disagreement, before)
    # Of other rows: from before a study of this name was made again.
    write_oof(study.path / "blend" / NESTED_FILE, oof.iloc[1:])
    table = RowTable(study)
    assert len(table.models) == 3
    assert "The blend is not shown: every training row must be predicted" in table.notes[0]


def test_a_trial_without_probabilities_is_named_and_the_others_shown(study: StudyFolder) -> None:
    best, second, third = study.finished_trials()
    (best.path / "oof.parquet").unlink()
    (third.path / "oof.parquet").write_bytes(b"damaged")
    table = RowTable(study)
    assert [model.name for model in table.models] == [f"trial {second.number:04d}"]
    assert table.disagreement is None
    assert [note.split(" is not shown: ")[0] for note in table.notes] == [
        f"Trial {best.number:04d}",
        f"Trial {third.number:04d}",
    ]
    with refusal(StudyError, "must exist", where="oof.parquet", fix="Move the trial's folder"):
        RowTable(study, best.number)


def test_rows_of_a_study_without_finished_trials_are_shown(
    labels_only: Path, tmp_path: Path
) -> None:
    study = make_row_study(tmp_path, labels_only, n_trials=0)
    table = RowTable(study)
    assert "No trial has finished" in table.notes[0]
    rows = study.rows()["row_id"].tolist()
    assert listed(table) == rows
    assert table.details(rows[0])["models"] == []
    with refusal(StudyError, "needs a finished trial", where="rows", fix="hms-ray sweep"):
        RowTable(study, 0)


def test_an_unknown_row_is_refused_with_the_nearest(made: StudyFolder) -> None:
    known = made.rows()["row_id"].iloc[0]
    with refusal(
        StudyError,
        "must be one of the study's",
        got=f"did you mean {known}?",
        where="rows",
        fix="C",
    ):
        RowTable(made).details(known + "9")


def test_rows_without_votes_or_windows_are_refused(results: Path) -> None:
    got = "no spectrogram_id, expert_consensus"
    with refusal(StudyError, "votes and windows", got=got, where="one", fix="Run the study"):
        RowTable(StudyFolder(results / "one"))


@pytest.mark.parametrize("unit", list(UNIT_KEYS))
def test_label_rows_of_a_row_are_marked_with_their_own_ten_seconds(
    unit: Unit, labels_only: Path
) -> None:
    labels = read_labels(labels_only)
    recordings = Recordings(labels_only, unit)
    recordings.load_labels()
    for _, row in make_rows(labels, unit).iterrows():
        expected = []
        for _, label in labels.iterrows():
            same_votes = all(label[name] == row[name] for name in VOTE_COLUMNS)
            sub_id = f"{label['eeg_id']}-{label['eeg_sub_id']}" == row["row_id"]
            fits = {"eeg_votes": same_votes, "eeg": True, "label": sub_id}[unit]
            if label["eeg_id"] == row["eeg_id"] and fits:
                start = label["eeg_label_offset_seconds"] + 20
                expected.append(
                    {"sub_id": label["eeg_sub_id"], "start_s": start, "end_s": start + 10}
                )
        assert recordings.merged_labels(row) == expected
        assert len(expected) == row["n_labels"]


def test_the_data_folder_is_given_recorded_or_that_of_the_command(
    study: StudyFolder, labels_only: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = study.rows()
    given = tmp_path / "given"
    assert data_folder(study, rows, given) == given
    assert data_folder(study, rows, None) == labels_only
    rows.attrs = {}
    assert data_folder(study, rows, None) is None
    for command, expected in (
        (["hms-ray", "sweep", "demo", "--data", str(labels_only)], labels_only),
        (["hms-ray", "sweep", "demo", "--data", "gone"], Path("gone")),
        (["hms-ray", "sweep", "demo", "--data"], None),
    ):
        (study.path / "environment.json").unlink(missing_ok=True)
        study.record_run({"command": command})
        assert data_folder(study, rows, None) == expected
    # Relative to the folder that the results are in, if the command runs elsewhere.
    moved = StudyFolder(shutil.copytree(study.path, tmp_path / "work" / "results" / "rows"))
    (tmp_path / "work" / "gone").mkdir()
    moved.record_run({"command": ["hms-ray", "sweep", "demo", "--data", "gone"]})
    assert data_folder(moved, rows, None) == tmp_path / "work" / "gone"


def test_rows_of_a_prepared_study_record_their_folder(
    tmp_path: Path, two_patients_with_eegs: Path, one_process: None
) -> None:
    from hms_ray.config.loading import validate_space
    from hms_ray.dataset.prepare import prepare

    space = validate_space({"experiment": {"data": {"n_folds": 2}}}, "test")
    relative = tmp_path / "link"
    relative.symlink_to(two_patients_with_eegs)
    prepared = prepare(relative, space.experiment, tmp_path / "results", pack_dir=tmp_path)
    assert prepared.rows().attrs[DATA_DIR] == str(two_patients_with_eegs.resolve())


def test_label_rows_are_optional(tmp_path: Path, made: StudyFolder) -> None:
    recordings = Recordings(tmp_path, "eeg_votes")
    recordings.load_labels()
    assert recordings.labels_problem is not None
    assert "train.csv" in recordings.labels_problem
    assert recordings.merged_labels(made.rows().iloc[0]) == []


def test_a_folder_that_is_missing_or_unknown_is_explained() -> None:
    gone = Recordings(Path("/nowhere/gone"), "eeg_votes").missing()
    assert gone is not None
    assert "/nowhere/gone does not exist" in gone
    assert "--data DIR" in gone
    unknown = Recordings(None, "eeg_votes").missing()
    assert unknown is not None
    assert "--data DIR" in unknown
