"""Speed and memory of packing; reuse, opening, rows and folds on tables of the real size.

python -m tests.benchmarks.pack_speed [RECORDINGS]       the table
python -m tests.benchmarks.pack_speed --ratios 64        packing, relative to its parts
python -m tests.benchmarks.pack_speed --memory 200 2000  peak resident memory
python -m tests.benchmarks.pack_speed --processes 2000   two workers, relative to one
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from hms_ray.competition.check import check_folder
from hms_ray.competition.read import read_eeg, read_spectrogram
from hms_ray.competition.rows import make_rows
from hms_ray.competition.schema import CLASSES, ELECTRODES, SPECTROGRAM_COLUMNS, VOTE_COLUMNS
from hms_ray.config.eeg_recipes import EegRecipe
from hms_ray.config.pair_recipes import PairsRecipe, SignalRecipe
from hms_ray.dataset.folds import make_folds
from hms_ray.pack.build import build_pack
from hms_ray.pack.sources import PackSource, eeg_source, log_power
from hms_ray.pack.store import open_pack
from hms_ray.pack.verify import verify_pack
from hms_ray.pack.windows import Windows
from hms_ray.signal.windows import make_windows
from tests.competition_folder import eeg_values, write_competition_folder, write_eeg


def timed(what: str, call: Callable[[], object], note: str = "") -> None:
    start = time.perf_counter()
    call()
    print(f"{what:<44}{time.perf_counter() - start:>10.3f} s  {note}")


def real_sized_labels() -> pd.DataFrame:
    """Random labels with as many rows, EEGs and patients as the real table."""
    n = 106_800
    rng = np.random.default_rng(0)
    votes = rng.integers(0, 3, (n, 6))
    votes[:, 0] += 1
    labels = pd.DataFrame(votes, columns=list(VOTE_COLUMNS))
    labels["eeg_id"] = np.sort(rng.integers(0, 17_089, n))
    labels["eeg_sub_id"] = labels.groupby("eeg_id").cumcount()
    labels["spectrogram_id"] = labels["eeg_id"] * 11_138 // 17_089
    labels["patient_id"] = labels["eeg_id"] * 1_950 // 17_089
    for name in ("eeg_label_offset_seconds", "spectrogram_label_offset_seconds"):
        labels[name] = 2.0 * labels["eeg_sub_id"]
    labels["expert_consensus"] = np.array(CLASSES)[votes.argmax(axis=1)]
    return labels


def table(n_recordings: int) -> None:
    """Packing, reuse, opening, checking; rows and folds of tables of the real size."""
    with tempfile.TemporaryDirectory() as place:
        folder = write_competition_folder(
            Path(place) / "data", n_recordings, eegs_per_patient=1, eegs=False
        )
        start = time.perf_counter()
        pack = build_pack(folder, Path(place) / "packed")
        taken = time.perf_counter() - start
        rate = pack.values.nbytes / 1e6 / taken
        print(f"{f'pack {len(pack.recordings)} recordings':<44}{taken:>10.3f} s  {rate:.0f} MB/s")
        timed("reuse", lambda: build_pack(folder, Path(place) / "packed"))
        timed("open", lambda: open_pack(pack.path))
        timed("verify", lambda: verify_pack(pack.path))
        timed("check, footers only", lambda: check_folder(folder, signals=False))
        timed("check, all values", lambda: check_folder(folder))
    labels = real_sized_labels()
    for unit in ("eeg_votes", "eeg", "label"):
        timed(f"rows of 106,800 label rows, {unit}", lambda u=unit: make_rows(labels, u))  # type: ignore[misc]
    rows = make_rows(labels, "eeg")
    timed("five folds of 17,089 rows", lambda: make_folds(rows, 5))


def write_eegs(folder: Path, n: int) -> Windows:
    """Writes N EEG files of one minute, eight of them distinct; returns a window of each."""
    directory = folder / "train_eegs"
    directory.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(n):
        file = directory / f"{number}.parquet"
        if number < 8:
            write_eeg(file, eeg_values(rng, 12_000, gap=number == 3))
        else:
            os.link(directory / f"{number % 8}.parquet", file)
    return Windows(np.arange(n), np.arange(n) % 11 * 200)


def read_plainly(file: Path, columns: tuple[str, ...]) -> np.ndarray:
    """A file's columns as one array, with pyarrow alone."""
    read = pq.read_table(file, columns=list(columns), use_threads=False)
    (batch,) = read.select(list(columns)).combine_chunks().to_batches()
    return batch.to_tensor(null_to_nan=True, row_major=True).to_numpy()


def only_make_spectrograms(folder: Path, read: Callable[[Path], np.ndarray]) -> None:
    """Reads every file and makes its array, without storing it."""
    for file in sorted((folder / "train_spectrograms").iterdir()):
        log_power(read(file))


def only_make_windows(
    folder: Path, windows: Windows, read: Callable[[Path], np.ndarray], recipe: SignalRecipe
) -> None:
    """Reads every file and makes its window, without storing it."""
    for number, start in zip(windows.eeg_ids.tolist(), windows.starts.tolist(), strict=True):
        eeg = read(folder / "train_eegs" / f"{number}.parquet")
        window = np.ascontiguousarray(eeg[start : start + 10_000])[None]
        make_windows(torch.from_numpy(window), recipe).half()


