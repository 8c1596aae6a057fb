"""Folds and image visits of ladders, planned from labels alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.rows import rows_of
from hms_ray.competition.schema import CLASSES, TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.dataset.folds import make_folds
from hms_ray.ladder.image_visits import StepWork, ladder_work, work_text
from hms_ray.ladder.steps import load_ladder

SHIPPED = Path(__file__).parents[2] / "search_spaces" / "ladder"
N_ROWS, N_FIRST_STAGE, N_PATIENTS = 20_183, 12_390, 1_950
"""Rows of the competition, those of the published first stage, and patients."""

NOISY, GOOD = "{rows: below_threshold, epochs: 2}", "{rows: at_least_threshold, epochs: 3}"
STAGES = {
    "one": "{epochs: 4}",
    "first": NOISY,
    "two": f"{NOISY}, {GOOD}",
    "three": f"{NOISY}, {NOISY}",
}


def write_ladder(folder: Path, **resources: bool) -> Path:
    for name, stages in STAGES.items():
        (folder / f"{name}.yaml").write_text(
            "experiment:\n"
            "  data: {n_folds: 3}\n"
            "  input: {downsample: [10, 10]}\n"
            "  model: {name: test_resnet, pretrained: false, drop_path: 0.0}\n"
            f"  training: {{stage_threshold: 5, stages: [{stages}]}}\n"
            f"resources: {{share_stages: {str(resources.get('share_stages', True)).lower()}}}\n",
            encoding="utf-8",
        )
    steps = "".join(f"  - {{name: {name}, file: {name}.yaml}}\n" for name in STAGES)
    text = f"steps:\n{steps}  - {{name: again, file: one.yaml}}\n"
    (folder / "ladder.yaml").write_text(text, encoding="utf-8")
    return folder / "ladder.yaml"


def table() -> pd.DataFrame:
    """60 rows of 3 folds, of which every third has many votes."""
    rows = pd.DataFrame(
        {"fold": np.arange(60) // 20, "total_votes": np.where(np.arange(60) % 3, 2, 9)}
    )
    rows[list(TARGET_COLUMNS)] = 1 / 6
    return rows


def test_folds_and_stages_of_a_ladder_count_once(tmp_path: Path) -> None:
    rows = table()
    good = [(rows[rows["fold"] != fold]["total_votes"] >= 5).sum() for fold in range(3)]
    noisy = sum(40 - count for count in good)
    work = {step.name: step for step in ladder_work(load_ladder(write_ladder(tmp_path)), rows)}
    visits = {name: step.visits for name, step in work.items()}
    assert visits == {
        "one": 3 * 40 * 4,
        "first": 2 * noisy,
        "two": 3 * sum(good),  # its first stage is the whole of step first
        "three": 2 * noisy,
        "again": 0,
    }
    assert {name: step.n_folds for name, step in work.items()} == {
        **dict.fromkeys(STAGES, 3),
        "again": 0,
    }


def test_first_stage_of_an_earlier_step_is_known(tmp_path: Path) -> None:
    ladder = load_ladder(write_ladder(tmp_path))
    steps = [ladder.step(name) for name in ("two", "three", "first")]
    work = ladder_work(replace(ladder, steps=tuple(steps)), table())
    noisy, good = 80, 40
    assert [(step.n_folds, step.visits) for step in work] == [
        (3, 2 * noisy + 3 * good),
        (3, 2 * noisy),
        (0, 0),
    ]


def test_stages_that_are_not_shared_count_each_time(tmp_path: Path) -> None:
    ladder = load_ladder(write_ladder(tmp_path, share_stages=False))
    work = {step.name: step.visits for step in ladder_work(ladder, table())}
    assert work["two"] > work["first"]
    assert work["three"] == 2 * work["first"]


def test_plan_needs_the_labels_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, results = tmp_path / "data", tmp_path / "results"
    data.mkdir()
    competition_labels().head(600).to_csv(data / "train.csv", index=False)
    words = ["--data", str(data), "--results", str(results)]
    assert main(["ladder", "--file", str(write_ladder(tmp_path)), "--plan", *words]) == 0
    output = capsys.readouterr().out
    assert "In total: 12 folds, " in output
    assert "one " in output
    last = output.strip().splitlines()[-1]
    assert last.startswith("next: hms-ray ladder --file ")
    assert "--plan" not in last
    assert [file.name for file in data.iterdir()] == ["train.csv"], "nothing is packed"
    assert not results.exists()


def test_plan_counts_every_training_seed() -> None:
    work = [StepWork("a", 3, 120), StepWork("b", 3, 200)]
    assert "In total: 6 folds, 320 image visits." in work_text(work)
    assert "In total of 2 training seeds: 12 folds, 640 image visits." in work_text(work, 2)


def competition_labels() -> pd.DataFrame:
    """One label row per training row of the competition, with its numbers of rows and patients.

    A few patients have many rows, as there: the largest share is about a hundred times the median.
    """
    generator = np.random.default_rng(0)
    shares = generator.lognormal(sigma=1.2, size=N_PATIENTS)
    more = generator.choice(N_PATIENTS, size=N_ROWS - N_PATIENTS, p=shares / shares.sum())
    ids = np.arange(N_ROWS)
    labels = pd.DataFrame(
        dict.fromkeys(("eeg_id", "spectrogram_id", "label_id"), ids)
        | {"patient_id": np.concatenate([np.arange(N_PATIENTS), more])}
        | {f"{source}_sub_id": 0 for source in ("eeg", "spectrogram")}
        | {f"{source}_label_offset_seconds": 0.0 for source in ("eeg", "spectrogram")}
    )
    votes = np.zeros((N_ROWS, 6), dtype=int)
    totals = generator.permutation(np.where(ids < N_FIRST_STAGE, 3, 12))
    votes[ids, generator.integers(6, size=N_ROWS)] = totals
    labels[list(VOTE_COLUMNS)] = votes
    return labels.assign(expert_consensus=np.array(CLASSES)[votes.argmax(axis=1)])


def test_medium_ladder_makes_at_most_six_million_image_visits() -> None:
    ladder = load_ladder(SHIPPED / "ladder.yaml", SHIPPED / "medium.yaml")
    data = next(iter(ladder.experiments().values())).data
    rows = rows_of(competition_labels(), data)
    folds = make_folds(rows, data.n_folds, data.fold_seed)
    work = ladder_work(ladder, rows.merge(folds[["row_id", "fold"]], on="row_id"))
    # One step more, or a few more rows than expected, must not break the promise.
    assert 5_000_000 < sum(step.visits for step in work) < 5_800_000
