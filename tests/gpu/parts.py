"""The parts of ``run.sh``: each measures one thing on a GPU and prints rows of the table.

Run: python -m tests.gpu.parts NAME [--dry]
"""

import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

from tests.gpu.run import ROW


class WithoutRay(MetaPathFinder):
    """Refuses to import what a bare GPU machine does not have, also where it is installed."""

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        """Raises for Ray and Optuna."""
        if name.split(".")[0] in ("ray", "optuna"):
            raise ModuleNotFoundError(f"{name} must not be needed here", name=name)


sys.meta_path.insert(0, WithoutRay())

import numpy as np  # noqa: E402
import torch  # noqa: E402

from hms_ray.train import compiled as compiled_module  # noqa: E402
from hms_ray.train.compiled import compiling  # noqa: E402
from hms_ray.train.process import Process  # noqa: E402
from hms_ray.train.torch_settings import torch_settings  # noqa: E402
from hms_ray.train.windows import Resident  # noqa: E402
from tests.benchmarks.loop_rate import BATCH, Race, fold_data, ratios  # noqa: E402

COMPETITION_GB = 3.4
"""Packed Kaggle spectrograms of the whole competition."""


GPU = torch.device("cuda", 0)


@dataclass(frozen=True)
class Size:
    """How much a part does.

    Attributes:
        device: of the benchmark.
        model: name in timm.
        block: of the downsampling.
        n_steps: per turn.
        pairs: of turns.
        n_rows: of the fold.
        at_once: folds at once.
        together_s: seconds that folds are trained at once.
        pack_gb: size of the uploaded pack.
        precisions: compared ones.
    """

    device: torch.device = GPU
    model: str = "efficientnet_b0"
    block: tuple[int, int] = (1, 1)
    n_steps: int = 30
    pairs: int = 4
    n_rows: int = 3000
    at_once: tuple[int, ...] = (1, 4)
    together_s: float = 10.0
    pack_gb: float = 1.0
    precisions: tuple[str, ...] = ("float32", "bfloat16", "float16")


DRY = Size(
    device=torch.device("cpu"),
    model="test_efficientnet",
    block=(4, 4),
    n_steps=1,
    pairs=1,
    n_rows=100,
    at_once=(1, 2),
    together_s=0.2,
    pack_gb=0.004,
    precisions=("float32", "bfloat16"),
)


def row(case: str, images_per_s: float | None = None, note: str = "") -> None:
    """Prints a row of the table."""
    values = {"case": case, "images_per_s": images_per_s, "note": note}
    print(f"{ROW}{json.dumps(values)}", flush=True)


def race_row(case: str, size: Size, note: str = "", **training: Any) -> None:
    """Prints the loop's rate beside that of the fixed batch, trained with some settings."""
    with ExitStack() as settings:
        race, first_s = _ready(settings, size, training)
        loop, bare, found = ratios(race, size.n_steps, size.pairs, fresh=False)
        n_images = size.n_steps * BATCH
        row(
            case,
            n_images / statistics.median(loop),
            f"{statistics.median(found):.2f} ({min(found):.2f}-{max(found):.2f}) of the "
            f"{n_images / statistics.median(bare):,.0f} of a fixed batch; {race.precision}; first "
            f"steps {first_s:.1f} s{_memory(size.device)}{note}",
        )


def _ready(settings: ExitStack, size: Size, training: dict[str, Any]) -> tuple[Race, float]:
    """A race whose memory is allocated and whose network is compiled, and the seconds of that."""
    deterministic = training.get("deterministic", True)
    settings.enter_context(compiling(training.get("compile", "off"), size.model))
    settings.enter_context(torch_settings(deterministic=deterministic))
    data = fold_data(size.n_rows)
    race = Race(size.model, size.block, data, Process(device=size.device), **training)
    if size.device.type == "cuda":
        # Of an earlier case.
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(size.device)
    began = time.perf_counter()
    for _ in range(2):
        race.bare(min(2, size.n_steps))
        race.loop(min(2, size.n_steps))
    return race, time.perf_counter() - began


