"""Alignment of models: equal to a plain pandas join, or the named error."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.blend.align import Member, RowChoice, align, as_targets
from hms_ray.blend.external_files import Targets, read_external_predictions
from hms_ray.blend.row_keys import Keys
from hms_ray.competition.schema import TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.errors import PredictionError
from tests.refused import refusal

N_ROWS = 8
"""Two rows per EEG."""
IDS = [f"{number // 2}-{number % 2}" for number in range(N_ROWS)]
FOREIGN = ["4-0", "4-1", "0-2"]
"""Row ids beyond the targets: of another EEG, and of one that the targets have."""


def shares(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(6), size=n)


def target_rows() -> pd.DataFrame:
    number = np.arange(N_ROWS)
    rows = pd.DataFrame({"row_id": IDS, "eeg_id": number // 2, "patient_id": number // 4})
    rows = rows.assign(fold=number // 4, total_votes=3.0 + number)
    rows[list(TARGET_COLUMNS)] = shares(N_ROWS, 99)
    return rows


@dataclass(frozen=True)
class Table:
    """A file of predictions: its row ids in order, decimals, and an extra column or none."""

    ids: list[str]
    decimals: int
    extra: bool

    def write(self, file: Path, seed: int) -> pd.DataFrame:
        """Writes the file; returns its predictions by row id."""
        values = shares(len(self.ids), seed).round(self.decimals)
        frame = pd.DataFrame({"row_id": self.ids, **dict(zip(VOTE_COLUMNS, values.T, strict=True))})
        written = frame.assign(note="x", patient_id=7) if self.extra else frame
        written.to_csv(file, index=False) if file.suffix == ".csv" else written.to_parquet(file)
        return frame.set_index("row_id")


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Row ids permuted, in most tables complete, else with missing, foreign or repeated rows."""
    kept = draw(st.one_of(st.just(IDS), st.lists(st.sampled_from(IDS), unique=True)))
    foreign = draw(st.one_of(st.just([]), st.lists(st.sampled_from(FOREIGN), unique=True)))
    repeated = draw(st.one_of(st.just([]), st.just([]), st.lists(st.sampled_from(IDS), max_size=1)))
    ids = draw(st.permutations([*kept, *foreign, *repeated])) or [IDS[0]]
    return Table(list(ids), draw(st.sampled_from([6, 12])), draw(st.booleans()))


def expected_error(made: list[Table], choice: RowChoice, unit: Keys) -> str | None:
    """The rule that tables with unique row ids break, if any."""
    if choice == "same" and any(set(table.ids) != set(IDS) for table in made):
        return "models must predict the rows of votes"
    if not set(IDS).intersection(*(table.ids for table in made)):
        return "must have a row in common"
    for table in made:
        eegs = {row.split("-")[0] for row in table.ids} & {row.split("-")[0] for row in IDS}
        differing = {row.split("-")[0] for row in set(IDS) ^ set(table.ids)}
        if unit == "label" and eegs & differing:
            return "row ids of unknown unit must match all rows of an EEG or none"
    return None


@settings(max_examples=60, deadline=None)
@given(
    made=st.lists(tables(), min_size=1, max_size=3),
    choice=st.sampled_from(["same", "common"]),
    unit=st.sampled_from(["row_id", "label"]),
    suffix=st.sampled_from([".csv", ".parquet"]),
)
def test_files_are_joined_with_the_targets_by_row_id(
    tmp_path_factory: pytest.TempPathFactory,
    made: list[Table],
    choice: RowChoice,
    unit: Keys,
    suffix: str,
) -> None:
    folder = tmp_path_factory.mktemp("files")
    members, frames = [], []
    for number, table in enumerate(made):
        file = folder / f"m{number}{suffix}"
        frames.append(table.write(file, number))
        if len(set(table.ids)) < len(table.ids):
            with refusal(PredictionError, "predicted once", where=str(file)):
                read_external_predictions(file, {})
            return
        read = read_external_predictions(file, {})
        members.append(Member(file.stem, read.ids, read.keys, read.probabilities, {}, "files"))
    targets = as_targets(target_rows(), unit, "votes")
    if rule := expected_error(made, choice, unit):
        with refusal(PredictionError, rule):
            align(members, targets, choice)
        return
    aligned = align(members, targets, choice)
    joined = target_rows().set_index("row_id")
    for frame in frames:
        joined = joined.join(frame.add_suffix(f"_{len(joined.columns)}"), how="inner")
    assert aligned.rows["row_id"].tolist() == [row for row in IDS if row in joined.index]
    assert aligned.n_dropped == N_ROWS - len(joined)
    for found, frame in zip(aligned.probabilities, frames, strict=True):
        np.testing.assert_array_equal(found, frame.loc[aligned.rows["row_id"]])
    pd.testing.assert_frame_equal(
        aligned.rows, target_rows().set_index("row_id").loc[aligned.rows["row_id"]].reset_index()
    )


