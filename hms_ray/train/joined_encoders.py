"""Several encoders whose features are joined, and one linear head."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Self

import torch
from torch import Tensor, nn


class JoinedEncoders(nn.Module):
    """Encoders of several images of a row, one linear layer on all their features.

    Args:
        encoders: from (B, C, H, W) to (B, F) features each.
        frozen: for each, whether it stays as it is: its parameters are not trained, and it is
            always in evaluation mode, so that its batch statistics stay too.
        n_features: F of all encoders together.
        dropout: probability, before the linear layer.
        n_outputs: of the linear layer.
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        frozen: Sequence[bool],
        n_features: int,
        dropout: float,
        n_outputs: int,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(n_features, n_outputs)
        self._frozen = tuple(frozen)
        for encoder in self.frozen_encoders:
            encoder.requires_grad_(False)
        self.train()

    @property
    def frozen_encoders(self) -> list[nn.Module]:
        """Encoders that are not trained."""
        pairs = zip(self.encoders, self._frozen, strict=True)
        return [encoder for encoder, frozen in pairs if frozen]

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all but the frozen encoders."""
        super().train(mode)
        for encoder in self.frozen_encoders:
            encoder.eval()
        return self

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """One (B, C, H, W) image per encoder to (B, n_outputs)."""
        features = []
        for image, encoder, frozen in zip(images, self.encoders, self._frozen, strict=True):
            with torch.no_grad() if frozen else nullcontext():
                features.append(encoder(image))
        logits: Tensor = self.head(self.dropout(torch.cat(features, dim=1)))
        return logits

    def get_classifier(self) -> nn.Module:
        """The head, as timm's models have it."""
        return self.head
