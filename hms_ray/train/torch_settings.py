"""Global settings of torch that change numbers: set for one fold and restored afterwards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch

from hms_ray.errors import TrainingError

CUBLAS: Final = "CUBLAS_WORKSPACE_CONFIG"
"""Environment variable of cuBLAS, read at its first product in a process."""
CUBLAS_WORKSPACE: Final = ":4096:8"
"""Fixed workspaces, with which cuBLAS is deterministic; NVIDIA allows ``:16:8`` too, slower."""

_NO_DETERMINISTIC_FORM: Final = re.compile(r"(\S+) does not have a deterministic implementation")
_CUBLAS_STARTED: Final = re.compile(r"not deterministic because it uses CuBLAS")


@contextmanager
def torch_settings(*, deterministic: bool) -> Iterator[None]:
    """Deterministic algorithms or the fastest ones while a block runs.

    Deterministic: torch refuses operations whose result depends on the order of threads, and
    cuDNN and cuBLAS choose algorithms without regard to timings. Otherwise cuDNN tries
    algorithms and keeps the fastest.

    TF32 is off in either case: ``float32`` has the same precision on every generation of GPUs
    and compares with a CPU. Speed comes from bfloat16, which this does not touch.

    Memory is not filled before use: that would hide nothing here and cost time.

    Args:
        deterministic: see ``training.deterministic``.

    Raises:
        TrainingError: if the block uses an operation without a deterministic form.
    """
    wanted = _attributes(deterministic)
    before = [getattr(owner, name) for owner, name, _ in wanted]
    mode, workspace = torch.get_deterministic_debug_mode(), os.environ.get(CUBLAS)
    try:
        for owner, name, value in wanted:
            setattr(owner, name, value)
        # Not ``use_deterministic_algorithms``, which imports torch's compiler as well: seconds.
        torch.set_deterministic_debug_mode("error" if deterministic else "default")
        # In either case, since it is read once per process, and folds of both kinds may follow.
        os.environ[CUBLAS] = CUBLAS_WORKSPACE
        yield
    except RuntimeError as error:
        translated = _as_training_error(error)
        if translated is None:
            raise
        raise translated from error
    finally:
        for (owner, name, _), value in zip(wanted, before, strict=True):
            setattr(owner, name, value)
        torch.set_deterministic_debug_mode(mode)
        if workspace is not None:
            os.environ[CUBLAS] = workspace
        else:
            os.environ.pop(CUBLAS, None)


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Number of torch threads of this process while a block runs.

    Args:
        threads: at least 1.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _attributes(deterministic: bool) -> list[tuple[Any, str, Any]]:
    """Owner, name and value of every setting that is an attribute."""
    backends: Any = torch.backends
    products = [
        *(backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn),
        *(backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn),
    ]
    return [
        (backends.cudnn, "benchmark", not deterministic),
        (backends.cudnn, "deterministic", deterministic),
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
        *((owner, "fp32_precision", "ieee") for owner in products),
    ]


def _as_training_error(error: RuntimeError) -> TrainingError | None:
    """The error for an operation without a deterministic form; None for another error."""
    rule = "every operation must be deterministic (training.deterministic)"
    switch = "--set training.deterministic=false"
    if found := _NO_DETERMINISTIC_FORM.search(str(error)):
        return TrainingError(
            rule,
            got=f"{found[1]}, which has no deterministic form in torch {torch.__version__}",
            fix=f"Use another model.name, or allow different last digits: {switch}",
        )
    if _CUBLAS_STARTED.search(str(error)):
        return TrainingError(
            rule,
            got=f"a product by cuBLAS, which this process used before without {CUBLAS}",
            fix=f"Start a new process with {CUBLAS}={CUBLAS_WORKSPACE} in its environment, or "
            f"allow different last digits: {switch}",
        )
    return None
