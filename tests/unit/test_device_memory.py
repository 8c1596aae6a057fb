"""A full device is one error, wherever its memory runs out."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from hms_ray.errors import HmsRayError, TrainingError
from hms_ray.experiment import in_process
from hms_ray.experiment.fold_task import FoldTask
from hms_ray.train import fold_training
from hms_ray.train.device_memory import device_memory
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from tests.fold_data import example_experiment, example_fold
from tests.refused import refusal

DATA = example_fold()
FULL = "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has 14.56 GiB of which 1.2 GiB free"


def fill(*arguments: Any, **named: Any) -> None:
    raise torch.OutOfMemoryError(FULL)


@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("fold_training.open_sources", "fold 3"),
        ("fold_training.build_model", "fold 3"),
        ("evaluation.predict_rows", "fold 3, stage train"),
        ("stage_loop.Step.__call__", "fold 3, stage train"),
    ],
)
def test_full_memory_names_fold_stage_request_and_remedies(
    part: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"hms_ray.train.{part}", fill)
    got, fix = "a request for 2.50 GiB more", "Use a smaller training.batch_size"
    with refusal(TrainingError, "fit into the memory", got=got, where=where, fix=fix):
        train_fold(example_experiment(), DATA, 3, Process())
    with pytest.raises(TrainingError) as caught:
        train_fold(example_experiment(), DATA, 3, Process())
    assert caught.value.where == where
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
    for remedy in ("resources.windows: streamed", "resources.gpus_per_worker"):
        assert remedy in (caught.value.fix or "")


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    ],
)
def test_libraries_without_memory_are_the_same_error(text: str) -> None:
    expected = refusal(TrainingError, "fit into the memory", got=text, where="fold 1")
    with expected, device_memory("fold 1"):
        raise RuntimeError(text)


def test_windows_can_be_streamed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []
    monkeypatch.setattr(in_process, "run_task", lambda task, process: seen.append(process.windows))
    task = FoldTask(example_experiment(), 0, "key", cast("Any", None), tmp_path, {})
    for windows in ("auto", "streamed"):
        in_process.InProcessRunner(device="cpu", windows=windows).run([task], lambda record: None)
    assert seen == ["auto", "streamed"]


def test_other_errors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError("sizes differ"), HmsRayError("a rule"), MemoryError()):

        def fail(*arguments: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(fold_training, "open_sources", fail)
        with pytest.raises(type(error)) as caught:
            train_fold(example_experiment(), DATA, 0, Process())
        assert caught.value is error