def compare(what: str, pack: Callable[[], object], alone: dict[str, Callable[[], object]]) -> None:
    """Prints packing relative to its parts, in wall and CPU seconds, medians of six turns."""
    seconds: dict[str, list[tuple[float, float]]] = {}
    for turn in range(7):
        calls = list({"pack": pack, **alone}.items())
        for name, call in calls[:: 1 if turn % 2 else -1]:
            wall, cpu = time.perf_counter(), time.process_time()
            call()
            taken = (time.perf_counter() - wall, time.process_time() - cpu)
            if turn:  # the first turn warms the caches
                seconds.setdefault(name, []).append(taken)
    wall, cpu = np.median(seconds["pack"], axis=0)
    print(f"{what}: packed in {wall:.2f} s ({cpu:.2f} s of CPU)")
    for name in alone:
        ratio = np.median(np.array(seconds["pack"]) / np.array(seconds[name]), axis=0)
        print(f"  over {name:<52}{ratio[0]:>7.3f} wall {ratio[1]:>7.3f} CPU")


def ratios(n: int) -> None:
    """Packing relative to reading files and making arrays, one thread each."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder, packs = Path(place) / "data", Path(place) / "packs"
        write_competition_folder(folder, n, eegs_per_patient=1, eegs=False)
        compare(
            f"{n} spectrograms",
            lambda: build_pack(folder, packs, workers=1, rebuild=True),
            {
                "pyarrow's read_table and log": lambda: only_make_spectrograms(
                    folder, lambda file: read_plainly(file, SPECTROGRAM_COLUMNS)
                ),
                "this package's reader and log": lambda: only_make_spectrograms(
                    folder, read_spectrogram
                ),
            },
        )
        eegs = Path(place) / "eegs"
        windows = write_eegs(eegs, n)
        zoomed = PairsRecipe(centre_s=14, n_fft=2048, window_samples=32, hop_samples=8)
        for what, source in (
            ("mel", eeg_source("eeg", EegRecipe())),
            ("mel per pair", eeg_source("pairs", PairsRecipe())),
            ("magnified mel per pair", eeg_source("pairs", zoomed)),
            ("stft per pair", eeg_source("pairs", PairsRecipe(kind="stft", midline=True))),
        ):
            compare_windows(f"{n} windows of {what}", eegs, packs, windows, source)


def compare_windows(
    what: str, eegs: Path, packs: Path, windows: Windows, source: PackSource
) -> None:
    """Packing relative to reading EEGs and making windows."""
    recipe = source.eeg_recipe
    assert recipe is not None
    compare(
        what,
        lambda: build_pack(eegs, packs, source, windows, workers=1, rebuild=True),
        {
            "pyarrow's read_table and windows": lambda: only_make_windows(
                eegs, windows, lambda file: read_plainly(file, ELECTRODES), recipe
            ),
            "this package's reader and windows": lambda: only_make_windows(
                eegs, windows, read_eeg, recipe
            ),
        },
    )


PACK_EEGS = """
import sys, time
if __name__ == "__main__":
    # Imported here, as in the command: its workers import only what they need.
    import numpy as np
    from hms_ray.config.eeg_recipes import EegRecipe
    from hms_ray.pack.build import build_pack
    from hms_ray.pack.sources import eeg_source
    from hms_ray.pack.windows import Windows
    n, workers = int(sys.argv[3]), int(sys.argv[4])
    windows = Windows(np.arange(n), np.arange(n) % 11 * 200)
    source = eeg_source("eeg", EegRecipe())
    start = time.perf_counter()
    build_pack(sys.argv[1], sys.argv[2], source, windows, workers=workers, rebuild=True)
    print(time.perf_counter() - start)
"""


def pack_in_a_process(
    folder: Path, packs: Path, n: int, workers: int, watched: bool = False
) -> tuple[float, int]:
    """Seconds and, if ``watched``, peak resident bytes of a packing process and its children.

    Watching needs CPU time, which two workers on two cores do not leave.
    """
    script = packs.with_suffix(".py")
    script.write_text(PACK_EEGS)
    command = [sys.executable, str(script), str(folder), str(packs), str(n), str(workers)]
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        peak = 0
        while watched and process.poll() is None:
            peak = max(peak, resident_bytes(process.pid))
            time.sleep(0.05)
        assert process.stdout is not None
        return float(process.stdout.read()), peak


def resident_bytes(pid: int) -> int:
    """Proportional set size of a process and its descendants."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    kilobytes = [int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")]
    return 1024 * sum(kilobytes) + sum(map(resident_bytes, map(int, children)))


def memory(counts: list[int]) -> None:
    """Peak resident memory of packing with two workers."""
    with tempfile.TemporaryDirectory() as place:
        for n in counts:
            folder = Path(place) / f"eegs-{n}"
            write_eegs(folder, n)
            taken, peak = pack_in_a_process(folder, Path(place) / f"packs-{n}", n, 2, watched=True)
            print(f"{n} EEGs, 2 workers: {taken:.1f} s, peak memory {peak / 1e6:,.0f} MB")


def processes(n: int, turns: int) -> None:
    """Compares two workers with one, in turn."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "eegs"
        write_eegs(folder, n)
        seconds = []
        for _ in range(turns):
            seconds.append([pack_in_a_process(folder, Path(place) / "p", n, k)[0] for k in (1, 2)])
            print(f"  one worker {seconds[-1][0]:.2f} s, two {seconds[-1][1]:.2f} s", flush=True)
        speedup = np.median([one / two for one, two in seconds])
        print(f"{n} EEGs: two workers are {speedup:.2f} times as fast as one, median of {turns}")


def main() -> None:
    """Prints the selected measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", nargs="?", type=int, default=300)
    parser.add_argument("--ratios", metavar="N", type=int)
    parser.add_argument("--memory", metavar="N", type=int, nargs="+")
    parser.add_argument("--processes", metavar="N", type=int)
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    if args.ratios:
        ratios(args.ratios)
    if args.memory:
        memory(args.memory)
    if args.processes:
        processes(args.processes, args.turns)
    if not (args.ratios or args.memory or args.processes):
        table(args.recordings)


if __name__ == "__main__":
    main()
