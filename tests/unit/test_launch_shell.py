"""Shell inside launch files: checked by shellcheck, and the Slurm script run with stand-ins."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from hms_ray.distributed.launch.targets import launch_file
from tests.launch_files import YAML_EXAMPLES, comments_of, data_of, text_of, texts_in

SHELLCHECK = shutil.which("shellcheck")
TIMEOUT_S = 20.0
JOB = "1234"

# Starts its command on this machine, as srun does on the first node.
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
# Runs the words after --, as the head of symmetric-run does, and notes signals of its own.
RAY = """#!/usr/bin/env bash
trap 'echo "ray got TERM" >> "$RECORD"' TERM
words=$*
echo "ray ${words//$'\\n'/ }" >> "$RECORD"
echo "token $(stat -c %a "$RAY_AUTH_TOKEN_PATH") $RAY_AUTH_MODE" >> "$RECORD"
while [ "$1" != -- ]; do shift; done
shift
"$@" &
child=$!
while kill -0 "$child" 2> /dev/null; do wait "$child"; status=$?; done
exit "$status"
"""
# A study: ends by itself with a given status, or waits for SIGTERM.
STUDY = """#!/usr/bin/env bash
echo "study $*" >> "$RECORD"
trap 'echo "study got TERM" >> "$RECORD"; exit 143' TERM
if [ -n "${STUDY_STATUS:-}" ]; then exit "$STUDY_STATUS"; fi
echo "study waits" >> "$RECORD"
while :; do sleep 0.05; done
"""
SCONTROL = """#!/usr/bin/env bash
echo "scontrol $*" >> "$RECORD"
"""
HOSTNAME = """#!/usr/bin/env bash
echo "10.1.2.3 172.17.0.1"
"""


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("target", ["slurm", *YAML_EXAMPLES])
def test_shellcheck_finds_nothing(target: str) -> None:
    if target == "slurm":
        script = text_of(target)
    else:
        commands = [line for line in comments_of(target).splitlines() if line.startswith("  ")]
        texts = [text for text in texts_in(data_of(target)) if " " in text]
        script = "\n".join(["#!/usr/bin/env bash", *shell_comments(commands), *texts]) + "\n"
    done = subprocess.run(
        # RAY_HEAD_IP is set by Ray; a tilde in an option is expanded by Ray too.
        [str(SHELLCHECK), "--exclude=SC2154,SC2088", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stdout
    assert done.returncode == 0


def shell_comments(lines: list[str]) -> list[str]:
    """The commands among the comments on top."""
    programs = ("hms-ray", "ray", "kubectl", "export", "sbatch", "python3")
    found: list[str] = []
    for line in lines:
        going_on = bool(found) and found[-1].endswith("\\")
        if going_on or line.split()[0] in programs or line.strip().startswith("RAY_"):
            found.append(line.strip())
    return found


class Job:
    """The Slurm script as a running batch job."""

    def __init__(self, folder: Path, **variables: str) -> None:
        folder.mkdir(exist_ok=True)
        self.record = folder / "record"
        self.record.touch()
        programs = folder / "venv" / "bin"
        programs.mkdir(parents=True)
        stand_ins = {
            "srun": SRUN,
            "ray": RAY,
            "hms-ray": STUDY,
            "scontrol": SCONTROL,
            "hostname": HOSTNAME,
        }
        for name, text in stand_ins.items():
            (programs / name).write_text(text, encoding="utf-8")
            (programs / name).chmod(0o755)
        script = folder / "slurm.sh"
        script.write_text(
            launch_file("slurm", space="demo", gpus=4, gpus_per_machine=2, storage=str(folder)),
            encoding="utf-8",
        )
        self.run = folder / "slurm" / JOB
        self.process = subprocess.Popen(
            ["bash", str(script)],
            env={
                "PATH": os.environ["PATH"],
                "SLURM_JOB_ID": JOB,
                "SLURM_JOB_NUM_NODES": "2",
                "RECORD": str(self.record),
                **variables,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    @property
    def records(self) -> list[str]:
        return self.record.read_text(encoding="utf-8").splitlines()

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + TIMEOUT_S
        while line not in self.records:
            assert time.monotonic() < end, (self.records, self.process.poll())
            time.sleep(0.02)

    def ended(self) -> tuple[int, str]:
        """Exit status and output."""
        output, _ = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, output


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts the script as a job of this folder."""
    folder = tmp_path / "shared"
    jobs: list[Job] = []

    def call(**variables: str) -> Job:
        jobs.append(Job(folder, **variables))
        return jobs[-1]

    yield call
    for job in jobs:
        with suppress(ProcessLookupError):
            os.killpg(job.process.pid, signal.SIGKILL)
        job.process.wait()


def test_announced_end_stops_the_study_alone_and_queues_the_job_again(
    start: Callable[..., Job],
) -> None:
    job = start()
    job.wait_for("study waits")
    # B: in --signal: the batch shell alone gets it.
    os.kill(job.process.pid, signal.SIGUSR1)
    status, output = job.ended()
    assert status == 143, output
    assert "ray got TERM" not in job.records
    assert job.records[-2:] == ["study got TERM", f"scontrol requeue {JOB}"]
    assert not running_in(job)


def test_the_script_starts_ray_on_all_nodes_with_a_token_of_its_own(
    start: Callable[..., Job],
) -> None:
    job = start(STUDY_STATUS="0")
    status, output = job.ended()
    assert status == 0, output
    ray, token, study = job.records
    assert ray.startswith("ray symmetric-run --address 10.1.2.3:21234 --min-nodes 2 --num-cpus=2")
    assert " --num-gpus=2 " in ray
    assert token == "token 600 token"
    storage = job.run.parents[1]
    assert study.startswith(f"study sweep demo --data {storage}/data --results {storage}/results ")
    assert len((job.run / "auth_token").read_text().strip()) == 64
    assert (job.run / "auth_token").read_text().strip() not in output


@pytest.mark.parametrize(
    ("ended", "restarts", "again"),
    [
        ("0", "0", False),
        ("130", "0", False),
        ("143", "99", True),
        ("1", "0", True),
        ("137", "9", True),
        ("1", "10", False),
    ],
)
def test_what_a_new_start_can_change_is_queued_again(
    start: Callable[..., Job], ended: str, restarts: str, again: bool
) -> None:
    job = start(STUDY_STATUS=ended, SLURM_RESTART_COUNT=restarts)
    status, output = job.ended()
    assert status == int(ended), output
    assert (f"scontrol requeue {JOB}" in job.records) == again


def test_a_token_of_the_first_start_is_kept(start: Callable[..., Job], tmp_path: Path) -> None:
    run = tmp_path / "shared" / "slurm" / JOB
    run.mkdir(parents=True)
    (run / "auth_token").write_text("kept\n")
    (run / "study.status").write_text("0\n")
    status, output = start(STUDY_STATUS="3").ended()
    assert status == 3, output
    assert (run / "auth_token").read_text() == "kept\n"
    assert (run / "auth_token").stat().st_mode & 0o777 == 0o600


def running_in(job: Job) -> list[str]:
    """Processes of the job's session that still run."""
    done = subprocess.run(
        ["ps", "-o", "args=", "--sid", str(job.process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()
