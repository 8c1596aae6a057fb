"""A model from elsewhere, for the contract of models."""

from torch import nn


def net(*, channels: int, n_classes: int, dropout: float) -> nn.Module:
    """A small convolutional network with batch statistics."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(8, n_classes),
    )
