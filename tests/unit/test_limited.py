"""A few batches of a fold with everything that training uses, and a trace of steps."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from hms_ray.cli.main import main
from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.config.augmentation import AugmentConfig, MosaicConfig
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.experiment.limited import limited_rows, shortened
from hms_ray.train import fold_state
from hms_ray.train.fold_state import FoldState
from hms_ray.train.stage_rows import belongs_to, criterion_rows
from hms_ray.train.trace import StepTrace
from tests.competition_folder import write_competition_folder

NOISY = StageConfig(name="noisy", rows="below_threshold", epochs=4)
GOOD = StageConfig(name="good", rows="at_least_threshold", epochs=3)
ALL = StageConfig(name="all", epochs=2)


def table(n_rows: int, share_good: float) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    good = rng.random(n_rows) < share_good
    votes = np.where(good, rng.integers(10, 20, n_rows), rng.integers(1, 5, n_rows))
    shares = rng.multinomial(votes, np.ones(6) / 6) / votes[:, None]
    folds = rng.integers(0, 4, n_rows)
    return pd.DataFrame(
        {
            "row_id": np.arange(n_rows),
            "fold": folds,
            "total_votes": votes,
            **dict(zip(TARGET_COLUMNS, shares.T, strict=True)),
        }
    )


@pytest.mark.parametrize("share_good", [0.5, 0.02])
@pytest.mark.parametrize("stages", [(NOISY, GOOD), (ALL, GOOD), (ALL,)], ids=len)
@pytest.mark.parametrize("limit", [1, 2])
def test_every_stage_has_at_most_the_limit_of_batches(
    stages: tuple[StageConfig, ...], share_good: float, limit: int
) -> None:
    training = TrainingConfig(
        batch_size=16, stages=stages, checkpoint="best", next_stage_from="best"
    )
    rows = table(2000, share_good)
    found = limited_rows(rows, training, 1, limit)
    assert found["row_id"].is_monotonic_increasing
    merged = found.merge(rows, on=list(rows.columns))
    assert len(merged) == len(found)
    votes, targets = found["total_votes"].to_numpy(), found[list(TARGET_COLUMNS)].to_numpy()
    valid = found["fold"].to_numpy() == 1
    for stage in training.resolved_stages():
        n = int(belongs_to(stage, votes[~valid], targets[~valid]).sum())
        assert 0 < n <= limit * 16
        # All that a rule selects, or at least its part of the limit.
        every = belongs_to(
            stage, rows["total_votes"].to_numpy(), rows[list(TARGET_COLUMNS)].to_numpy()
        )
        available = int((every & (rows["fold"].to_numpy() != 1)).sum())
        assert n >= min(available, limit * 16 // len(stages))
        assert len(criterion_rows(stage, votes[valid], targets[valid], 1)) > 0
    assert valid.sum() <= limit * 64 * 2


def test_stages_are_shortened_with_and_without_mosaic() -> None:
    mosaic = AugmentConfig(mosaic=MosaicConfig(epochs=2))
    always = AugmentConfig(mosaic=MosaicConfig())
    training = TrainingConfig(
        stages=(
            StageConfig(name="first two", epochs=6, augment=mosaic),
            StageConfig(name="only", epochs=2, augment=mosaic),
            StageConfig(name="always", epochs=6, augment=always),
            StageConfig(name="none", epochs=6),
        ),
    )
    found = shortened(training).resolved_stages()
    kinds = [[stage.has_mosaic(epoch) for epoch in range(stage.epochs)] for stage in found]
    assert kinds == [[True, False], [True], [True], [False]]
    assert [stage.name for stage in found] == ["first two", "only", "always", "none"]


SPACE = """\
experiment:
  name: tiny
  data: {n_folds: 2}
  input: {downsample: [4, 4], normalisation: global}
  model: {name: test_efficientnet, pretrained: false}
  training:
    batch_size: 4
    augment: {cutmix: {}, hemisphere_flip: 0.5}
    stages: [{name: only, epochs: 5}]
"""


def test_two_batches_use_everything_and_keep_packs_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
    monkeypatch.chdir(tmp_path)
    checkpoints: list[float] = []
    state_bytes = fold_state.state_bytes

    def written(state: FoldState, notes: dict[str, Any]) -> bytes:
        checkpoints.append(state.epoch)
        return state_bytes(state, notes)

    monkeypatch.setattr(fold_state, "state_bytes", written)
    data = write_competition_folder(tmp_path / "data", 8)
    (tmp_path / "tiny.yaml").write_text(SPACE)
    before = {path.name for path in tmp_path.iterdir()}
    words = ["train", "tiny.yaml", "--data", str(data), "--local", "--limit", "2"]
    assert main([*words, "--fold", "1", "--trace", "steps.json.gz"]) == 0
    printed = capsys.readouterr().out
    for text in (
        "fold 1, 2 batches per epoch",
        "packs        kaggle",
        "stage only, 2 steps",
        "augmentation cutmix, hemisphere_flip",
        "2 times; KL all",
        "MB, written and read",
        "equal to the evaluation",
        "Nothing was added to the fold store.",
        "Trace of 1 step: steps.json.gz.",
        "https://ui.perfetto.dev",
        "next: hms-ray train tiny.yaml",
    ):
        assert text in printed
    # After each evaluation but the last one.
    assert checkpoints == [0.5]
    assert {path.name for path in tmp_path.iterdir()} - before == {"steps.json.gz"}
    assert {path.name for path in data.iterdir()} >= {"packed"}
    with gzip.open("steps.json.gz") as file:
        names = {event.get("name") for event in json.load(file)["traceEvents"]}
    assert {"images", "forward", "backward", "optimiser", "ProfilerStep#1"} <= names
    assert "ProfilerStep#0" not in names


@pytest.mark.parametrize(
    ("n_trained", "recorded"), [(0, 0), (3, 0), (4, 1), (5, 2), (9, 2)], ids=str
)
def test_a_trace_has_the_steps_after_the_first_ones(
    n_trained: int, recorded: int, tmp_path: Path
) -> None:
    file = tmp_path / "steps.json"
    with StepTrace(file, skip=2, steps=2) as trace:
        for _ in range(n_trained):
            torch.ones(2).sum()
            trace.step()
    assert trace.n_recorded == recorded
    assert file.exists() == (recorded > 0)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (["--limit", "2"], ("--limit needs --local", "Add --local")),
        (["--trace", "t.json"], ("--trace needs --local", "Add --local")),
        (["--local", "--limit", "0"], ("--limit must be at least 1, got 0", "Use --limit 2")),
        (
            ["--local", "--limit", "1", "--trace", "t.json"],
            ("--limit must be at least 2 with --trace, got 1", "Use --limit 2"),
        ),
        (
            ["--local", "--limit", "2", "--fold", "0", "--fold", "1"],
            ("--limit tries one fold, got --fold 0 and 1", "Name one fold"),
        ),
        (
            ["--local", "--limit", "2", "--study", "x"],
            ("--limit keeps no results and no logs, got --study", "Omit one of them"),
        ),
        (
            ["--local", "--trace", "t.txt"],
            ("--trace needs a file that ends in .json or .json.gz, got t.txt", "trace.json.gz"),
        ),
        (
            ["--local", "--trace", "missing/t.json"],
            ("the folder of --trace must exist, got missing", "Create it first"),
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_without_effect_are_refused(
    options: list[str], parts: tuple[str, ...], error_line: Callable[..., str]
) -> None:
    text = error_line("train", "demo", "--data", "nowhere", *options)
    assert all(part in text for part in parts), text
