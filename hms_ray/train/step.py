"""One optimiser step on one batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hms_ray.train.batches import Batch
from hms_ray.train.losses import weighted_kl
from hms_ray.train.process import Process
from hms_ray.train.score import Precision, autocast, storage_dtype


class Step:
    """One optimiser step on one batch.

    Args:
        network: the model to train, wrapped if there are several ranks.
        process: this rank.
        precision: of the forward pass.
        optimiser: stepped once per batch.
        schedule: stepped after the optimiser.
    """

    def __init__(
        self,
        network: nn.Module,
        process: Process,
        precision: Precision,
        optimiser: torch.optim.Optimizer,
        schedule: torch.optim.lr_scheduler.LRScheduler,
    ) -> None:
        self.network, self.process = network, process
        self.precision, self.optimiser, self.schedule = precision, optimiser, schedule
        self.learning_rate = float("nan")
        self.dtype = storage_dtype(precision)

    def __call__(self, batch: Batch, image: Tensor) -> Tensor:
        """Trains on this rank's rows.

        Args:
            batch: this rank's part of the global batch.
            image: (b, 1, H, W) images of its rows.

        Returns:
            This rank's share of the global batch's mean loss, a scalar on the device; the
            shares of all ranks sum to the mean loss.
        """
        device = self.process.device
        targets = torch.from_numpy(batch.targets).to(device, self.dtype)
        weights = torch.from_numpy(batch.weights).to(device, self.dtype)
        with autocast(self.precision, device):
            logits = self.network(image)
        share = weighted_kl(logits.to(self.dtype), targets, weights).sum() / batch.n_global
        self.optimiser.zero_grad(set_to_none=True)
        # DDP averages gradients over ranks, whose shards may have unequal sizes. Scaled like
        # this, the average is the gradient of the global batch's mean loss.
        (share * self.process.world_size).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.learning_rate = float(self.schedule.get_last_lr()[0])
        self.schedule.step()
        return share.detach()
