from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hms_ray.display.leaderboard import leaderboard, render, write_csv


def record(trial: str, kl_10: float | None, **changes: Any) -> dict[str, Any]:
    values = {
        "training.loss": "kl_capped_votes" if int(trial) % 2 else "kl",
        "input.normalisation": "per_image" if int(trial) % 3 else "global",
        "training.learning_rate": 1e-3 / (1 + int(trial)),
        "training.stage_threshold": 5 + int(trial) % 2,
        "model.name": "tf_efficientnet_b0",
    }
    return {
        "trial": trial,
        "state": "complete",
        "kl_all": 0.9,
        "kl_4": 0.8,
        "kl_10": kl_10,
        "optimistic": False,
        "values": values,
        "fold_minutes": 1.25,
        "reused_folds": 0,
        "n_folds": 3,
        **changes,
    }


RECORDS = [
    record("0000", 0.55),
    record("0001", 0.50, optimistic=True),
    record("0002", None, state="failed", kl_all=None, kl_4=None, fold_minutes=None),
    record("0003", 0.50),
    record("0004", 0.52, reused_folds=2),
]


def test_trials_are_ranked_by_the_objective() -> None:
    frame = leaderboard(RECORDS)
    assert frame["trial"].tolist() == ["0001", "0003", "0004", "0000", "0002"]
    assert frame["rank"].tolist()[:4] == [1, 1, 3, 4]
    assert frame["rank"].isna().tolist() == [False] * 4 + [True]
    assert [name for name in frame.columns if name.startswith("kl_")] == ["kl_10", "kl_all", "kl_4"]
    by_all = leaderboard(
        [record("0000", 0.1, kl_all=0.7), record("0001", 0.9, kl_all=0.6)], objective="kl_all"
    )
    assert by_all["trial"].tolist() == ["0001", "0000"]


def test_incomplete_trial_is_not_ranked_by_its_partial_score() -> None:
    frame = leaderboard([record("0000", 0.1, state="pruned"), record("0001", 0.5)])
    assert frame["trial"].tolist() == ["0001", "0000"]
    assert "pruned" in render(frame)


def rows_of(text: str) -> dict[str, list[str]]:
    """Trial -> its cells."""
    lines = [line.split() for line in text.splitlines()]
    return {cells[1]: cells for cells in lines if len(cells) > 2 and len(cells[1]) == 4}


def test_text_shows_values_that_vary() -> None:
    rows = rows_of(render(leaderboard(RECORDS), width=160))
    assert rows["0001"][:5] == ["1", "0001", "0.5000", "best,", "optimistic"]
    assert rows["0002"][:4] == ["-", "0002", "-", "failed"]
    assert rows["0003"][-6:] == ["kl_capped_votes", "global", "0.00025", "6", "3", "1.2"]
    assert rows["0004"][-4:] == ["3", "(2", "reused)", "1.2"]
    text = render(leaderboard(RECORDS), width=160)
    assert "tf_efficientnet_b0" not in text
    assert "optimistic: its checkpoints were chosen on the rows" in text
    assert "Not shown" not in text


def test_verdict_comes_first() -> None:
    records = [record("0000", 0.5), record("0001", 0.51, tied=True), record("0003", 0.9)]
    text = render(leaderboard(records), width=120)
    assert text.startswith(
        "Best trial: 0000, KL >=10 0.5000, of 3 finished trials. Ties with it: 0001.\n"
    )
    assert rows_of(text)["0000"][3] == "best"
    assert rows_of(text)["0001"][3] == "tie"
    assert "tie" not in rows_of(text)["0003"]
    assert "tie: the paired 95% interval" in text
    without = leaderboard([record("0000", 0.5, tied=False), record("0001", 0.6, tied=False)])
    assert "It is better than every other one." in render(without)
    assert "0.5000, of 1 finished trial.\n" in render(leaderboard(RECORDS[:1]).assign(kl_10=0.5))
    assert render(leaderboard(RECORDS[2:3])).startswith("No trial has finished yet.")


def test_minutes_show_what_reused_stages_saved() -> None:
    records = [
        record("0000", 0.5, saved_minutes=0.5),
        record("0001", 0.6, saved_minutes=0.0),
        record("0002", None, state="failed", fold_minutes=None, saved_minutes=None),
    ]
    frame = leaderboard(records)
    assert frame["saved_minutes"].tolist()[:2] == [0.5, 0.0]
    rows = rows_of(render(frame, width=140))
    assert rows["0000"][-3:] == ["1.2", "(0.5", "saved)"]
    assert rows["0001"][-1] == "1.2"
    assert rows["0002"][-1] == "-"
    assert "saved_minutes" not in render(frame, width=140)
    assert "saved" not in render(leaderboard(RECORDS), width=140)


@pytest.mark.parametrize("width", [30, 50, 60])
def test_narrow_text_keeps_the_objective(width: int) -> None:
    text = render(leaderboard(RECORDS), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert rows_of(text)["0001"][2] == "0.5000"
    assert "learning_rate" in " ".join(text.split()).partition("Not shown at this width:")[2]


def test_no_legend_without_marks() -> None:
    text = render(leaderboard([record("0000", 0.5), record("0003", 0.6)]))
    assert "optimistic" not in text
    assert "tie:" not in text


def test_paths_with_equal_last_parts_stay_different() -> None:
    records = [
        record(
            f"000{number}",
            0.5,
            values={"model.name": f"m{number}", "data.name": f"d{number}", "training.seed": number},
        )
        for number in range(2)
    ]
    heading = render(leaderboard(records), width=120).splitlines()[2]
    assert "model.name" in heading
    assert "data.name" in heading
    assert "training.seed" not in heading
    assert "seed" in heading


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1e-3, 1.0004e-3], True),
        ([1e-3, 1e-3], False),
        ([None, float("nan")], False),
        ([None, 1e-3], True),
        (["a", "b"], True),
        ([True, False], True),
    ],
)
def test_values_that_differ_are_shown(values: list[object], shown: bool) -> None:
    records = [
        record(f"000{n}", 0.5, values={"training.rate": value}) for n, value in enumerate(values)
    ]
    assert ("rate" in render(leaderboard(records))) == shown


def test_values_of_any_shape_are_shown() -> None:
    views = [["panels"], ["panels", "statistics"]]
    frame = leaderboard(
        [record(f"000{n}", 0.5, values={"input.views": view}) for n, view in enumerate(views)]
        + [record("0002", 0.6, values={})]
    )
    assert '["panels"]' in render(frame)


def test_study_without_trials() -> None:
    assert render(leaderboard([])) == "no trials yet"


def test_csv_has_every_value(tmp_path: Path) -> None:
    path = tmp_path / "study" / "leaderboard.csv"
    write_csv(leaderboard(RECORDS), path)
    read = pd.read_csv(path, dtype={"trial": str})
    assert read["trial"].tolist() == ["0001", "0003", "0004", "0000", "0002"]
    assert read["model.name"].unique().tolist() == ["tf_efficientnet_b0"]
    assert read["kl_10"].tolist()[:4] == [0.5, 0.5, 0.52, 0.55]
    assert [file.name for file in path.parent.iterdir()] == ["leaderboard.csv"]