def _memory(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    return f"; {torch.cuda.max_memory_reserved(device) / 1e9:.1f} GB reserved"


def tests(size: Size) -> int:
    """The tests with the marker ``gpu``."""
    import pytest

    return int(pytest.main(["-q", "-p", "no:cacheprovider", "-m", "gpu", "tests/gpu"]))


def loop(size: Size) -> None:
    """The loop against a fixed batch, eager; and evaluations."""
    with ExitStack() as settings:
        race, _ = _ready(settings, size, {})
        n_rows = size.n_steps * BATCH
        race.evaluation(n_rows)
        seconds = [race.evaluation(n_rows) for _ in range(size.pairs)]
        row("evaluation", n_rows / statistics.median(seconds), "forward only, eager")
    race_row("eager", size)


def compile_default(size: Size) -> None:
    """Compiled, and compiled again as in the next fold of the process."""
    for case in ("compile: default", "again, in the next fold"):
        race_row(case, size, compile="default")


def compile_reduce_overhead(size: Size) -> None:
    """Compiled, with CUDA graphs."""
    race_row("compile: reduce-overhead", size, compile="reduce-overhead")


def precision(size: Size) -> None:
    """Every precision; float32 without TF32."""
    for name in size.precisions:
        race_row(name, size, precision=name)


def deterministic(size: Size) -> None:
    """Deterministic algorithms, and the fastest ones."""
    for value in (True, False):
        race_row(f"deterministic: {str(value).lower()}", size, deterministic=value)


def pack_upload(size: Size) -> None:
    """From a memory map, in the page cache, to the device."""
    data = fold_data(50)
    n_values = data.sources["kaggle"].pack.values.shape[1]
    n_positions = int(size.pack_gb * 1e9 / 2 / n_values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "values.npy"
        np.save(file, np.ones((n_positions, n_values), dtype=np.float16))

        class Pack:
            values = np.load(file, mmap_mode="c")
            window, n_frequencies, panels = 300, 100, ("LL", "RL", "LP", "RP")

        seconds = []
        for _ in range(3):
            began = time.perf_counter()
            source: Any = Resident(Pack, size.device)  # type: ignore[arg-type]
            if size.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
            del source
    rate = size.pack_gb / statistics.median(seconds)
    row(
        f"pack of {size.pack_gb:g} GB",
        None,
        f"{rate:.1f} GB/s ({min(seconds):.2f}-{max(seconds):.2f} s); {COMPETITION_GB:g} GB of the "
        f"competition in {COMPETITION_GB / rate:.1f} s",
    )


def folds_at_once(size: Size) -> None:
    """One process, and several that share the device."""
    # CUDA needs new processes; those of a dry run need not import everything again.
    method = "fork" if size.device.type == "cpu" else "spawn"
    context: Any = multiprocessing.get_context(method)
    alone = None
    for n_folds in size.at_once:
        start, found = context.Barrier(n_folds), context.Queue()
        processes = [
            context.Process(target=_one_fold, args=(size, start, found)) for _ in range(n_folds)
        ]
        for process in processes:
            process.start()
        # Longer than any start takes; the part's own limit ends it before.
        results = [found.get(timeout=300) for _ in processes]
        for process in processes:
            process.join()
        rate = sum(images / seconds for images, seconds, _ in results)
        alone = alone or rate
        memory = sum(reserved for *_, reserved in results) / 1e9
        note = f"{rate / alone:.2f} times one fold; {memory:.1f} GB reserved by all"
        row(f"{n_folds} at once", rate, note)


def _one_fold(size: Size, start: Any, found: Any) -> None:
    with ExitStack() as settings:
        torch.set_num_threads(1)
        race, _ = _ready(settings, size, {})
        start.wait()
        began, images = time.perf_counter(), 0
        while time.perf_counter() - began < size.together_s:
            race.loop(size.n_steps)
            images += size.n_steps * BATCH
        seconds = time.perf_counter() - began
        on_gpu = size.device.type == "cuda"
        found.put((images, seconds, torch.cuda.max_memory_reserved() if on_gpu else 0))


def machine(size: Size) -> int:
    """Prints the device; status 2 without one."""
    if size.device.type == "cuda":
        if not torch.cuda.is_available():
            print("No CUDA device on this machine; --dry tests the script.", file=sys.stderr)
            return 2
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        name = torch.cuda.get_device_name(size.device)
        print(f"{name}, CUDA {torch.version.cuda}, cuDNN {cudnn}")
    else:
        print("dry run on a CPU, whose figures mean nothing")
    return 0


PARTS: dict[str, Callable[[Size], int | None]] = {
    part.__name__: part
    for part in (
        *(machine, tests, loop, compile_default, compile_reduce_overhead),
        *(folds_at_once, pack_upload, precision, deterministic),
    )
}


def main() -> int:
    name, *options = sys.argv[1:]
    dry = options == ["--dry"]
    if dry:
        # The last step of the compiler would start g++ for half a minute.
        compiled_module.BACKEND = "aot_eager"
    torch.set_num_threads(1)
    return PARTS[name](DRY if dry else Size()) or 0


if __name__ == "__main__":
    sys.exit(main())
