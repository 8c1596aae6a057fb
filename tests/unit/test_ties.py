import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.evaluate.intervals import sum_by_patient
from hms_ray.study.ties import tied_with_best

N_PATIENTS = 20
BEST = -np.log(0.6)


def three_rows_a_patient() -> pd.DataFrame:
    """Two rows of 12 votes and one of 3, all of the first class."""
    number = np.arange(3 * N_PATIENTS)
    rows = pd.DataFrame(
        {
            "row_id": [f"{n}-0" for n in number],
            "eeg_id": number,
            "patient_id": number // 3,
            "total_votes": np.where(number % 3 == 2, 3, 12),
            "fold": number % 2,
        }
    )
    rows[list(TARGET_COLUMNS)] = np.eye(6)[np.zeros(len(rows), int)]
    return rows


def trials(rows: pd.DataFrame) -> dict[int, np.ndarray]:
    """The best one; a worse one; a tie on many votes; a tie by patient but not by row."""
    patients = rows["patient_id"].to_numpy()
    sign = np.where(patients % 2, 1, -1)
    few = (rows["total_votes"] < 10).to_numpy()
    return {
        4: np.full(len(rows), BEST),
        7: np.full(len(rows), BEST + 0.05) + 0.02 * sign,
        2: np.where(few, BEST + 1, BEST + 0.01 + 0.05 * sign),
        # Mean 0.04 and deviation 0.1 of 20 patients: 1.75 standard errors; but 2.5 of
        # those that 40 rows on their own would have.
        9: BEST + 0.04 + 0.1 * sign,
    }


def ties(rows: pd.DataFrame, fewest: int) -> frozenset[int]:
    scores, counted = trials(rows), (rows["total_votes"] >= fewest).to_numpy()
    chosen = np.stack(list(scores.values()))[:, counted]
    sums = sum_by_patient(chosen, rows["patient_id"].to_numpy()[counted])
    return tied_with_best(list(scores), sums)


def test_a_tie_is_one_of_patients_on_the_rows_that_count() -> None:
    rows = three_rows_a_patient()
    assert ties(rows, 10) == {2, 9}
    assert ties(rows, 0) == {9}


def test_a_trial_alone_has_no_tie() -> None:
    assert tied_with_best([3], sum_by_patient(np.ones((1, 2)), [5, 6])) == frozenset()