def with_own_targets(rows: pd.DataFrame) -> Member:
    own = as_targets(rows, "label", "own")
    ids = pd.Index(rows["row_id"])
    return Member("m", ids, "label", shares(len(rows), 1), {}, "f", targets=own)


@given(
    row=st.integers(0, N_ROWS - 1),
    column=st.sampled_from(["seizure_target", "other_target", "total_votes", "patient_id"]),
    shift=st.sampled_from([0.0, 4e-7, -4e-7, 1e-5, -1.0]),
    known=st.booleans(),
)
def test_targets_of_all_inputs_must_agree(row: int, column: str, shift: float, known: bool) -> None:
    """Shares within 1e-6, and totals that are both known."""
    rows = target_rows().astype({"patient_id": float})
    rows.loc[row, column] += shift
    if not known:
        rows.loc[row, "total_votes"] = 0
    member, targets = with_own_targets(rows), as_targets(target_rows(), "label", "votes")
    if abs(shift) < 1e-6 or (column == "total_votes" and not known):
        assert len(align([member], targets).rows) == N_ROWS
        return
    with refusal(PredictionError, "the same targets, patient and total votes", where=IDS[row]):
        align([member], targets)


def one_row_per_eeg() -> Targets:
    return as_targets(target_rows()[::2], "label", "votes")


def by_eeg(ids: list[str]) -> Member:
    return Member("eegs", pd.Index(ids), "eeg_id", shares(len(ids), 2), {}, "files")


@given(order=st.permutations(["0", "1", "2", "3"]))
def test_an_eeg_id_identifies_a_row_if_its_eeg_has_one_row(order: list[str]) -> None:
    member = by_eeg(order)
    expected = member.probabilities[np.argsort(order)]
    aligned = align([member], one_row_per_eeg())
    np.testing.assert_array_equal(aligned.probabilities[0], expected)
    with refusal(PredictionError, "one row per EEG", got="eegs with the targets of votes"):
        align([member], as_targets(target_rows(), "label", "votes"))
    with refusal(PredictionError, "predict the rows of votes", got="eegs has 1 more (9)"):
        align([by_eeg([*order, "9"])], one_row_per_eeg())


def test_errors_name_the_first_models_and_rows() -> None:
    targets = as_targets(target_rows(), "label", "votes")
    members = [
        Member(f"short{n}", pd.Index(IDS[n:]), "label", shares(N_ROWS - n, n), {}, "files")
        for n in range(1, 6)
    ]
    got = "short1 lacks 1 of 8 (0-0); short2 lacks 2 of 8 (0-0, 0-1); short3 lacks 3 of 8 "
    with refusal(PredictionError, "rows of votes", got=got, fix="--rows common"):
        align(members, targets)
    with refusal(PredictionError, got="2 more"):
        align(members, targets)


def test_votes_given_as_a_model_are_refused() -> None:
    rows = target_rows()
    votes = Member(
        "votes.csv", pd.Index(IDS), "label", rows[list(TARGET_COLUMNS)].to_numpy(), {}, ""
    )
    with refusal(PredictionError, "not repeat the votes", where="votes.csv", fix="--targets"):
        align([votes], as_targets(rows, "label", "votes"))
