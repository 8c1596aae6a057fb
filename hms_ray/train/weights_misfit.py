"""Why a weights file does not fit a model: what is in it, and what to do."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import timm
import torch

from hms_ray.text import counted, shortened_list

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a weight -> its shape."""

COMMON_MODELS: Final = (
    *(f"efficientnet_b{size}" for size in range(8)),
    *("tf_efficientnetv2_s", "convnext_tiny", "maxvit_tiny_tf_224", "resnet34", "resnet50"),
    *("vit_small_patch16_224", "vit_base_patch16_224", "swin_tiny_patch4_window7_224"),
)
"""Models that teams of the competition trained; a wrong file is probably one of them."""

N_NEAREST: Final = 12
ENOUGH: Final = 0.9
"""Share of a model's weights that a file must have under one prefix to be named as its own."""


def misfit(name: str, state: Mapping[str, torch.Tensor]) -> tuple[str, str]:
    """What a state dict holds instead of a model's weights, and the remedy.

    Args:
        name: of the timm model that was to be loaded.
        state: the file's weights, which do not fit.
    """
    found = {key: tuple(value.shape) for key, value in state.items()}
    wanted = weight_shapes(name)
    prefix = _prefix(found, wanted)
    if prefix is not None:
        example = next(key for key in found if key.startswith(prefix))
        own = f"{{k.removeprefix({prefix!r}): v for k, v in state.items()}}"
        return (
            f"names with the prefix {prefix!r}, such as {example}",
            f"Remove it: torch.save({own}, FILE)",
        )
    others = _models_of(found, [other for other in _candidates(name) if other != name])
    if others:
        names = " or ".join(others)
        return f"weights that fit {names}", f"Set model.name: {names}, or use a file of {name}."
    return _differences(found, wanted), f"Use a timm checkpoint of {name}."


def unpickled(error: BaseException) -> tuple[str, str] | None:
    """What a file holds that torch refuses to unpickle, and the remedy; None for others."""
    # timm's sentence, and that of torch.
    named = re.search(r"(?:Unsupported globals:|GLOBAL) ([\w.]+)", str(error))
    if named is None:
        return None
    return (
        f"pickled objects such as {named[1]}, which could run code",
        "Save its weights alone, on the machine that made it: torch.save(model.state_dict(), FILE)",
    )


def weight_shapes(name: str) -> Shapes:
    """Shapes of the weights of a timm model for three channels; nothing is allocated."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _candidates(name: str) -> list[str]:
    near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=N_NEAREST)
    return list(dict.fromkeys([*near, *COMMON_MODELS]))


def _prefix(found: Shapes, wanted: Shapes) -> str | None:
    """The text before most of the model's own names in a file."""
    prefixes = Counter(
        key.removesuffix(own)
        for key in found
        for own in _endings(key)
        if own in wanted and key != own
    )
    if not prefixes:
        return None
    prefix, n = prefixes.most_common(1)[0]
    return prefix if n >= ENOUGH * len(wanted) else None


def _endings(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[start:]) for start in range(1, len(parts))]


def _models_of(found: Shapes, names: Sequence[str]) -> list[str]:
    """The models whose weights, heads aside, are all in a file with their shapes."""
    fitting = []
    for name in names:
        if not timm.is_model(name):
            continue
        head = timm.get_pretrained_cfg(name).classifier
        heads = tuple(f"{one}." for one in ((head,) if isinstance(head, str) else head or ()))
        own = [item for item in weight_shapes(name).items() if not item[0].startswith(heads)]
        if len(own) <= len(found) and all(found.get(key) == shape for key, shape in own):
            fitting.append(name)
    return fitting


def _differences(found: Shapes, wanted: Shapes) -> str:
    missing = [key for key in wanted if key not in found]
    foreign = [key for key in found if key not in wanted]
    other = [key for key in wanted if key in found and found[key] != wanted[key]]
    parts = []
    if missing:
        parts.append(f"{counted(len(missing), 'weight')} missing: {shortened_list(missing, 2)}")
    if foreign:
        parts.append(f"{len(foreign):,} unknown: {shortened_list(foreign, 2)}")
    if other:
        first = other[0]
        parts.append(
            f"{len(other):,} of another shape: {first} {found[first]}, not {wanted[first]}"
        )
    return "; ".join(parts) or "the model's own weights, which timm did not accept"
