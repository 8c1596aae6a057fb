"""Oracle KL: the KL of the truth on the drawn votes."""

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import make_rows
from hms_ray.competition.schema import CLASSES, LABEL_COLUMNS, VOTE_COLUMNS
from hms_ray.dataset.hold_out import HoldOut
from hms_ray.errors import DataError
from hms_ray.simulate.cohort import (
    TIER_TRUTH_COLUMNS,
    TRUTH_COLUMNS,
    TRUTH_FILE,
    Cohort,
    simulate_labels,
)
from hms_ray.simulate.folder import simulate_folder
from hms_ray.simulate.ladder_data import default_folder, oracle_scores, simulation_of
from hms_ray.simulate.oracle import oracle_report
from hms_ray.simulate.truth import TrueOdds
from tests.blend_data import add_trials, make_study

# Odds of the experts of the other tiers, the same for every row.
OTHERS = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)
# (EEG and sub id, votes, truth): EEG 7 has two label rows of equal votes and one of others.
VOTES = [
    ((7, 0), (3, 0, 0, 0, 0, 0), (0.8, 0.04, 0.04, 0.04, 0.04, 0.04)),
    ((7, 1), (3, 0, 0, 0, 0, 0), (0.6, 0.08, 0.08, 0.08, 0.08, 0.08)),
    ((7, 2), (0, 6, 0, 0, 0, 6), (0.02, 0.4, 0.02, 0.02, 0.02, 0.52)),
    ((9, 0), (0, 0, 0, 0, 5, 0), (0.1, 0.1, 0.1, 0.1, 0.5, 0.1)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels, truth = [], []
    for number, ((eeg_id, sub_id), votes, odds) in enumerate(VOTES):
        consensus = CLASSES[int(np.argmax(votes))]
        place = (eeg_id, sub_id, 2.0 * sub_id)
        labels.append((*place, *place, number, eeg_id, consensus, *votes))
        tier = "1-3" if sum(votes) <= 3 else "4-9" if sum(votes) <= 9 else ">=10"
        by_tier = [odds if name == tier else OTHERS for name in TIER_TRUTH_COLUMNS]
        truth.append((eeg_id, sub_id, tier, *odds, *chain.from_iterable(by_tier)))
    pd.DataFrame(labels, columns=list(LABEL_COLUMNS)).to_csv(tmp_path / "train.csv", index=False)
    tiers = chain.from_iterable(TIER_TRUTH_COLUMNS.values())
    columns = ["eeg_id", "eeg_sub_id", "tier", *TRUTH_COLUMNS, *tiers]
    # The result must not depend on the order of the truth.
    pd.DataFrame(truth[::-1], columns=columns).to_parquet(tmp_path / "truth.parquet")
    return tmp_path


def kl(target: np.ndarray, predicted: np.ndarray) -> float:
    there = target > 0
    return float((target[there] * np.log(target[there] / predicted[there])).sum())


def by_name(report) -> dict[str, tuple[int, float | None]]:
    lines = (*report.cumulative, *report.tiers)
    return {line.name: (line.n_rows, line.oracle) for line in lines}


def test_row_of_equal_votes_has_mean_odds_of_its_label_rows(folder: Path) -> None:
    lines = by_name(oracle_report(folder))
    three = -np.log(0.7)
    twelve = kl(np.array([0, 0.5, 0, 0, 0, 0.5]), np.array(VOTES[2][2]))
    five = -np.log(0.5)
    expected = {
        "all": (3, (three + twelve + five) / 3),
        ">=4": (2, (twelve + five) / 2),
        "1-3": (1, three),
        "4-9": (1, five),
        ">=10": (1, twelve),
    }
    assert lines.keys() == expected.keys()
    for name, (count, value) in expected.items():
        assert lines[name][0] == count
        assert lines[name][1] == pytest.approx(value, rel=1e-9), name


def test_row_of_one_eeg_has_vote_weighted_mean_odds(folder: Path) -> None:
    lines = by_name(oracle_report(folder, unit="eeg"))
    votes = np.array([row[1] for row in VOTES[:3]])
    odds = np.average([row[2] for row in VOTES[:3]], axis=0, weights=votes.sum(axis=1))
    target = votes.sum(axis=0) / votes.sum()
    assert lines["all"][0] == 2
    assert lines["all"][1] == pytest.approx((kl(target, odds) - np.log(0.5)) / 2, rel=1e-9)


def test_label_row_has_its_own_odds(folder: Path) -> None:
    lines = by_name(oracle_report(folder, unit="label"))
    assert lines["1-3"] == (2, pytest.approx((-np.log(0.8) - np.log(0.6)) / 2, rel=1e-9))


def test_report_has_kl_of_class_means(folder: Path) -> None:
    report = oracle_report(folder)
    targets = np.array([[1, 0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0, 0.5], [0, 0, 0, 0, 1, 0]])
    expected = np.mean([kl(target, targets.mean(axis=0)) for target in targets])
    assert report.cumulative[0].class_mean == pytest.approx(expected, rel=1e-9)


def test_oracle_without_tier_mixes_tier_odds_by_frequency(folder: Path) -> None:
    report = oracle_report(folder)
    # For experts of the last tier the most likely class of the rows with 3 and with 5 votes is
    # Seizure, so each tier judges half of that class; the row with 12 votes has its own class.
    own = [np.array([0.7, *(0.06,) * 5]), np.array(VOTES[3][2])]
    few, some = ((odds + np.array(OTHERS)) / 2 for odds in own)
    twelve = kl(np.array([0, 0.5, 0, 0, 0, 0.5]), np.array(VOTES[2][2]))
    expected = [-np.log(few[0]), -np.log(some[4]), twelve]
    assert [line.oracle_without_tier for line in report.tiers] == pytest.approx(expected, rel=1e-9)
    # Among rows with four votes or more each class has one tier only: nothing is unknown.
    expected = [np.mean(expected), (-np.log(0.5) + twelve) / 2, twelve]
    found = [line.oracle_without_tier for line in report.cumulative]
    assert found == pytest.approx(expected, rel=1e-9)
    assert report.cumulative[0].oracle < expected[0]


def test_tier_shares_come_from_the_counted_rows() -> None:
    by_tier = np.full((3, 3, 6), 0.1)
    # For experts of the last tier, two rows of the first class and one of the second.
    for row, kind in enumerate((0, 0, 1)):
        for tier in range(3):
            by_tier[row, tier, kind if tier == 2 else 3 + tier] = 0.5
    judged = np.eye(3)[[0, 2, 1]]
    odds = TrueOdds(by_tier[range(3), [0, 2, 1]], by_tier, judged)
    np.testing.assert_allclose(odds.without_tier()[0], (by_tier[0, 0] + by_tier[0, 2]) / 2)
    few = odds.without_tier(np.array([True, False, True]))
    np.testing.assert_allclose(few[0], by_tier[0, 0])
    # The second row's class was counted once, judged by the first tier.
    np.testing.assert_allclose(few[1], by_tier[1, 0])
    # No row of the second class is counted: it gets the shares over all counted rows.
    unseen = odds.without_tier(np.array([True, True, False]))
    np.testing.assert_allclose(unseen[2], (by_tier[2, 0] + by_tier[2, 2]) / 2)


def test_folder_with_labels_only(folder: Path) -> None:
    whole = oracle_report(folder)
    assert "votes of train.csv" in whole.to_text()
    (folder / "train.csv").rename(folder / "labels.csv")
    alone = oracle_report(folder)
    assert alone.table == "labels.csv"
    assert alone.cumulative == whole.cumulative
    assert "votes of labels.csv" in alone.to_text()
    (folder / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"train\.csv"):
        oracle_report(folder)


def test_no_share_if_class_means_are_as_good_as_the_oracle(folder: Path) -> None:
    report = oracle_report(folder)
    line = report.cumulative[0]
    near = replace(report, cumulative=(replace(line, class_mean=line.oracle),) * 3)
    scores = {"kl_all": 0.5, "kl_4": 0.5, "kl_10": 0.5}
    assert near.share_closed(scores) == dict.fromkeys(scores, None)


def test_study_shares_to_both_oracles(folder: Path) -> None:
    report = oracle_report(folder)
    line = report.cumulative[0]
    scores = {"best": {"kl_all": line.oracle_without_tier, "kl_4": None, "kl_10": None}}
    shares = json.loads(report.study_json(scores))
    assert shares["oracle_without_tier"]["best"] == {
        "kl_all": pytest.approx(1),
        "kl_4": None,
        "kl_10": None,
    }
    share = (line.class_mean - line.oracle_without_tier) / (line.class_mean - line.oracle)
    assert shares["oracle"]["best"]["kl_all"] == pytest.approx(share)
    text = report.study_text(scores)
    assert "oracle that does not know who voted" in text
    assert "KL >=10" in text
    assert "100%" in text
    assert f"{share:.0%}" in text


def test_a_study_with_a_hold_out_is_compared_on_its_own_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(read_labels(folder))
    held_out = rows["eeg_id"] == 9
    rows[held_out].to_parquet(folder / "held_out.parquet")
    training = rows[~held_out].assign(fold=[0, 1])
    study = make_study(folder, "one", training, HoldOut(folder / "held_out.parquet", "h"))
    add_trials(study, [0])
    place = ["--results", str(folder / "results"), "--json"]
    assert main(["oracle", str(folder), "--study", "one", *place]) == 0
    shares = json.loads(capsys.readouterr().out)["oracle"]["best trial 0000"]
    expected = oracle_report(folder, row_ids=training["row_id"].tolist())
    score = study.finished_trial().scores
    assert shares["kl_all"] == pytest.approx(expected.share_closed(score)["kl_all"])


@pytest.mark.parametrize("seed", range(3))
def test_oracle_beats_oracle_without_tier_beats_class_means(tmp_path: Path, seed: int) -> None:
    labels, truth = simulate_labels(150, Cohort(seed))
    labels.to_csv(tmp_path / "train.csv", index=False)
    truth.to_parquet(tmp_path / "truth.parquet")
    whole, _, most = oracle_report(tmp_path).cumulative
    assert whole.n_rows > 300
    assert whole.oracle < whole.oracle_without_tier < whole.class_mean
    # Ten votes or more come from one tier, so both oracles know who voted.
    assert most.n_rows > 50
    assert most.oracle_without_tier == pytest.approx(most.oracle, rel=1e-9)


def test_tier_without_rows_has_no_kl(folder: Path) -> None:
    labels = pd.read_csv(folder / "train.csv")
    labels[labels[list(VOTE_COLUMNS)].sum(axis=1) < 10].to_csv(folder / "train.csv", index=False)
    report = oracle_report(folder)
    assert by_name(report)[">=10"] == (0, None)
    assert report.to_text().splitlines()[-1].split() == ["tier", ">=10", "0", "-", "-", "-"]


def test_report_as_text_and_json(folder: Path) -> None:
    report = oracle_report(folder)
    text = report.to_text()
    assert f"{report.cumulative[0].oracle:.4f}" in text
    read = json.loads(report.to_json())
    assert read["cumulative"][0]["oracle"] == report.cumulative[0].oracle
    assert [line["name"] for line in read["tiers"]] == ["1-3", "4-9", ">=10"]


def test_folder_without_truth_is_refused(folder: Path) -> None:
    (folder / "truth.parquet").unlink()
    with pytest.raises(DataError, match=r"no truth\.parquet, .*hms-ray simulate"):
        oracle_report(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda truth: truth[truth["eeg_id"] != 9], "1 without, first eeg_id 9, eeg_sub_id 0"),
        (lambda truth: pd.concat([truth, truth.tail(1)]), "eeg_id 7, eeg_sub_id 0 twice"),
    ],
)
def test_truth_must_have_each_label_row_once(folder: Path, change, message: str) -> None:
    change(pd.read_parquet(folder / TRUTH_FILE)).to_parquet(folder / TRUTH_FILE)
    with pytest.raises(DataError, match=message):
        oracle_report(folder)


