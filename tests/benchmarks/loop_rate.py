"""Images per second of the training loop, compared with the same model on one fixed batch.

Both do forward, backward and the optimiser's step in the same process; the loop also draws
batches, gathers windows, makes images, applies CutMix, weights the loss and steps the
schedule. They alternate, so that a busy machine slows both; a ratio is of one pair of turns.
Goal: 0.95.

Downsampled windows are cached in the first epoch, so it is timed separately: `first` is the
ratio of an epoch that makes all its windows, `later` that of all others. A GPU has no such cache:
`bash tests/gpu/run.sh` measures there.

Run: python -m tests.benchmarks.loop_rate [MODEL:BLOCK ...], such as efficientnet_b0.ra_in1k:4x4
"""

import statistics
import sys
import time
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import Experiment, ModelConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.config.training import TrainingConfig
from hms_ray.train.batches import FoldData, SourceRows, plan_epoch
from hms_ray.train.compiled import compiled
from hms_ray.train.downsampled import cache_budget
from hms_ray.train.images import Images
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.score import autocast, predict_rows, resolve_precision
from hms_ray.train.stages import make_optimiser, make_schedule
from hms_ray.train.step import Step
from hms_ray.train.windows import Resident
from tests.fold_data import example_pack

BATCH = 32
# Model, block, steps per turn, pairs of turns.
CASES = (
    ("test_efficientnet", (4, 4), 8, 15),
    ("efficientnet_b0.ra_in1k", (4, 4), 1, 9),
    ("efficientnet_b0.ra_in1k", (1, 1), 1, 3),
)


def fold_data(n_rows: int = 3000) -> FoldData:
    rng = np.random.default_rng(0)
    votes = rng.multinomial(8, np.ones(6) / 6, size=n_rows)
    pack: Any = example_pack(20 * n_rows, window=300, n_frequencies=100)
    return FoldData(
        sources={"kaggle": SourceRows(pack, rng.integers(0, 20 * n_rows - 300, n_rows))},
        targets=votes / 8,
        total_votes=votes.sum(1),
        train=np.arange(n_rows - 10),
        valid=np.arange(n_rows - 10, n_rows),
    )


class Race:
    """One model, trained by the loop's own parts or on one fixed batch.

    Args:
        model: name in timm.
        block: of the downsampling.
        data: rows and a pack.
        process: its device trains.
        training: further fields of ``TrainingConfig``, such as ``precision`` and ``compile``.
    """

    def __init__(
        self,
        model: str,
        block: tuple[int, int],
        data: FoldData,
        process: Process | None = None,
        **training: Any,
    ) -> None:
        augment = AugmentConfig(cutmix=CutMixConfig())
        self.training = TrainingConfig(batch_size=BATCH, augment=augment, **training)
        self.process, self.data = process or Process(), data
        device = self.process.device
        (self.stage,) = self.training.resolved_stages()
        self.precision = resolve_precision(self.training.precision, device)
        self.windows = {name: Resident(rows.pack, device) for name, rows in data.sources.items()}
        experiment = Experiment(
            input=InputConfig(downsample=block), model=ModelConfig(name=model, pretrained=False)
        )
        self.inputs = experiment.input
        self.images = self.fresh_images()
        torch.manual_seed(0)
        self.model = build_model(experiment.model, self.images.size)
        self.model = self.model.to(device).to(memory_format=torch.channels_last)
        self.network = compiled(
            self.model, self.training.compile, deterministic=self.training.deterministic
        )
        self.optimiser = make_optimiser(self.model, self.training, self.stage)
        schedule = make_schedule(self.optimiser, self.training, self.stage, 10**6)
        self.step = Step(self.network, self.process, self.precision, self.optimiser, schedule)
        self.fixed = next(iter(self.images.for_rows([data.train[:BATCH]])))
        self.targets = torch.from_numpy(data.targets[:BATCH]).to(device, torch.float32)
        self.epoch = 0

    def fresh_images(self) -> Images:
        """Images with an empty cache."""
        cache_bytes = cache_budget(self.process.device)
        return Images(self.data, self.windows, self.inputs, torch.float32, cache_bytes)

    def loop(self, n_steps: int) -> float:
        """Seconds of the loop's steps, drawing of the epoch included."""
        began = self._now()
        batches = plan_epoch(
            self.data,
            self.data.train[: n_steps * BATCH],
            self.training,
            self.stage,
            self.images.joined,
            (0, 0, self.epoch),
            self.process,
        )
        for batch, image in zip(batches, self.images.for_training(batches), strict=True):
            self.step(batch, image)
        self.epoch += 1
        return self._now() - began

    def bare(self, n_steps: int) -> float:
        """Seconds of as many steps on one fixed batch."""
        began, scaler = self._now(), self.step.scaler
        for _ in range(n_steps):
            with autocast(self.precision, self.process.device):
                logits = self.network(self.fixed)
            log_p = F.log_softmax(logits.float(), dim=1)
            loss = F.kl_div(log_p, self.targets, reduction="batchmean")
            self.optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            scaler.step(self.optimiser)
            scaler.update()
        return self._now() - began

    def evaluation(self, n_rows: int) -> float:
        """Seconds to predict some rows."""
        began = self._now()
        rows = self.data.train[:n_rows]
        predict_rows(self.model, self.images, rows, BATCH, self.precision, self.process)
        return self._now() - began

    def _now(self) -> float:
        """The time when all work that was queued on the device is done."""
        if self.process.device.type == "cuda":
            torch.cuda.synchronize(self.process.device)
        return time.perf_counter()


def ratios(race: Race, n_steps: int, pairs: int, fresh: bool) -> tuple[list[float], ...]:
    """Seconds of the loop and of the fixed batch, and their ratio, per pair of turns."""
    bare, loop = [], []
    for pair in range(pairs):
        if fresh:
            race.images = race.fresh_images()
        sides = (bare, race.bare), (loop, race.loop)
        for seconds, side in sides if pair % 2 else reversed(sides):
            seconds.append(side(n_steps))
    return loop, bare, [b / a for a, b in zip(loop, bare, strict=True)]


def main() -> None:
    torch.set_num_threads(1)
    wanted = sys.argv[1:]
    data = fold_data()
    print(f"{'model':20} {'image':>9} {'epoch':>5} {'bare/s':>8} {'loop/s':>8} {'ratio':>6}  range")
    for model, block, n_steps, pairs in CASES:
        if wanted and f"{model}:{block[0]}x{block[1]}" not in wanted:
            continue
        race = Race(model, block, data)
        race.bare(1)
        race.loop(1)
        for epoch in ("first", "later"):
            if epoch == "later":
                race.loop(n_steps)
            loop, bare, found = ratios(race, n_steps, pairs, fresh=epoch == "first")
            n = n_steps * BATCH
            size = f"{race.images.size[0]}x{race.images.size[1]}"
            print(
                f"{model:20} {size:>9} {epoch:>5} {n / statistics.median(bare):8.1f} "
                f"{n / statistics.median(loop):8.1f} {statistics.median(found):6.3f}  "
                f"{min(found):.3f}-{max(found):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
