"""Packers in processes of their own that are killed, and packs compared byte by byte."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from hms_ray.pack.store import Pack

ROOT = Path(__file__).parents[1]

BETWEEN_SHARDS = """
def progress(done, total):
    print(done, flush=True)
    if done == 2:
        time.sleep(300)
"""
WITHIN_A_SHARD = """
write = os.pwrite
def torn(fd, data, at):
    if len(data) < 1_000 or at < 2 * 200_000:
        return write(fd, data, at)
    write(fd, data[: len(data) // 2], at)
    print(2, flush=True)
    time.sleep(300)
os.pwrite = torn
"""
_PACK = """
import os, sys, time
import numpy as np
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.pack import plan
from hms_ray.pack.build import build_pack
from hms_ray.pack.sources import KAGGLE, eeg_source
from hms_ray.pack.windows import Windows
plan.SHARD_ITEMS = 1
progress = None
{moment}
if __name__ == "__main__":
    pack = build_pack(sys.argv[1], sys.argv[2], {what}, workers=1, progress=progress)
    print(pack.fingerprint)
"""


def start_packer(
    data: Path, packs: Path, moment: str = "", what: str = "KAGGLE"
) -> subprocess.Popen[str]:
    """A packer with one item per shard; ``what`` is code for source and windows."""
    script = _PACK.format(moment=moment, what=what)
    command = [sys.executable, "-c", script, str(data), str(packs)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill_packer(data: Path, packs: Path, moment: str, what: str = "KAGGLE") -> None:
    """Starts a packer and kills it after two finished shards."""
    with start_packer(data, packs, moment, what) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == "2":
                break
        process.send_signal(signal.SIGKILL)


def content(pack: Pack) -> dict[str, bytes]:
    """Name of each file -> its bytes."""
    return {file.name: file.read_bytes() for file in pack.path.iterdir()}
