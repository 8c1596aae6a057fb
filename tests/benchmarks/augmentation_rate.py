"""Milliseconds per image of each augmentation, on one core.

Images: raw signals folded to 160 x 1,000, and two STFT windows of 18 pairs under each other
(504 x 464), in batches of 32 with every row augmented (probability 1). The time is that of a
batch with the augmentation minus that of the same batch without any, drawing included. Goal: at
most 0.5 ms an image each. Times are CPU times; medians and ranges over turns.

Run: python -m tests.benchmarks.augmentation_rate [TURNS] [FIELD ...]
"""

import statistics
import sys
import time

import torch

from hms_ray.config.augment_checks import augmentation_fault
from hms_ray.config.augmentation import AugmentConfig
from hms_ray.config.inputs import InputConfig
from hms_ray.config.training import TrainingConfig
from hms_ray.train.batches import FoldData, plan_epoch
from hms_ray.train.images import Images
from hms_ray.train.process import Process
from tests.augmentations import EACH
from tests.fold_data import open_images, sources_of

BATCH, N_ROWS = 32, 67
RAW = {"rate_hz": 200, "midline": False, "rows": 10}
STFT = {"kind": "stft", "window_samples": 145, "midline": True}
INPUTS = {
    "160 x 1,000 raw": {"views": ["raw signals"], "raw": RAW},
    "504 x 464 stft": {
        "views": ["pairs.wide over pairs.centre panels"],
        "recipes": {
            "pairs": {
                "wide": {**STFT, "centre_s": 30, "hop_samples": 12, "n_frames": 464},
                "centre": {**STFT, "centre_s": 10, "hop_samples": 4, "margin_s": 5},
            }
        },
    },
}


def epoch_s(images: Images, data: FoldData, augment: AugmentConfig) -> float:
    """CPU seconds per image of an epoch of two full batches."""
    training = TrainingConfig(batch_size=BATCH, augment=augment)
    (stage,) = training.resolved_stages()
    began = time.process_time()
    batches = plan_epoch(data, data.train, training, stage, images.joined, (0, 0, 0), Process())
    for _ in images.for_training(batches):
        pass
    return (time.process_time() - began) / len(data.train)


def main() -> None:
    torch.set_num_threads(1)
    turns = int(sys.argv[1]) if len(sys.argv) > 1 else 7
    fields = sys.argv[2:] or list(EACH)
    print(f"{'image':16} {'augmentation':16} {'ms/image':>8}  {'range':>13}")
    for name, inputs in INPUTS.items():
        config = InputConfig.model_validate(inputs)
        data = sources_of(config, N_ROWS, margin=5)
        images = open_images(data, config)
        plain = AugmentConfig()
        epoch_s(images, data, plain)
        alone = [epoch_s(images, data, plain) for _ in range(turns)]
        print(f"{name:16} {'none':16} {1e3 * statistics.median(alone):8.2f}")
        for field in fields:
            if augmentation_fault(config, EACH[field]) is not None:
                continue
            epoch_s(images, data, EACH[field])
            more = sorted(
                1e3 * (epoch_s(images, data, EACH[field]) - epoch_s(images, data, plain))
                for _ in range(turns)
            )
            spread = f"{more[0]:.2f} to {more[-1]:.2f}"
            print(f"{name:16} {field:16} {statistics.median(more):8.2f}  {spread:>13}")


if __name__ == "__main__":
    main()