def test_damaged_truth_is_refused(folder: Path) -> None:
    (folder / "truth.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="parquet file with the tier"):
        oracle_report(folder)


def test_oracle_beats_class_means_on_simulated_folder(tmp_path: Path) -> None:
    report = oracle_report(simulate_folder(tmp_path / "data", 3, seed=1))
    line = report.cumulative[0]
    assert line.oracle is not None
    assert line.class_mean is not None
    assert 0 < line.oracle < line.class_mean


def test_selected_rows_are_scored_alone(folder: Path) -> None:
    whole = oracle_report(folder)
    chosen = [whole.row_ids[2], whole.row_ids[0]]
    part = oracle_report(folder, row_ids=chosen)
    assert list(part.row_ids) == chosen
    assert part.total_votes == (whole.total_votes[2], whole.total_votes[0])
    assert part.cumulative[0].n_rows == 2
    assert oracle_report(folder, row_ids=list(whole.row_ids)) == whole
    each = [oracle_report(folder, row_ids=[row]).cumulative[0] for row in chosen]
    mean = np.mean([line.oracle for line in each])
    assert part.cumulative[0].oracle == pytest.approx(mean, rel=1e-12)
    assert [line.class_mean for line in each] == pytest.approx([0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(("rows", "got"), [([], "none"), (["7-7"], "7-7")])
def test_rows_of_another_folder_are_refused(folder: Path, rows: list[str], got: str) -> None:
    with pytest.raises(DataError, match=f"rows of the simulated folder, got {got}"):
        oracle_report(folder, row_ids=rows)


def test_ladder_gets_oracle_kl_as_plain_numbers(folder: Path) -> None:
    whole = oracle_report(folder)
    rows = pd.DataFrame({"row_id": whole.row_ids, "total_votes": whole.total_votes})
    scores = oracle_scores(folder, "eeg_votes", "middle", rows)
    assert scores is not None
    assert list(scores) == ["perfect", "tier_unknown", "class_mean"]
    assert scores["perfect"]["kl_10"] == whole.cumulative[2].oracle
    with pytest.raises(DataError, match="must have the rows of the simulated folder"):
        oracle_scores(folder, "eeg_votes", "middle", rows.assign(total_votes=99))
    (folder / TRUTH_FILE).unlink()
    assert oracle_scores(folder, "eeg_votes", "middle", rows) is None


def test_simulation_manifest_is_read_if_valid(tmp_path: Path) -> None:
    assert simulation_of(tmp_path) is None
    (tmp_path / "simulation.json").write_text('{"seed": 4}', encoding="utf-8")
    assert simulation_of(tmp_path) == {"seed": 4}
    (tmp_path / "simulation.json").write_text("no", encoding="utf-8")
    assert simulation_of(tmp_path) is None


def test_default_ladder_folder_is_simulated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def simulate(folder: Path, n_patients: int, seed: int, *rest: object) -> None:
        calls.append((n_patients, seed))
        folder.mkdir()
        (folder / "train.csv").touch()

    monkeypatch.setattr("hms_ray.simulate.ladder_data.simulate_folder", simulate)
    for _ in range(2):
        assert default_folder(tmp_path / "results", 1) == tmp_path / "results" / ".ladder-data"
    assert calls == [(300, 0)]
