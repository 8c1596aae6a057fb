"""A study under random kills: it ends as if nothing had happened, and leaves nothing.

A grid of trials without pruning runs by ``hms-ray sweep --address`` on a head and, if nodes are
killed, one node that has the only CPU. At even distances of its progress something is killed: a
worker, the controller of the group, a trial's process, the node (a new one joins), the study
process, or the head with all other processes of Ray. After the last two the command is started
again, as a scheduler would, on a new cluster if the head is gone. At the end

- predictions and scores are those of a training without any kill, by experiment,
- no fold that was stored, and no epoch before a checkpoint, was trained again,
- no placement group, actor, worker, draft, checkpoint or lock is left.

The table has the seconds until the next evaluation, of a training that started after the kill
unless a trial's process was killed, which ends no training. After a restart they count from when
Ray was up and the command was started. Goals: 20 s after the loss of a worker,
controller or trial process, 60 s of a node, 30 s after a restart.

Run: python -m tests.benchmarks.chaos [--kills 30] [--seed 0] [--trials 8] [--epochs 40]
[--short]; ``--short`` has 6 kills, none of them of a node, 2 trials and short folds.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import yaml

from hms_ray.dataset.prepare import prepare
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import collect, plan_folds
from hms_ray.storage.fold_store import RECORD_FILE
from hms_ray.storage.resume_folder import RESUME, ResumeFolder
from hms_ray.study.folder import StudyFolder
from hms_ray.train.fold_state import state_from
from tests.chaos_cluster import Logs, Site, kill_process
from tests.competition_folder import write_competition_folder
from tests.ray.leftovers import in_cluster, in_folder

ROOT = Path(__file__).parents[2]
STUDY = "chaos"
TITLES: Final = {
    "worker": "ray::RayTrainWorker",
    "controller": "ray::TrainController",
    "trial": "ray::ImplicitFunc",
}
KINDS: Final = ("worker", "controller", "trial", "node", "study", "head")
GOALS_S: Final = {
    **dict.fromkeys(("worker", "controller", "trial"), 20.0),
    "node": 60.0,
    "study": 30.0,
    "head": 30.0,
}
LATE_SHORT: Final = 3.0
"""Beside other tests, a machine may be so many times slower."""
NO_PROGRESS_S: Final = 180.0


def make_space(n_trials: int, epochs: int, kills: int) -> dict[str, Any]:
    rates = [round(1e-3 * (1 + number / 10), 6) for number in range(n_trials)]
    return {
        "experiment": {
            "data": {"n_folds": 2},
            "input": {"downsample": [10, 10]},
            "model": {"name": "test_efficientnet", "pretrained": False, "dropout": 0.2},
            "training": {"batch_size": 4, "stages": [{"rows": "all", "epochs": epochs}]},
        },
        "method": "grid",
        "prune": "none",
        "parameters": {"training.learning_rate": {"values": rates}},
        "resources": {
            "max_groups": 1,
            "max_failures": kills,
            "checkpoint_every_s": 0,
            "health_check_interval_s": 0.2,
        },
    }


@dataclass
class Kill:
    """One kill, and when training went on.

    Attributes:
        kind: see ``KINDS``.
        at: seconds since 1970.
        checkpoints: cache key -> epochs in the checkpoint that was there.
        counts_from: seconds since 1970; later than ``at`` if the command was started again.
        next_at: of the next evaluation; None: it has not come.
    """

    kind: str
    at: float
    checkpoints: dict[str, float]
    counts_from: float = 0.0
    next_at: float | None = None

    @property
    def seconds(self) -> float | None:
        return None if self.next_at is None else self.next_at - self.counts_from


class Chaos:
    """Runs the study and kills.

    Args:
        base: folder of data and results.
        kinds: what is killed, in order.
        n_trials: of the grid.
        epochs: of a fold.
    """

    def __init__(self, base: Path, kinds: list[str], n_trials: int, epochs: int) -> None:
        self.base, self.results, self._kinds = base, base / "results", kinds
        write_competition_folder(base / "data", 12)
        space = make_space(n_trials, epochs, len(kinds))
        (base / "space.yaml").write_text(yaml.safe_dump(space))
        self.logs = Logs(self.results / STUDY / "logs")
        # Two evaluations per epoch, two folds per trial.
        self._n_evaluations = n_trials * 2 * 2 * epochs
        self.kills: list[Kill] = []
        self.n_starts = 0
        self.stored: dict[Path, int] = {}

    def run(self) -> None:
        """Runs the study to its end, whatever is killed."""
        self.site = self._make_site()
        try:
            study = self._start()
            while study.poll() is None:
                time.sleep(0.1)
                self.logs.read()
                self._note_next()
                if self._is_due():
                    study = self._kill(study)
            if study.returncode:
                raise SystemExit(
                    f"the study ended by itself with {study.returncode}:\n{self._said()}"
                )
            self._note_next()
        finally:
            with suppress(UnboundLocalError):
                study.kill()
                study.wait()
            self.left = self._left()
            self.site.stop()

    def _make_site(self) -> Site:
        return Site(with_node="node" in self._kinds)

    def _start(self) -> subprocess.Popen[bytes]:
        self.n_starts += 1
        words = ["sweep", str(self.base / "space.yaml"), "--data", str(self.base / "data")]
        words += ["--results", str(self.results), "--study", STUDY, "--address", self.site.address]
        with (self.base / f"said-{self.n_starts}.txt").open("wb") as stream:
            return subprocess.Popen(
                [sys.executable, "-m", "hms_ray", *words],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def _said(self) -> str:
        return (self.base / f"said-{self.n_starts}.txt").read_text(errors="replace")[-5000:]

    def _note_next(self) -> None:
        if not self.kills or self.kills[-1].next_at is not None:
            return
        kill = self.kills[-1]
        for at, _, _, started in sorted(self.logs.evaluations):
            if at > kill.counts_from and (kill.kind == "trial" or started > kill.at):
                kill.next_at = at
                return
        if time.time() - kill.counts_from > NO_PROGRESS_S:
            raise SystemExit(f"no progress after a kill of {kill.kind}:\n{self._said()}")

    def _is_due(self) -> bool:
        n_made = len(self.kills)
        if n_made == len(self._kinds) or (self.kills and self.kills[-1].next_at is None):
            return False
        due = (n_made + 0.5) / (len(self._kinds) + 1) * self._n_evaluations
        return self.logs.n_different() >= due

    def _kill(self, study: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        kind = self._kinds[len(self.kills)]
        found = self.site.processes(TITLES[kind]) if kind in TITLES else []
        if kind in TITLES and not found:
            return study
        self._note_stored()
        # Read before the time: what is trained while they are read is no repetition.
        checkpoints = self._checkpoints()
        kill = Kill(kind, time.time(), checkpoints)
        kill.counts_from = kill.at
        self.kills.append(kill)
        if kind in TITLES:
            kill_process(found[0])
        elif kind == "node":
            self.site.replace_node()
        else:
            study.send_signal(signal.SIGKILL)
            study.wait()
            if kind == "head":
                self.site.kill()
                self.site = self._make_site()
            kill.counts_from = time.time()
            return self._start()
        return study

    def _note_stored(self) -> None:
        for file in (self.results / ".store").glob(f"??/*/{RECORD_FILE}"):
            self.stored.setdefault(file.parent, file.stat().st_mtime_ns)

    def _checkpoints(self) -> dict[str, float]:
        found = {}
        for folder in (self.results / ".store" / RESUME).glob("*"):
            with suppress(FileNotFoundError):
                content = ResumeFolder(self.results, folder.name).read()
                if content is not None:
                    found[folder.name] = state_from(content)[0].epoch
        return found

    def _left(self) -> dict[str, Any]:
        end, found = time.monotonic() + 30.0, dict[str, Any]()
        while time.monotonic() < end:
            found = {**in_cluster(self.site.address), "files": in_folder(self.results)}
            if not any(found.values()):
                break
            time.sleep(0.5)
        return {name: value for name, value in found.items() if value}

    def faults(self) -> list[str]:
        """What is not as it would be without a kill."""
        self.logs.read()
        faults = [f"left: {name}: {value}" for name, value in self.left.items()]
        faults += [
            f"stored fold was written again: {path.name}"
            for path, written in self.stored.items()
            if (path / RECORD_FILE).stat().st_mtime_ns != written
        ]
        for path, written in self.stored.items():
            for at, key in self.logs.starts:
                if key == path.name and at > written / 1e9:
                    faults.append(f"stored fold was started again: {key}")
        for kill in self.kills:
            for at, key, epoch, _ in self.logs.evaluations:
                if at > kill.at and epoch <= kill.checkpoints.get(key, 0.0):
                    faults.append(f"epoch {epoch} of {key} was in a checkpoint before")
        return faults + self._different()

    def _different(self) -> list[str]:
        """Trials whose predictions or scores are not those of an undisturbed training."""
        folder = StudyFolder.open(STUDY, self.results)
        rows, faults = folder.rows(), list[str]()
        finished = folder.finished_trials()
        if sorted(len(trial.keys) for trial in finished) != [2] * len(finished):
            faults.append("a trial lacks folds")
        keys = {tuple(trial.keys.values()) for trial in finished}
        n_points = len(
            yaml.safe_load((self.base / "space.yaml").read_text())["parameters"][
                "training.learning_rate"
            ]["values"]
        )
        if not len(keys) == len(finished) == n_points:
            faults.append(
                f"{len(finished)} trials with {len(keys)} experiments for {n_points} points"
            )
        results = self.base / "undisturbed"
        # Only their learning rates differ.
        prepared = prepare(self.base / "data", finished[0].experiment, results)
        for trial in finished:
            tasks = plan_folds(trial.experiment, prepared, results, Placement(world_size=1))
            InProcessRunner(device="cpu").run(tasks, lambda record: None)
            expected = collect(tasks, trained=[0, 1])
            try:
                assert [task.key for task in tasks] == list(trial.keys.values())
                oof = trial.oof(rows)
                pd.testing.assert_frame_equal(oof, expected.oof[oof.columns], check_exact=True)
                assert expected.scores == trial.scores
            except AssertionError as error:
                faults.append(f"trial {trial.number:04d} differs: {error}")
        file = folder.path / "leaderboard.csv"
        board = pd.read_csv(file, dtype={"trial": str})
        complete = board[board["state"] == "complete"]
        scores = {f"{trial.number:04d}": trial.scores["kl_10"] for trial in finished}
        shown = dict(zip(complete["trial"], complete["kl_10"], strict=True))
        # The file has ten digits.
        if shown != {number: float(f"{score:.10g}") for number, score in scores.items()}:
            faults.append(f"the leaderboard has other scores: {scores} and {complete}")
        return faults


def table(chaos: Chaos) -> str:
    lines = ["| kill | seconds to the next step | outcome |", "|---|---|---|"]
    for number, kill in enumerate(chaos.kills):
        seconds = "none was left" if kill.seconds is None else f"{kill.seconds:.1f}"
        outcome = "command started again" if kill.kind in ("study", "head") else "went on"
        lines.append(f"| {number + 1} {kill.kind} | {seconds} | {outcome} |")
    lines += ["", "| killed | times | median s | most s | goal s |", "|---|---|---|---|---|"]
    for kind in KINDS:
        found = [kill.seconds for kill in chaos.kills if kill.kind == kind and kill.seconds]
        n_times = sum(kill.kind == kind for kill in chaos.kills)
        if found:
            middle, most = statistics.median(found), max(found)
            lines.append(f"| {kind} | {n_times} | {middle:.1f} | {most:.1f} | {GOALS_S[kind]:g} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--folder", type=Path, help="kept afterwards; must not exist")
    args = parser.parse_args()
    draws = random.Random(args.seed)
    if args.short:
        args.trials, args.epochs = 2, 10
        # The loss of a node is in tests of its own.
        kinds = ["worker", "worker", "controller", "trial", "study", "head"]
    else:
        # Each kind about equally often.
        kinds = [KINDS[number % len(KINDS)] for number in range(args.kills)]
    draws.shuffle(kinds)
    with tempfile.TemporaryDirectory() as base:
        if args.folder:
            args.folder.mkdir(parents=True)
        chaos = Chaos(args.folder or Path(base), kinds, args.trials, args.epochs)
        began = time.monotonic()
        chaos.run()
        seconds = time.monotonic() - began
        faults = chaos.faults()
    print(table(chaos))
    print(f"\n{len(chaos.kills)} kills, {chaos.n_starts} starts of the command, {seconds:.0f} s")
    most = {kind: goal * (LATE_SHORT if args.short else 1.0) for kind, goal in GOALS_S.items()}
    late = [k for k in chaos.kills if k.seconds is not None and k.seconds > most[k.kind]]
    faults += [f"{kill.kind}: {kill.seconds:.0f} s to the next step" for kill in late]
    print("\n".join(faults) or "equal to the undisturbed training; nothing is left")
    return 1 if faults or len(chaos.kills) < len(kinds) else 0


if __name__ == "__main__":
    raise SystemExit(main())
