"""What checkpoints cost: the same fold trained with and without them, in pairs.

``python -m tests.benchmarks.checkpoint_cost [--model NAME] [--rows N] [--pairs N]
    [--folder DIR]``

Prints seconds of training and evaluation per pair, and the share of an epoch of 30 s that its
checkpoints take; an epoch has two evaluations, so at most two checkpoints. On a machine that does
other work, the seconds of the processor (CPU) say more than those of the clock.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from hms_ray.config.experiment import Experiment
from hms_ray.storage.resume_folder import ResumeFolder
from hms_ray.train.fold_state import state_bytes
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from tests.fold_data import example_experiment, example_fold

EPOCH_S = 30.0


def trained(experiment: Experiment, n_rows: int, folder: ResumeFolder | None) -> list[float]:
    """CPU seconds of the fold, then seconds and CPU seconds of each checkpoint in turn."""
    written: list[float] = []
    began = time.process_time()

    def write(make_state: object) -> None:
        started, cpu = time.perf_counter(), time.process_time()
        assert folder is not None
        folder.write(state_bytes(make_state(), {}))  # type: ignore[operator]
        written.extend((time.perf_counter() - started, time.process_time() - cpu))

    data = example_fold(n_train=n_rows, n_valid=max(12, n_rows // 4))
    options = {} if folder is None else {"on_evaluation": write}
    train_fold(experiment, data, 0, Process(), **options)  # type: ignore[arg-type]
    return [time.process_time() - began, *written]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="tf_efficientnet_b0")
    parser.add_argument("--rows", type=int, default=240)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--folder", help="where checkpoints are written; default: temporary files")
    given = parser.parse_args()
    torch.set_num_threads(1)
    experiment = example_experiment(given.model, epochs=2, checkpoint="best")
    differences, writes, cpu = [], [], []
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        folder = ResumeFolder(Path(place), "0" * 64)
        folder.take()
        for pair in range(given.pairs):
            # Which one is first alternates: a machine slows down and recovers.
            order = (None, folder) if pair % 2 else (folder, None)
            seconds = {way is not None: trained(experiment, given.rows, way) for way in order}
            (without,), (with_them, *each) = seconds[False], seconds[True]
            n = len(each) // 2
            differences.append((with_them - without) / n)
            writes, cpu = writes + each[::2], cpu + each[1::2]
            print(f"pair {pair}: CPU without {without:.2f} s, with {with_them:.2f} s, {n} written")
        size = (folder.folder / "checkpoint.pt").stat().st_size / 1e6
        folder.release(remove=True)
    print(f"{given.model}: {size:.0f} MB per checkpoint (with the weights of the best evaluation)")
    for name, values in {
        "seconds": writes,
        "CPU seconds": cpu,
        "CPU seconds, difference of pairs": differences,
    }.items():
        middle = statistics.median(values)
        print(
            f"{name}, per checkpoint: median {middle:.3f} s, from {min(values):.3f} to "
            f"{max(values):.3f} s; of an epoch of {EPOCH_S:g} s: {100 * middle / EPOCH_S:.2f}% at "
            f"checkpoint_every_s 30, {200 * middle / EPOCH_S:.2f}% at 0 (two per epoch), "
            f"{50 * middle / EPOCH_S:.2f}% at 60 (default)"
        )


if __name__ == "__main__":
    main()
