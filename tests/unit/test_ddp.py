"""Two gloo ranks give the same fold as one process."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import Experiment
from hms_ray.config.row_targets import LabelSmoothing, TierWeights
from hms_ray.config.training import StageConfig
from hms_ray.config.values import replace_values
from hms_ray.errors import FoldCancelled, TrainingError
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.stages import make_optimiser, make_schedule
from hms_ray.train.step import Step
from tests.augmentations import TOGETHER
from tests.fold_data import all_sources, example_experiment, example_fold, with_label_rows
from tests.stage_sharing import counted_steps

# Odd numbers of rows, so that the ranks' shards are unequal.
DATA = with_label_rows(all_sources(example_fold(n_train=41, n_valid=13)))

STAGES = (
    StageConfig(name="noisy", rows="below_threshold", epochs=1),
    StageConfig(name="good", rows="at_least_threshold", epochs=1, loss="kl_log_votes"),
)
EQUAL: dict[str, Experiment] = {
    "plain": example_experiment("test_vit", precision="float64", batch_size=7),
    "cutmix": example_experiment(
        "test_vit",
        {"normalisation": "global", "views": ("panels",)},
        precision="float64",
        batch_size=9,
        loss="kl_capped_votes",
        normalise_weights=True,
        augment=AugmentConfig(cutmix=CutMixConfig(probability=1.0)),
    ),
    "shifted windows": example_experiment(
        "test_vit",
        {
            "views": ("panels", "eeg panels"),
            "downsample": (2, 2),
            "size": (32, 64),
            "normalisation": "global",
            "eeg": {"margin_s": 40},
        },
        precision="float64",
        batch_size=9,
        augment=AugmentConfig(window_shift_s=40, cutmix=CutMixConfig(probability=1.0)),
    ),
    "fitted": example_experiment(
        "test_vit",
        {
            "views": ("panels", "eeg panels"),
            "normalisation": "per_frequency",
            "downsample": (2, 2),
            "size": (32, 64),
            "eeg": {"normalisation": "robust"},
        },
        precision="float64",
        batch_size=9,
    ),
    "stages": example_experiment(
        "test_convnext",
        {"views": ("statistics",), "size": (64, 64), "downsample": (1, 2)},
        precision="float64",
        stages=STAGES,
        stage_threshold=8,
        augment=AugmentConfig(cutmix=CutMixConfig(probability=1.0, axis="frequency")),
    ),
    "augmented": example_experiment(
        "test_vit",
        {
            "views": ("panels", "eeg percentiles", "raw signals"),
            "downsample": (2, 2),
            "size": (32, 48),
            "eeg": {"margin_s": 40},
            "raw": {"normalisation": "per_image", "rows": 2, "margin_s": 40},
        },
        epochs=2,
        precision="float64",
        batch_size=7,
        loss="kl_capped_votes",
        augment=TOGETHER.model_copy(update={"window_shift_s": 40.0}),
    ),
}
EQUAL["switches"] = example_experiment(
    "test_vit",
    {"channels": 3},
    precision="float64",
    batch_size=9,
    loss="kl_votes",
    tier_weights=TierWeights(decay=(1.2, 0.5, 0.0)),
    label_smoothing=LabelSmoothing(share=0.1, max_votes=9, added_votes=0.3),
    clip_norm=0.5,
    accumulate=4,
    ema=0.5,
    optimiser="adam",
    schedule="cosine",
    head_rate=5.0,
    layer_decay=0.7,
    label_rows="random_row",
)
EQUAL["switches"] = replace_values(
    EQUAL["switches"], {"model.output": "sigmoid", "model.head": "per_tier"}
)
EQUAL["augmented"] = replace_values(
    EQUAL["augmented"],
    {"model.head": "per_tier", "prediction.flips": ["hemisphere_flip", "time_flip", "sign_flip"]},
)
PLAIN: dict[str, Any] = {"pretrained": False, "drop_path": 0.0}
BRANCHES: list[dict[str, Any]] = [
    {"views": ["panels"], "name": "test_vit", "size": [32, 48], **PLAIN},
    {"views": ["eeg panels"], "name": "test_convnext", "size": [32, 32], **PLAIN},
]
EQUAL["branches"] = replace_values(
    example_experiment(
        "efficientnet_b0.ra_in1k",
        precision="float64",
        batch_size=9,
        ema=0.5,
        accumulate=2,
        head_rate=5.0,
        layer_decay=0.7,
        augment=AugmentConfig(hemisphere_flip=0.5, mixup={"probability": 1.0}),
    ),
    {
        "model": {"branches": BRANCHES, "dropout": 0.0, "head": "per_tier"},
        "prediction.flips": ["time_flip"],
    },
)
BATCH_STATISTICS = replace_values(
    example_experiment("test_efficientnet", epochs=2, ema=0.5), {"model.pooling": "gem"}
)
FLOAT16 = example_experiment("test_vit", precision="float16")
DIVERGES = example_experiment("test_vit", learning_rate=1e30, epochs=2)


def take_float16_steps(process: Process) -> tuple[float, list[torch.Tensor]]:
    """Loss scale and weights after steps whose gradients overflow on rank 1 alone."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6))
    (stage,) = FLOAT16.training.resolved_stages()
    optimiser = make_optimiser(model, FLOAT16.training, stage)
    schedule = make_schedule(optimiser, FLOAT16.training, stage, 4)
    step = Step(process.wrap(model), process, "float16", optimiser, schedule)
    batch: Any = SimpleNamespace(targets=np.eye(6)[:2], weights=np.ones(2), n_global=4)
    weights = []
    for size in (1.0, 1e4, 1e4, 1.0):
        image = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)
        step(batch, image * (size if process.rank == 1 else 1.0))
        weights.append(model[1].weight.detach().clone())
    return step.scaler.get_scale(), weights


