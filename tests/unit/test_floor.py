"""The floor: the KL of the truth on the drawn votes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.schema import CLASSES, LABEL_COLUMNS, VOTE_COLUMNS
from hms_ray.errors import DataError
from hms_ray.simulate.floor import floor
from hms_ray.simulate.folder import simulate_folder
from hms_ray.simulate.ladder import floors_of, own_folder, simulation_of
from hms_ray.simulate.tables import (
    TIER_TRUTH_COLUMNS,
    TRUTH_COLUMNS,
    TRUTH_FILE,
    Cohort,
    simulate_labels,
)
from hms_ray.simulate.truth import TrueOdds

# What experts of the other tiers would vote, whatever the row.
OTHERS = (0.5, 0.1, 0.1, 0.1, 0.1, 0.1)
# (eeg, votes, truth): EEG 7 has two label rows of equal votes and one of others.
VOTES = [
    (7, (3, 0, 0, 0, 0, 0), (0.8, 0.04, 0.04, 0.04, 0.04, 0.04)),
    (7, (3, 0, 0, 0, 0, 0), (0.6, 0.08, 0.08, 0.08, 0.08, 0.08)),
    (7, (0, 6, 0, 0, 0, 6), (0.02, 0.4, 0.02, 0.02, 0.02, 0.52)),
    (9, (0, 0, 0, 0, 5, 0), (0.1, 0.1, 0.1, 0.1, 0.5, 0.1)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    labels = []
    truth = []
    sub_ids: dict[int, int] = {}
    for number, (eeg_id, votes, odds) in enumerate(VOTES):
        sub_id = sub_ids[eeg_id] = sub_ids.get(eeg_id, -1) + 1
        labels.append(
            dict(
                zip(
                    LABEL_COLUMNS,
                    (
                        *(eeg_id, sub_id, 2.0 * sub_id),
                        *(eeg_id, sub_id, 2.0 * sub_id),
                        *(number, eeg_id, CLASSES[int(np.argmax(votes))], *votes),
                    ),
                    strict=True,
                )
            )
        )
        keys = {"eeg_id": eeg_id, "eeg_sub_id": sub_id}
        total = sum(votes)
        tier = "1-3" if total <= 3 else "4-9" if total <= 9 else ">=10"
        true = {"tier": tier, **dict(zip(TRUTH_COLUMNS, odds, strict=True))}
        for name, columns in TIER_TRUTH_COLUMNS.items():
            true |= dict(zip(columns, odds if name == tier else OTHERS, strict=True))
        truth.append(keys | true)
    pd.DataFrame(labels).to_csv(tmp_path / "train.csv", index=False)
    # The order of the truth must not matter.
    pd.DataFrame(truth[::-1]).to_parquet(tmp_path / "truth.parquet")
    return tmp_path


def kl(target: np.ndarray, predicted: np.ndarray) -> float:
    there = target > 0
    return float((target[there] * np.log(target[there] / predicted[there])).sum())


def by_name(report) -> dict[str, tuple[int, float | None]]:
    lines = (*report.cumulative, *report.tiers)
    return {line.name: (line.n_rows, line.perfect) for line in lines}


def test_rows_of_equal_votes_take_the_mean_of_their_odds(folder: Path) -> None:
    lines = by_name(floor(folder))
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


def test_an_eeg_takes_the_mean_odds_of_its_votes(folder: Path) -> None:
    lines = by_name(floor(folder, unit="eeg"))
    votes = np.array([row[1] for row in VOTES[:3]])
    odds = np.average([row[2] for row in VOTES[:3]], axis=0, weights=votes.sum(axis=1))
    target = votes.sum(axis=0) / votes.sum()
    assert lines["all"][0] == 2
    assert lines["all"][1] == pytest.approx((kl(target, odds) - np.log(0.5)) / 2, rel=1e-9)


def test_every_label_row_has_its_own_odds(folder: Path) -> None:
    lines = by_name(floor(folder, unit="label"))
    assert lines["1-3"] == (2, pytest.approx((-np.log(0.8) - np.log(0.6)) / 2, rel=1e-9))


def test_the_class_means_are_beside_it(folder: Path) -> None:
    report = floor(folder)
    targets = np.array([[1, 0, 0, 0, 0, 0], [0, 0.5, 0, 0, 0, 0.5], [0, 0, 0, 0, 1, 0]])
    expected = np.mean([kl(target, targets.mean(axis=0)) for target in targets])
    assert report.cumulative[0].class_mean == pytest.approx(expected, rel=1e-9)


def test_an_unknown_tier_mixes_the_odds_of_tiers_by_how_often_they_judge(folder: Path) -> None:
    report = floor(folder)
    # For experts of many votes the rows of 3 and of 5 votes are most likely seizures, so of
    # that kind half is judged by either tier; the row of 12 votes is alone.
    own = [np.array([0.7, *(0.06,) * 5]), np.array(VOTES[3][2])]
    few, some = ((odds + np.array(OTHERS)) / 2 for odds in own)
    twelve = kl(np.array([0, 0.5, 0, 0, 0, 0.5]), np.array(VOTES[2][2]))
    expected = [-np.log(few[0]), -np.log(some[4]), twelve]
    assert [line.tier_unknown for line in report.tiers] == pytest.approx(expected, rel=1e-9)
    # Of the rows of four votes or more each kind has one tier only: nothing is unknown.
    expected = [np.mean(expected), (-np.log(0.5) + twelve) / 2, twelve]
    found = [line.tier_unknown for line in report.cumulative]
    assert found == pytest.approx(expected, rel=1e-9)
    assert report.cumulative[0].perfect < expected[0]


def test_tiers_are_mixed_as_often_as_they_judge_the_counted_rows() -> None:
    by_tier = np.full((3, 3, 6), 0.1)
    # Two rows of the first kind, for experts of the last tier, and one of the second.
    for row, kind in enumerate((0, 0, 1)):
        for tier in range(3):
            by_tier[row, tier, kind if tier == 2 else 3 + tier] = 0.5
    judged = np.eye(3)[[0, 2, 1]]
    odds = TrueOdds(by_tier[range(3), [0, 2, 1]], by_tier, judged)
    np.testing.assert_allclose(odds.tier_unknown()[0], (by_tier[0, 0] + by_tier[0, 2]) / 2)
    few = odds.tier_unknown(np.array([True, False, True]))
    np.testing.assert_allclose(few[0], by_tier[0, 0])
    # The second row's kind was counted once, judged by the first tier.
    np.testing.assert_allclose(few[1], by_tier[1, 0])
    # Nothing of the second kind is counted: it gets the shares of all that is.
    unseen = odds.tier_unknown(np.array([True, True, False]))
    np.testing.assert_allclose(unseen[2], (by_tier[2, 0] + by_tier[2, 2]) / 2)


def test_labels_alone_have_a_floor_too(folder: Path) -> None:
    whole = floor(folder)
    assert whole.to_text().startswith("KL that remains on the drawn votes of train.csv (nats)")
    (folder / "train.csv").rename(folder / "labels.csv")
    alone = floor(folder)
    assert alone.table == "labels.csv"
    assert alone.cumulative == whole.cumulative
    assert alone.to_text().startswith("KL that remains on the drawn votes of labels.csv (nats)")
    (folder / "labels.csv").unlink()
    with pytest.raises(DataError, match=r"train\.csv"):
        floor(folder)


def test_where_class_means_are_as_low_as_the_floor_there_is_no_way_to_go(folder: Path) -> None:
    report = floor(folder)
    line = report.cumulative[0]
    near = replace(report, cumulative=(replace(line, class_mean=line.perfect),) * 3)
    scores = {"kl_all": 0.5, "kl_4": 0.5, "kl_10": 0.5}
    assert near.closed(scores) == dict.fromkeys(scores, None)


def test_distances_are_told_to_both_floors(folder: Path) -> None:
    report = floor(folder)
    line = report.cumulative[0]
    scores = {"best": {"kl_all": line.tier_unknown, "kl_4": None, "kl_10": None}}
    told = json.loads(report.distance_json(scores))
    assert told["tier_unknown"]["best"] == {"kl_all": pytest.approx(1), "kl_4": None, "kl_10": None}
    share = (line.class_mean - line.tier_unknown) / (line.class_mean - line.perfect)
    assert told["perfect"]["best"]["kl_all"] == pytest.approx(share)
    text = report.distance_text(scores)
    assert max(len(part) for part in text.splitlines()) <= 80
    assert "-- to one that does not know who voted" in text
    assert "100%" in text
    assert f"{share:.0%}" in text


@pytest.mark.parametrize("seed", range(3))
def test_who_knows_more_is_nearer_to_the_votes(tmp_path: Path, seed: int) -> None:
    labels, truth = simulate_labels(150, Cohort(seed))
    labels.to_csv(tmp_path / "train.csv", index=False)
    truth.to_parquet(tmp_path / "truth.parquet")
    whole, _, most = floor(tmp_path).cumulative
    assert whole.n_rows > 300
    assert whole.perfect < whole.tier_unknown < whole.class_mean
    # Ten votes or more come from one tier: who knows which rows count knows who judged them.
    assert most.n_rows > 50
    assert most.tier_unknown == pytest.approx(most.perfect, rel=1e-9)


def test_a_tier_without_rows_has_no_number(folder: Path) -> None:
    labels = pd.read_csv(folder / "train.csv")
    labels[labels[list(VOTE_COLUMNS)].sum(axis=1) < 10].to_csv(folder / "train.csv", index=False)
    report = floor(folder)
    assert by_name(report)[">=10"] == (0, None)
    assert report.to_text().splitlines()[-1].split() == [">=10", "0", "-", "-", "-"]


def test_the_report_is_a_table_and_json(folder: Path) -> None:
    report = floor(folder)
    text = report.to_text()
    assert max(len(line) for line in text.splitlines()) <= 80
    assert f"{report.cumulative[0].perfect:.4f}" in text
    read = json.loads(report.to_json())
    assert read["cumulative"][0]["perfect"] == report.cumulative[0].perfect
    assert [line["name"] for line in read["tiers"]] == ["1-3", "4-9", ">=10"]


def test_without_truth_there_is_no_floor(folder: Path) -> None:
    (folder / "truth.parquet").unlink()
    with pytest.raises(DataError, match=r"no truth\.parquet, in .*hms-ray simulate"):
        floor(folder)


def test_label_rows_without_truth_are_named(folder: Path) -> None:
    truth = pd.read_parquet(folder / "truth.parquet")
    truth[truth["eeg_id"] != 9].to_parquet(folder / "truth.parquet")
    with pytest.raises(DataError, match="1 without, first eeg_id 9, eeg_sub_id 0"):
        floor(folder)


def test_a_row_named_twice_is_refused(folder: Path) -> None:
    truth = pd.read_parquet(folder / "truth.parquet")
    pd.concat([truth, truth.tail(1)]).to_parquet(folder / "truth.parquet")
    with pytest.raises(DataError, match="eeg_id 7, eeg_sub_id 0 twice"):
        floor(folder)


def test_a_damaged_truth_is_refused(folder: Path) -> None:
    (folder / "truth.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match="must be a parquet file with the tier and the true odds"):
        floor(folder)


def test_on_simulated_data_the_perfect_model_beats_the_class_means(tmp_path: Path) -> None:
    report = floor(simulate_folder(tmp_path / "data", 3, seed=1))
    line = report.cumulative[0]
    assert line.perfect is not None
    assert line.class_mean is not None
    assert 0 < line.perfect < line.class_mean


def test_a_floor_of_some_rows_is_that_of_their_own_folder(folder: Path) -> None:
    whole = floor(folder)
    chosen = [whole.row_ids[2], whole.row_ids[0]]
    part = floor(folder, row_ids=chosen)
    assert list(part.row_ids) == chosen
    assert part.total_votes == (whole.total_votes[2], whole.total_votes[0])
    assert part.cumulative[0].n_rows == 2
    assert floor(folder, row_ids=list(whole.row_ids)) == whole
    for name in ("perfect", "class_mean"):
        each = [getattr(floor(folder, row_ids=[row]).cumulative[0], name) for row in chosen]
        if name == "perfect":
            assert part.cumulative[0].perfect == pytest.approx(np.mean(each), rel=1e-12)
        else:
            assert each == pytest.approx([0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize(("rows", "got"), [([], "none"), (["7-7"], "7-7")])
def test_rows_of_another_folder_have_no_floor(folder: Path, rows: list[str], got: str) -> None:
    with pytest.raises(DataError, match=f"a floor needs rows of the simulated folder, got {got}"):
        floor(folder, row_ids=rows)


def test_a_ladder_is_told_floors_as_plain_numbers(folder: Path) -> None:
    whole = floor(folder)
    rows = pd.DataFrame({"row_id": whole.row_ids, "total_votes": whole.total_votes})
    told = floors_of(folder, "eeg_votes", "middle", rows)
    assert told is not None
    assert list(told) == ["perfect", "tier_unknown", "class_mean"]
    assert told["perfect"]["kl_10"] == whole.cumulative[2].perfect
    with pytest.raises(DataError, match="the floor of their own rows only"):
        floors_of(folder, "eeg_votes", "middle", rows.assign(total_votes=99))
    (folder / TRUTH_FILE).unlink()
    assert floors_of(folder, "eeg_votes", "middle", rows) is None


def test_how_a_folder_was_simulated_is_read_where_it_says_so(tmp_path: Path) -> None:
    assert simulation_of(tmp_path) is None
    (tmp_path / "simulation.json").write_text('{"seed": 4}', encoding="utf-8")
    assert simulation_of(tmp_path) == {"seed": 4}
    (tmp_path / "simulation.json").write_text("no", encoding="utf-8")
    assert simulation_of(tmp_path) is None


def test_a_ladders_own_folder_is_simulated_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, int]] = []

    def simulate(folder: Path, n_patients: int, seed: int, *rest: object) -> None:
        calls.append((n_patients, seed))
        folder.mkdir()
        (folder / "train.csv").touch()

    monkeypatch.setattr("hms_ray.simulate.ladder.simulate_folder", simulate)
    for _ in range(2):
        assert own_folder(tmp_path / "results", 1) == tmp_path / "results" / ".ladder-data"
    assert calls == [(300, 0)]
