"""Label rows to training rows: units, windows, targets; by hand and by an independent way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.competition.rows import ROW_COLUMNS, make_rows, rows_of
from hms_ray.competition.schema import CLASSES, LABEL_COLUMNS, TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.config.experiment import DataConfig
from hms_ray.errors import DataError
from hms_ray.storage.hashing import table_fingerprint
from tests.competition_folder import make_labels

A = (0, 3, 1, 0, 0, 0)
B = (2, 0, 0, 0, 0, 2)


def label_rows(*rows: tuple[int, int, float, float, tuple[int, ...]]) -> pd.DataFrame:
    """Rows of (EEG, sub id, EEG offset, spectrogram offset, votes)."""
    return pd.DataFrame(
        [
            (eeg, sub, at, 10 * eeg, sub, later, None, 100 + eeg, "?", *votes)
            for eeg, sub, at, later, votes in rows
        ],
        columns=list(LABEL_COLUMNS),
    )


# Fingerprint of the rows of LABELS: integers, texts and exact quarters.
GOLDEN = "4f44858f330f583e53c267abae6efb36203c8ca3774bbc4a53072ffb78620832"
LABELS = label_rows(
    (7, 0, 0.0, 100.0, A),
    (7, 1, 6.0, 106.0, B),
    (7, 2, 16.0, 116.0, A),
    (7, 3, 18.0, 118.0, A),
    (2, 0, 4.0, 5.0, B),
)


def test_one_row_per_distinct_eeg_and_votes() -> None:
    rows = make_rows(LABELS)
    assert tuple(rows.columns) == ROW_COLUMNS
    assert rows["row_id"].tolist() == ["2-0", "7-0", "7-1"]
    # Sorted by votes: A starts with 0, B with 2.
    assert rows[list(VOTE_COLUMNS)].to_numpy().tolist() == [list(B), list(A), list(B)]
    assert rows["eeg_id"].tolist() == [2, 7, 7]
    assert rows["spectrogram_id"].tolist() == [20, 70, 70]
    assert rows["patient_id"].tolist() == [102, 107, 107]
    assert rows["total_votes"].tolist() == [4, 4, 4]
    assert rows["n_labels"].tolist() == [1, 3, 1]
    # Seizure and Other tie in B; the first one is used.
    assert rows["expert_consensus"].tolist() == ["Seizure", "LPD", "Seizure"]
    # (0 + 18) / 2 s at 200 Hz; (100 + 118) // 4.
    assert rows["eeg_start"].tolist() == [800, 1800, 1200]
    assert rows["spectrogram_start"].tolist() == [2, 54, 53]
    np.testing.assert_allclose(rows.loc[1, list(TARGET_COLUMNS)].astype(float), np.array(A) / 4)


def test_nearest_label_row() -> None:
    rows = make_rows(LABELS, window="nearest")
    # The middle of A's offsets is 9 s: of 0, 16 and 18 s, 16 s is nearest.
    assert rows["eeg_start"].tolist() == [800, 3200, 1200]
    assert rows["spectrogram_start"].tolist() == [2, 58, 53]


def test_nearest_of_two_equally_near_is_the_first_sub_id() -> None:
    labels = label_rows((1, 0, 10.0, 10.0, A), (1, 1, 0.0, 0.0, A))
    assert make_rows(labels, window="nearest")["eeg_start"].tolist() == [2000]
    assert make_rows(labels[::-1], window="nearest")["eeg_start"].tolist() == [2000]


def test_one_row_per_eeg() -> None:
    rows = make_rows(LABELS, "eeg")
    assert rows["row_id"].tolist() == ["2", "7"]
    assert rows.loc[1, list(VOTE_COLUMNS)].tolist() == [2, 9, 3, 0, 0, 2]
    # The largest total of a label row, not the sum of 16.
    assert rows["total_votes"].tolist() == [4, 4]
    assert rows["n_labels"].tolist() == [1, 4]
    assert rows["expert_consensus"].tolist() == ["Seizure", "LPD"]
    assert rows["eeg_start"].tolist() == [800, 1800]
    np.testing.assert_allclose(
        rows.loc[1, list(TARGET_COLUMNS)].astype(float), np.array([2, 9, 3, 0, 0, 2]) / 16
    )


@pytest.mark.parametrize("window", ["middle", "nearest"])
def test_one_row_per_label_row(window: str) -> None:
    rows = make_rows(LABELS, "label", window)  # type: ignore[arg-type]
    assert rows["row_id"].tolist() == ["2-0", "7-0", "7-1", "7-2", "7-3"]
    assert rows["eeg_start"].tolist() == [800, 0, 1200, 3200, 3600]
    assert rows["spectrogram_start"].tolist() == [2, 50, 53, 58, 59]
    assert rows["n_labels"].tolist() == [1] * 5


def test_odd_offsets_stay_within_the_recording() -> None:
    rows = make_rows(label_rows((1, 0, 0.0, 1.0, A), (1, 1, 1.0, 2.0, A)))
    assert rows["eeg_start"].tolist() == [100]
    assert rows["spectrogram_start"].tolist() == [0]


@pytest.mark.parametrize("unit", ["eeg_votes", "eeg", "label"])
def test_types_and_order(unit: str) -> None:
    labels = make_labels(np.random.default_rng(0))
    rows = make_rows(labels, unit)  # type: ignore[arg-type]
    shuffled = labels.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(rows, make_rows(shuffled, unit))  # type: ignore[arg-type]
    assert isinstance(rows.index, pd.RangeIndex)
    assert rows["row_id"].is_unique
    for name in ROW_COLUMNS:
        kind = "f" if name in TARGET_COLUMNS else "i"
        if name not in ("row_id", "expert_consensus"):
            assert rows[name].dtype == {"f": np.float64, "i": np.int64}[kind], name
    np.testing.assert_allclose(rows[list(TARGET_COLUMNS)].sum(axis=1), 1, rtol=0, atol=1e-12)
    assert rows["n_labels"].sum() == len(labels)
    keys = {"label": ["eeg_id", "row_id"], "eeg": ["eeg_id"]}.get(unit, ["eeg_id", *VOTE_COLUMNS])
    assert rows[keys].apply(tuple, axis=1).is_monotonic_increasing or unit == "label"


def test_against_a_plain_loop() -> None:
    labels = make_labels(np.random.default_rng(4), n_patients=20)
    groups: dict[tuple[int, ...], list[object]] = {}
    for row in labels.itertuples():
        votes = tuple(getattr(row, name) for name in VOTE_COLUMNS)
        groups.setdefault((row.eeg_id, *votes), []).append(row)
    expected = []
    for (eeg_id, *votes), members in sorted(groups.items()):
        eeg = [row.eeg_label_offset_seconds for row in members]
        later = [row.spectrogram_label_offset_seconds for row in members]
        expected.append(
            (
                eeg_id,
                CLASSES[votes.index(max(votes))],
                sum(votes),
                len(members),
                int((min(eeg) + max(eeg)) / 2 * 200),
                int((min(later) + max(later)) // 4),
            )
        )
    rows = make_rows(labels)
    columns = ["eeg_id", "expert_consensus", "total_votes", "n_labels"]
    found = rows[[*columns, "eeg_start", "spectrogram_start"]].itertuples(index=False, name=None)
    assert list(found) == expected


def test_fingerprint_follows_content() -> None:
    rows = make_rows(LABELS)
    assert table_fingerprint(rows) == table_fingerprint(make_rows(LABELS[::-1]))
    for changed in (
        rows.assign(eeg_start=rows["eeg_start"] + 1),
        rows.assign(row_id=["2-0", "7-0", "7-2"]),
        rows.assign(lpd_target=rows["lpd_target"] + 1e-12),
        rows.iloc[::-1],
        rows.rename(columns={"eeg_start": "start"}),
    ):
        assert table_fingerprint(changed) != table_fingerprint(rows)
    assert table_fingerprint(rows) == GOLDEN


def test_drawn_patients_keep_all_rows_and_ignore_table_order() -> None:
    labels = make_labels(np.random.default_rng(2), n_patients=20)
    everyone = make_rows(labels)

    def drawn(n: int | None, table: pd.DataFrame = labels, **options: Any) -> pd.DataFrame:
        return rows_of(table, DataConfig(n_patients=n, **options))

    pd.testing.assert_frame_equal(drawn(None), everyone)
    seven = drawn(7)
    patients = set(seven["patient_id"])
    assert len(patients) == 7
    expected = everyone[everyone["patient_id"].isin(patients)].reset_index(drop=True)
    pd.testing.assert_frame_equal(seven, expected)
    pd.testing.assert_frame_equal(drawn(7, labels.sample(frac=1, random_state=3)), seven)
    assert set(drawn(7, unit="label", window="nearest")["patient_id"]) == patients
    assert set(drawn(4)["patient_id"]) < patients < set(drawn(12)["patient_id"])
    assert set(drawn(7, fold_seed=1)["patient_id"]) != patients
    # Not the first patients: ids increase with the order of patients.
    assert patients != set(everyone["patient_id"].unique()[:7])
    for many in (20, 21, 1000):
        pd.testing.assert_frame_equal(drawn(many), everyone)


def test_golden_patients() -> None:
    """A change here changes every study that uses ``n_patients``."""
    labels = make_labels(np.random.default_rng(2), n_patients=20)
    found = rows_of(labels, DataConfig(n_patients=3))["patient_id"].unique()
    assert found.tolist() == [1027, 1042, 1045]


def test_labels_are_not_changed() -> None:
    before = LABELS.copy()
    make_rows(LABELS)
    pd.testing.assert_frame_equal(LABELS, before)


def test_refusals() -> None:
    zero = label_rows((1, 0, 0.0, 0.0, A), (5, 3, 0.0, 0.0, (0,) * 6))
    with pytest.raises(DataError, match=r"votes, got a total of 0, in label row 5-3.*check DIR"):
        make_rows(zero)
    with pytest.raises(DataError, match=r"offsets .* finite.*, in label row 5-3.*check DIR"):
        make_rows(label_rows((1, 0, 0.0, 0.0, A), (5, 3, float("nan"), 0.0, A)))
    with pytest.raises(DataError, match="label table must have rows"):
        make_rows(LABELS[:0])
    with pytest.raises(DataError, match="one of eeg_votes, eeg, label, got patient"):
        make_rows(LABELS, "patient")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="one of middle, nearest, got last"):
        make_rows(LABELS, window="last")  # type: ignore[arg-type]
