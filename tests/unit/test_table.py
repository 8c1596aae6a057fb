from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hms_ray.report.leaderboard import leaderboard, render, write_csv
from hms_ray.report.text_table import Column, text_table, wrapped


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


def test_an_incomplete_trial_is_not_ranked_by_its_partial_score() -> None:
    frame = leaderboard([record("0000", 0.1, state="pruned"), record("0001", 0.5)])
    assert frame["trial"].tolist() == ["0001", "0000"]
    assert "pruned" in render(frame)


def test_text_fits_80_columns_and_shows_what_varies() -> None:
    text = render(leaderboard(RECORDS))
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[1]: line.split() for line in lines[4:9]}
    assert rows["0001"][:3] == ["1", "0001", "0.5000*"]
    assert rows["0002"][:3] == ["-", "0002", "failed"]
    assert rows["0003"][-4:] == ["kl_capped_votes", "global", "0.00025", "6"]
    assert "tf_efficientnet_b0" not in text
    assert "* optimistic: its checkpoints were chosen on the rows" in text
    assert "not shown: folds, minutes" in text or "not shown: minutes, folds" in text


def test_numbers_are_aligned() -> None:
    frame = leaderboard([record("0000", 0.5), record("0001", 10.25, optimistic=True)])
    first, second = (line for line in render(frame).splitlines() if line[:1].isdigit())
    assert first.index("0.5000") + len("0.5000") == second.index("10.2500") + len("10.2500")


def test_wide_text_shows_folds_and_minutes() -> None:
    text = render(leaderboard(RECORDS), width=140)
    assert "not shown" not in text
    assert "3 (2 reused)" in text
    assert "1.2" in text


def test_minutes_say_what_stages_from_the_store_saved() -> None:
    records = [
        record("0000", 0.5, saved_minutes=0.5),
        record("0001", 0.6, saved_minutes=0.0),
        record("0002", None, state="failed", fold_minutes=None, saved_minutes=None),
    ]
    frame = leaderboard(records)
    assert frame["saved_minutes"].tolist()[:2] == [0.5, 0.0]
    lines = render(frame, width=140).splitlines()
    assert lines[-3].endswith("  1.2 (0.5 saved)")
    assert lines[-2].endswith("  1.2")
    assert lines[-1].endswith("  -")
    assert "saved_minutes" not in render(frame, width=140)
    assert "saved" not in render(leaderboard(RECORDS), width=140)


@pytest.mark.parametrize("width", [30, 50, 60, 80])
def test_narrow_text_keeps_the_objective(width: int) -> None:
    text = render(leaderboard(RECORDS), width=width)
    assert max(map(len, text.splitlines())) <= width
    assert "0.5000*" in text
    assert "learning_rate" in text.replace("\n", " ").partition("not shown:")[2] or width == 80


def test_no_legend_without_marks() -> None:
    text = render(leaderboard([record("0000", 0.5), record("0003", 0.6)]))
    assert "optimistic" not in text
    assert "tie" not in text.replace("title", "")


def test_ties_with_the_best_are_marked() -> None:
    frame = leaderboard([record("0000", 0.5), record("0001", 0.51, tied=True), record("0003", 0.9)])
    text = render(frame)
    assert "0.5100=" in text
    assert "0.9000=" not in text
    assert "= a tie with the best trial" in text


def test_equal_last_parts_of_paths_stay_apart() -> None:
    records = [
        record(
            f"000{number}",
            0.5,
            values={"model.name": f"m{number}", "data.name": f"d{number}", "training.seed": number},
        )
        for number in range(2)
    ]
    heading = " ".join(render(leaderboard(records)).splitlines()[:2])
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


def test_no_trials() -> None:
    assert render(leaderboard([])) == "no trials yet"


def test_csv_has_every_value(tmp_path: Path) -> None:
    path = tmp_path / "study" / "leaderboard.csv"
    write_csv(leaderboard(RECORDS), path)
    read = pd.read_csv(path, dtype={"trial": str})
    assert read["trial"].tolist() == ["0001", "0003", "0004", "0000", "0002"]
    assert read["model.name"].unique().tolist() == ["tf_efficientnet_b0"]
    assert read["kl_10"].tolist()[:4] == [0.5, 0.5, 0.52, 0.55]
    assert [file.name for file in path.parent.iterdir()] == ["leaderboard.csv"]


def test_headings_break_where_cells_are_narrow() -> None:
    columns = [Column("stage_threshold", ["5", "8"]), Column("a name", ["text", "t"], right=False)]
    assert text_table(columns) == [
        "     stage  a",
        "_threshold  name",
        "----------  ----",
        "         5  text",
        "         8  t",
    ]
    compact = Column("normalisation", ["a"], longest_word=6)
    assert compact.title_lines == ["norma-", "lisat-", "ion"]
    assert compact.width == 6


def test_text_is_wrapped_at_spaces() -> None:
    assert wrapped("one two three", 7) == ["one two", "three"]
