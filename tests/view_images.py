"""Images of windows as training makes them: downsampled, then joined."""

from collections.abc import Mapping

import torch

from hms_ray.config.inputs import InputConfig
from hms_ray.transforms.downsample import downsample
from hms_ray.transforms.normalise import Constants
from hms_ray.transforms.views import join_views


def make_image(
    windows: Mapping[str, torch.Tensor],
    config: InputConfig,
    constants: Mapping[str, Constants] | None = None,
    dtype: torch.dtype = torch.float32,
) -> torch.Tensor:
    downsampled = {
        source: downsample(x, config.treatment(source).downsample, dtype)
        for source, x in windows.items()
    }
    return join_views(downsampled, config, constants)
