"""A fold that resumes from the state after any evaluation ends with the same bits."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.row_targets import TierWeights
from hms_ray.config.training import StageConfig
from hms_ray.config.values import replace_values
from hms_ray.errors import TrainingError
from hms_ray.train.fold_state import state_bytes, state_from
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from tests.fold_data import example_experiment, example_fold, with_label_rows
from tests.refused import refusal
from tests.stage_sharing import without_times

DATA = with_label_rows(example_fold())
STAGES = (
    StageConfig(name="noisy", rows="below_threshold", epochs=2),
    StageConfig(name="good", rows="at_least_threshold", epochs=1, learning_rate=0.003),
)
CUTMIX = AugmentConfig(cutmix=CutMixConfig(probability=0.5))
DROPPING = ModelConfig(name="test_efficientnet", pretrained=False, dropout=0.3, drop_path=0.2)
BRANCHED = ModelConfig.model_validate(
    {
        "branches": [
            {"views": ["panels"], "name": "test_efficientnet", "pretrained": False},
            {"views": ["statistics"], "name": "test_vit", "size": [32, 32], "pretrained": False},
        ]
    }
)


def dropping(experiment: Experiment) -> Experiment:
    return experiment.model_copy(update={"model": DROPPING})


EXPERIMENTS = {
    "best of two stages": dropping(
        example_experiment(
            inputs={"normalisation": "per_frequency"},
            stages=STAGES,
            stage_threshold=8,
            checkpoint="best",
            next_stage_from="best",
            augment=CUTMIX,
        )
    ),
    "last, constant rate": dropping(
        example_experiment(epochs=2, checkpoint="last", schedule="constant")
    ),
    "float16": example_experiment("test_vit", epochs=2, precision="float16"),
    "average": dropping(
        example_experiment(
            stages=STAGES,
            stage_threshold=8,
            ema=0.8,
            next_stage_from="best",
            clip_norm=0.5,
            head_rate=3.0,
            tier_weights=TierWeights(decay=(1.0, 0.5, 0.5)),
        )
    ),
    "branches": example_experiment(epochs=2, ema=0.8).model_copy(update={"model": BRANCHED}),
    "heads and label rows": replace_values(
        dropping(example_experiment(epochs=2, label_rows="random_row")),
        {"model.head": "per_tier"},
    ),
    "one batch per epoch": dropping(example_experiment(epochs=2, batch_size=64)),
}


def train(experiment: Experiment, **options: Any) -> tuple[FoldResult, list[bytes]]:
    """The result, and the state after each evaluation but the last."""
    states: list[bytes] = []
    result = train_fold(
        experiment,
        DATA,
        2,
        options.pop("process", Process()),
        on_evaluation=lambda make: states.append(state_bytes(make(), {"n": len(states)})),
        **options,
    )
    return result, states


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_resumes_after_any_evaluation_bit_for_bit(name: str) -> None:
    undisturbed, states = train(EXPERIMENTS[name])
    assert len(states) == len(undisturbed.history) - 1
    for number, stored in enumerate(states):
        state, notes = state_from(stored)
        assert notes == {"n": number}
        reports: list[dict[str, Any]] = []
        process = Process(report=reports.append)
        result, later = train(EXPERIMENTS[name], resume_from=state, process=process)
        assert len(later) == len(states) - number - 1
        # Nothing before the checkpoint is trained again.
        assert [report.get("event") for report in reports] == ["fold_resumed"] + [None] * (
            len(states) - number
        )
        assert np.array_equal(result.probabilities, undisturbed.probabilities)
        assert without_times(result.history) == without_times(undisturbed.history)
        assert result.normalisation == undisturbed.normalisation
        assert result.optimistic == undisturbed.optimistic
        assert result.weights.keys() == undisturbed.weights.keys()
        for key, value in result.weights.items():
            assert torch.equal(value, undisturbed.weights[key])
    assert undisturbed.probabilities.std() > 1e-3, "equal predictions would prove little"


def test_times_continue_after_a_resume() -> None:
    experiment = EXPERIMENTS["best of two stages"]
    _, states = train(experiment)
    state = state_from(states[2])[0]
    seconds = [100.0 * (1 + place) for place in range(3)]
    history = [
        {**line, "seconds": value} for line, value in zip(state.history, seconds, strict=True)
    ]
    clock = {"total_s": 310.0, "seconds": {"train_s": 200.0, "evaluate_s": 60.0}, "images": 9}
    longer = replace(state, history=history, clock=clock, saved_s=7.0)
    result, _ = train(experiment, resume_from=longer)
    assert [line["seconds"] for line in result.history[:3]] == seconds
    assert 300 < result.history[3]["seconds"] < result.history[-1]["seconds"] < 400
    assert 310 < result.timing["total_s"] < 400
    assert 200 < result.timing["train_s"] < 300
    assert 60 < result.timing["evaluate_s"] < 100
    assert result.saved_s == 7.0
    assert result.stages_s == result.timing["train_s"] + result.timing["evaluate_s"] + 7.0


def test_a_state_of_other_content_is_refused() -> None:
    _, (stored, *_) = train(EXPERIMENTS["one batch per epoch"])
    state, _ = state_from(stored)
    for content, got in {
        b"": "EOFError",
        state_bytes(replace(state, history=[]), {}): "IndexError",
    }.items():
        fix = "Remove it; the fold is then trained from its last stage."
        with refusal(TrainingError, "a checkpoint must be readable", got=got, fix=fix):
            state_from(content)
