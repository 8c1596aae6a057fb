from dataclasses import dataclass

import numpy as np
import pandas as pd

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.evaluate.oof import make_oof
from hms_ray.study.ties import tied_with_best

N_PATIENTS = 20
BEST = -np.log(0.6)


@dataclass
class Trial:
    number: int
    scores: np.ndarray

    def oof(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Predictions of which each row has the given score."""
        first = np.exp(-self.scores)
        others = np.repeat(((1 - first) / 5)[:, None], 5, axis=1)
        return make_oof(rows, rows["fold"], np.column_stack([first, others]))


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


def trials(rows: pd.DataFrame) -> list[Trial]:
    """The best one; a worse one; a tie on many votes; a tie by patient but not by row."""
    patients = rows["patient_id"].to_numpy()
    sign = np.where(patients % 2, 1, -1)
    few = (rows["total_votes"] < 10).to_numpy()
    return [
        Trial(4, np.full(len(rows), BEST)),
        Trial(7, np.full(len(rows), BEST + 0.05) + 0.02 * sign),
        Trial(2, np.where(few, BEST + 1, BEST + 0.01 + 0.05 * sign)),
        # Mean 0.04 and deviation 0.1 of 20 patients: 1.75 standard errors; but 2.5 of
        # those that 40 rows on their own would have.
        Trial(9, BEST + 0.04 + 0.1 * sign),
    ]


def test_a_tie_is_one_of_patients_on_the_rows_that_count() -> None:
    rows = three_rows_a_patient()
    assert tied_with_best(trials(rows), rows, "kl_10") == {2, 9}
    assert tied_with_best(trials(rows), rows, "kl_all") == {9}


def test_the_order_of_a_trials_rows_does_not_matter() -> None:
    rows = three_rows_a_patient()
    shuffled = rows.sample(frac=1, random_state=0)
    found = tied_with_best(trials(shuffled), shuffled, "kl_10")
    assert found == {2, 9}


def test_a_trial_alone_has_no_tie() -> None:
    rows = three_rows_a_patient()
    assert tied_with_best(trials(rows)[:1], rows, "kl_10") == frozenset()
    assert tied_with_best([], rows, "kl_10") == frozenset()
