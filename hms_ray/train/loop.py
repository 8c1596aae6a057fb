"""Trains one fold: the same code in one process and on every rank of a worker group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from hms_ray.config.experiment import Experiment
from hms_ray.train.batches import FoldData
from hms_ray.train.compiled import compiling
from hms_ray.train.device_memory import device_memory
from hms_ray.train.fold_state import FoldState
from hms_ray.train.fold_training import FoldTraining
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult
from hms_ray.train.seeds import own_torch_generator
from hms_ray.train.stage_loop import OnEvaluation, train_stage
from hms_ray.train.torch_settings import torch_settings

OnStageEnd = Callable[[FoldResult], None]


def train_fold(
    experiment: Experiment,
    data: FoldData,
    fold: int,
    process: Process,
    resume_from: FoldResult | FoldState | None = None,
    on_stage_end: OnStageEnd = lambda result: None,
    on_evaluation: OnEvaluation = lambda make_state: None,
    epochs: Sequence[float] | None = None,
) -> FoldResult:
    """Trains one fold and predicts its validation rows.

    Each stage has a new optimiser and a schedule over its steps. All validation rows
    are scored twice per epoch: after the first half of its batches and at its end (only at
    its end if the epoch is one batch). A stage ends with the weights of its last or of its
    best evaluation (see ``TrainingConfig.checkpoint_criterion``): the next stage starts from
    them, and those of the last stage are returned with their predictions of all validation
    rows.

    With ``ema`` the weights that are scored, kept and handed on are the moving average of those
    in training, which starts anew in each stage.

    Each evaluation adds a record to the history (see ``History``), which ``process.report``
    receives on rank 0 with ``progress``, the share of all steps that is done.

    With ``resume_from`` training starts after the stages of a result, or after the evaluation
    of a state. Everything except times is then equal to training all of it here. It is
    reported first: ``{"event": "stages_reused", "stages": names, "saved_s": ..., "progress":
    ...}`` for a result, ``{"event": "fold_resumed", "stage": name, "epoch": ..., "progress":
    ...}`` for a state, both with the ``history`` so far.

    torch's global generators and settings (see ``torch_settings``) are set during the call and
    restored afterwards.

    Args:
        experiment: model, inputs and schedule.
        data: rows and packs.
        fold: number of the validation fold; part of every seed.
        process: this rank of the worker group.
        resume_from: result of the same fold after some of its first stages, or its state after
            an evaluation; the same on every rank.
        on_stage_end: called on every rank with the result after each stage but the last.
        on_evaluation: called on rank 0 after each evaluation but the very last, with a function
            that makes the state. The state is not copied: it is valid until the call returns.
        epochs: for each stage, when it ends, such as 2.5, instead of a choice by score. Its
            schedule is still that of the configured epochs. For data without validation rows.

    Raises:
        TrainingError: if a batch has fewer rows than there are ranks, a loss or prediction is
            not finite (raised on all ranks together), an operation has no deterministic form,
            the model does not compile, or the device's memory is full.
        ConfigError: if a stage lacks rows (see ``stage_rows``), ``downsample`` does not divide
            a source's windows, or the panels or the image size do not allow an augmentation.
        ModelError: if the model or its weights cannot be created.
        FoldCancelled: on all ranks before the same step, if ``process.should_stop`` returns
            true on rank 0.
    """
    settings = torch_settings(deterministic=experiment.training.deterministic)
    compiler = compiling(experiment.training.compile, experiment.model.title)
    memory = device_memory(f"fold {fold}")
    # Errors of the compiler are last: some have a full device as their cause.
    with compiler, settings, own_torch_generator(process.device), memory:
        training = FoldTraining(experiment, data, fold, process, resume_from, epochs)
        return _all_stages(training, on_stage_end, on_evaluation)


def _all_stages(
    fold: FoldTraining, on_stage_end: OnStageEnd, on_evaluation: OnEvaluation
) -> FoldResult:
    """Trains what ``resume_from`` does not have."""
    model = fold.make_model()
    fold.process.pulse.begin()
    first = 0 if fold.resume_from is None else fold.resume_from.next_stage
    last = len(fold.stages) - 1
    for index in range(first, last):
        result = _stage(fold, model, index, on_evaluation)
        # Those of the best evaluation, or the bits that the model has.
        model.load_state_dict(result.weights)
        on_stage_end(result)
        fold.clock.lap("keep_s")
    return _stage(fold, model, last, on_evaluation)


def _stage(
    fold: FoldTraining, model: nn.Module, index: int, on_evaluation: OnEvaluation
) -> FoldResult:
    with device_memory(f"fold {fold.fold}, stage {fold.stages[index][0].name}"):
        return train_stage(fold, model, index, on_evaluation)
