"""Cost of a trial of five instant folds in a standing worker group, over many trials.

Goals: at most 0.4 s a trial with random search; over 1,000 trials time per trial and memory grow
by less than 10% after the first 100. The sampler's own time (Optuna's proposals) is printed
apart. A trial's time is the distance between ends of trials, so the start is not in it.

Run: python -m tests.benchmarks.standing_groups [--trials 1000] [--method tpe]
[--workers 1] [--short]; ``--short`` has 30 trials.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.search.proposals import Proposals
from hms_ray.sweep.study import run_study
from hms_ray.sweep.trial_ends import TrialEnds
from tests.benchmarks.sweep_wall_time import wait_and_store
from tests.competition_folder import write_competition_folder

PART = 100
TITLES = ("ray::_QueueActor", "ray::_Events", "ray::TrainWorker", "ray::RayTrainWorker")


def make_space(method: str, trials: int, workers: int) -> Space:
    return validate_space(
        {
            "experiment": {
                "data": {"n_folds": 5},
                "input": {"downsample": [10, 10]},
                "model": {"name": "test_resnet", "pretrained": False, "drop_path": 0},
                "training": {"stages": [{"epochs": 1}]},
            },
            "method": method,
            "parameters": {
                "training.weight_decay": {"min": 1e-5, "max": 1e-1, "log": True},
                "training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
            },
            "budget": {"trials": trials},
            "resources": {"workers": workers, "max_groups": 1, "health_check_interval_s": 0.2},
            **({"prune": "none"} if "prune" in Space.model_fields else {}),
        },
        "benchmark",
    )


class Watch:
    """When trials ended, how long the sampler took, and memory by process, in MiB."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.sampling: list[float] = []
        self.memory: list[tuple[int, dict[str, float]]] = []
        self._stopping = threading.Event()

    def attach(self) -> None:
        """Follows the study that runs in this process."""
        record, propose = TrialEnds.record, Proposals.next

        def ended(ends, *arguments):  # type: ignore[no-untyped-def]
            record(ends, *arguments)
            self.ends.append(time.perf_counter())

        def proposed(proposals):  # type: ignore[no-untyped-def]
            start = time.perf_counter()
            found = propose(proposals)
            if not isinstance(found, str):
                self.sampling.append(time.perf_counter() - start)
            return found

        TrialEnds.record, Proposals.next = ended, proposed  # type: ignore[method-assign]
        threading.Thread(target=self._follow, daemon=True).start()

    def stop(self) -> None:
        self._stopping.set()

    def _follow(self) -> None:
        while not self._stopping.wait(2.0):
            self.memory.append((len(self.ends), _resident()))


def _resident() -> dict[str, float]:
    """Resident memory of this process and Ray's that serve it, by name."""
    found: dict[str, float] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_text()
            name = next((title for start in TITLES if title.startswith(start)), None)
            if folder.name == str(os.getpid()):
                name = "study process"
            if name is not None:
                pages = int((folder / "statm").read_text().split()[1])
                name = name.replace("\0", "").split(".")[0]
                found[name] = found.get(name, 0.0) + pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        except OSError:
            continue
    return found


def parts(watch: Watch) -> list[tuple[int, float, float]]:
    """Last trial of each part, and its seconds a trial: of the part, and of the sampler."""
    size = min(PART, max(2, len(watch.ends) // 3))
    rows = []
    for last in range(size, len(watch.ends) + 1, size):
        first = max(0, last - size)
        span = (watch.ends[last - 1] - watch.ends[first]) / (last - 1 - first)
        rows.append((last, span, statistics.mean(watch.sampling[first:last])))
    return rows


def measure(method: str, trials: int, workers: int, prepared: Prepared, folder: Path) -> None:
    """One study; prints its table."""
    watch = Watch()
    watch.attach()
    with tempfile.TemporaryDirectory(dir=folder) as results, Path(os.devnull).open("w") as nowhere:
        run_study(
            make_space(method, trials, workers),
            prepared,
            results,
            "study",
            train=partial(wait_and_store, seconds=0.0),
            stream=nowhere,
        )
    watch.stop()
    print(f"{method}, {workers} worker(s): {len(watch.ends)} trials of five folds")
    print(f"{'up to trial':>12}{'s a trial':>12}{'sampler s':>12}  memory, MiB")
    for last, seconds, sampler in parts(watch):
        near = min(watch.memory, key=lambda taken: abs(taken[0] - last))[1]
        memory = ", ".join(f"{name} {size:.0f}" for name, size in sorted(near.items()))
        print(f"{last:>12}{seconds:>12.3f}{sampler:>12.4f}  {memory}", flush=True)
    steps = [b - a for a, b in zip(watch.ends, watch.ends[1:], strict=False)]
    quarters = statistics.quantiles(steps, n=4)
    print(f"median {quarters[1]:.3f} s a trial, quartiles {quarters[0]:.3f} and {quarters[2]:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--method", choices=["random", "tpe"], default="random")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--short", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        write_competition_folder(place / "data", 20)
        space = make_space("random", 1, 1)
        ready = prepare(place / "data", space.experiment, place / "results")
        n_trials = 30 if options.short else options.trials
        measure(options.method, n_trials, options.workers, ready, place)