def take_cancelled_steps(process: Process) -> int:
    """Steps that were taken when rank 0 alone was asked to stop."""
    asked = iter([False, False, True])
    stopping = replace(process, should_stop=lambda: process.rank == 0 and next(asked))
    with counted_steps() as count, pytest.raises(FoldCancelled):
        train_fold(BATCH_STATISTICS, DATA, 0, stopping)
    return count[0]


def train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    reports: list[dict[str, Any]] = []
    process = Process(rank, 2, report=reports.append)
    results = {
        name: train_fold(experiment, DATA, 0, process)
        for name, experiment in {
            **EQUAL,
            "batch statistics": BATCH_STATISTICS,
            "float16": FLOAT16,
        }.items()
    }
    skipped = take_float16_steps(process)
    with pytest.raises(TrainingError) as error:
        train_fold(DIVERGES, DATA, 0, process)
    outcome = (
        {
            name: (r.probabilities, r.history, r.weights, r.normalisation)
            for name, r in results.items()
        },
        str(error.value),
        len(reports),
        skipped,
        take_cancelled_steps(process),
    )
    torch.save(outcome, f"{folder}/rank_{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    mp.spawn(train_rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank_{rank}.pt", weights_only=False) for rank in range(2)]


def test_ranks_are_cancelled_at_the_same_step(ranks: list[Any]) -> None:
    (*_, first), (*_, second) = ranks
    assert first == second
    # In the evaluation after two steps, each of which was an agreement.
    assert first == 2


def test_ranks_skip_a_float16_step_together(ranks: list[Any]) -> None:
    (scale, weights), (other_scale, others) = (rank[3] for rank in ranks)
    assert scale == other_scale == 2.0**14
    assert all(torch.equal(one, other) for one, other in zip(weights, others, strict=True))
    first, second, third, fourth = weights
    assert torch.equal(first, second)
    assert torch.equal(second, third)
    assert not torch.equal(third, fourth)
    half, other = (rank[0]["float16"] for rank in ranks)
    assert np.array_equal(half[0], other[0])
    assert [record["step"] for record in half[1]] == [2, 4]


@pytest.mark.parametrize("name", list(EQUAL))
def test_two_ranks_equal_one_process(name: str, ranks: list[Any]) -> None:
    torch.set_num_threads(1)
    alone = train_fold(EQUAL[name], DATA, 0, Process())
    for probabilities, history, weights, normalisation in (rank[0][name] for rank in ranks):
        np.testing.assert_allclose(probabilities, alone.probabilities, rtol=0, atol=1e-8)
        assert [record["train_loss"] for record in history] == pytest.approx(
            [record["train_loss"] for record in alone.history], abs=1e-8
        )
        assert [record["gradient_norm"] for record in history] == pytest.approx(
            [record["gradient_norm"] for record in alone.history], rel=1e-6
        )
        assert normalisation == alone.normalisation
        for key, value in alone.weights.items():
            torch.testing.assert_close(weights[key], value, rtol=0, atol=1e-7)
    assert alone.probabilities.std() > 1e-3, "predictions that are all alike would prove little"


def test_ranks_agree_bit_for_bit_batch_statistics_included(ranks: list[Any]) -> None:
    first, second = (rank[0]["batch statistics"] for rank in ranks)
    assert np.array_equal(first[0], second[0])
    norms = [[record["gradient_norm"] for record in history] for history in (first[1], second[1])]
    assert norms[0] == norms[1]
    assert first[2].keys() == second[2].keys()
    assert all(torch.equal(value, second[2][name]) for name, value in first[2].items())
    np.testing.assert_allclose(first[0].sum(1), 1.0, atol=1e-12)


def test_all_ranks_stop_together_and_only_the_first_reports(ranks: list[Any]) -> None:
    messages = [rank[1] for rank in ranks]
    assert messages[0] == messages[1]
    assert "stage train, epoch 1, step 2" in messages[0]
    assert ranks[0][2] > 0
    assert ranks[1][2] == 0
