"""The study of many trials that other tests and benchmarks look at."""

from pathlib import Path

import optuna

from hms_ray.search.journal import STUDY_NAME, open_storage
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.cost import read_costs
from hms_ray.study.leaderboard import Leaderboard
from tests.large_study import STAGES, Ends, write_large_study


def test_a_large_study_reads_like_a_trained_one(tmp_path: Path) -> None:
    ends = Ends(pruned=5, diverged=6, failed=7)
    study = write_large_study(tmp_path, n_trials=8, n_folds=3, n_rows=150, ends=ends)
    states = [trial.state for trial in study.trials()]
    end = ["pruned", "diverged", "failed", "complete"]
    assert states == ["complete"] * 4 + end
    board = Leaderboard(study)
    assert len(board.finished) == 5
    assert board.choice().nested is not None
    storage = open_storage(study.journal)
    journal = optuna.load_study(study_name=STUDY_NAME, storage=storage)
    assert [trial.state.name for trial in journal.trials] == [
        {"complete": "COMPLETE", "failed": "FAIL"}.get(state, "PRUNED") for state in states
    ]
    history = FoldStore(tmp_path).record(board.finished[0].keys[2])["history"]
    assert len(history) == 2 * sum(STAGES.values())
    assert {record["stage"] for record in history} == set(STAGES)
    (cost,) = read_costs(study.path)
    assert cost.n_folds == 5 * 3 + 2
    assert cost.useful_share is not None
    assert 0.5 < cost.useful_share <= 1
