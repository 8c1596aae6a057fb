"""What TensorBoard's files and the charts' own measures cost.

``python -m tests.benchmarks.logging_cost [--trials N] [--repeats N]``

Prints medians with their spread over the trials: the time of an event in the thread that shows
the progress, and the processor time of the thread that writes, per evaluation and per end of a
trial; the time of the gradient's norm beside the training step that it belongs to; and their sum
in a fold of 20 evaluations beside the allowed 1 s + 1% of the fold.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from hms_ray.dataset.prepare import Prepared
from hms_ray.display.live_runs import LiveRuns
from hms_ray.study.board import StudyBoard
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.stages import make_optimiser, make_schedule
from hms_ray.train.step import Step
from tests.board_study import end_trials
from tests.fold_data import example_experiment
from tests.study_data import make_space, prepared_rows

N_EVALUATIONS, N_FOLDS = 20, 2


def evaluation(trial: int, fold: int, number: int) -> dict[str, Any]:
    place = {"event": "evaluation", "trial": trial, "fold": fold, "key": f"{fold}" * 64}
    epoch = {"stage": "train", "stage_index": 0, "epoch": number / 2, "epochs": number / 2}
    scores = {"kl_all": 1.0, "kl_4": 1.0, "kl_10": 1.0, "train_loss": 1.0, "loss": "kl"}
    rates = {"learning_rate": 1e-3, "gradient_norm": 1.0, "images_per_s": 9.0, "seconds": 1.0}
    return place | epoch | scores | rates


def timed(call: Callable[..., object], clock: Callable[[], float], *arguments: object) -> float:
    began = clock()
    call(*arguments)
    return 1e3 * (clock() - began)


def write(live: LiveRuns, name: str) -> None:
    """Does what the thread does after one event."""
    live._jobs.popleft()()
    live._runs[name].file.flush()


def writing(study: StudyFolder, n_trials: int) -> dict[str, list[float]]:
    """Milliseconds of each part, measured without the thread, which would share its time."""
    found: dict[str, list[float]] = {"event": [], "evaluation": [], "end of a trial": []}
    trial = study.trial(0)
    assert trial is not None
    for number in range(10, 10 + n_trials):
        board, name = StudyBoard(study, study.path.parent), f"{number:04d}"
        live = board._live
        for fold in range(N_FOLDS):
            for k in range(1, N_EVALUATIONS + 1):
                event = evaluation(number, fold, k)
                found["event"].append(timed(board.handle, time.perf_counter, event))
                found["evaluation"].append(timed(write, time.process_time, live, name))
        board.trial_ended(replace(trial, number=number))
        found["end of a trial"].append(timed(live._ends.popleft()[1], time.process_time))
    return found


def norms(repeats: int) -> dict[str, list[float]]:
    """Milliseconds of a step of an EfficientNet-B0 on 16 small images, and with the norm."""
    torch.set_num_threads(1)
    experiment = example_experiment("tf_efficientnet_b0")
    (stage,) = experiment.training.resolved_stages()
    model = build_model(experiment.model, (64, 64))
    optimiser = make_optimiser(model, experiment.training, stage)
    schedule = make_schedule(optimiser, experiment.training, stage, 10_000)
    step = Step(model, Process(), "float32", optimiser, schedule)
    image = torch.randn(16, 1, 64, 64)
    batch: Any = SimpleNamespace(
        targets=np.eye(6)[np.arange(16) % 6], weights=np.ones(16), n_global=16
    )
    found: dict[str, list[float]] = {"step": [], "step with its norm": []}
    for _ in range(repeats):
        for name, measured in (("step", False), ("step with its norm", True)):
            call = partial(step, batch, image, measured=measured)
            found[name].append(timed(call, time.process_time))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepared: Prepared = prepared_rows(Path(folder))
        study = create_study(Path(folder) / "results", "cost", make_space(), prepared)
        end_trials(study)
        found = writing(study, arguments.trials) | norms(arguments.repeats)
    middle = {name: statistics.median(values) for name, values in found.items()}
    print(f"{'part':22} {'median ms':>10} {'10%':>10} {'90%':>10}")
    for name, values in found.items():
        low, high = np.quantile(values, [0.1, 0.9])
        print(f"{name:22} {middle[name]:10.3f} {low:10.3f} {high:10.3f}")
    norm = max(0.0, middle["step with its norm"] - middle["step"])
    fold = N_EVALUATIONS * (middle["event"] + middle["evaluation"] + norm)
    fold += middle["end of a trial"] / N_FOLDS
    print(f"fold of {N_EVALUATIONS} evaluations: {fold:.0f} ms; allowed: 1,000 ms + 1% of the fold")


if __name__ == "__main__":
    main()
