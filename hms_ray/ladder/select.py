"""Which ladder a command runs: the manifest or an ablation, the overlay, and the steps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hms_ray.config.shipped import LADDER, LADDERS
from hms_ray.errors import ConfigError
from hms_ray.ladder.ablation import load_ablation
from hms_ray.ladder.scale import read_scale
from hms_ray.ladder.steps import Ladder, load_ladder
from hms_ray.text import closest


def select_ladder(
    manifest: Path,
    ablate: Path | None,
    scale: str | None,
    settings: Sequence[str],
    only: Sequence[str],
) -> tuple[Ladder, str]:
    """The requested ladder and the default name of its folder.

    Args:
        manifest: file of a ladder; overlays are in its folder.
        ablate: file of an experiment to ablate instead.
        scale: name of an overlay.
        settings: texts ``a.b=value`` for every experiment.
        only: names of steps; all if empty.

    Raises:
        ConfigError: see ``load_ladder``; also if the overlay does not exist, or there is a
            hold-out.
    """
    overlay = None if scale is None else _overlay(manifest.parent, scale)
    if ablate is None:
        # Single steps must not replace the page of the whole ladder.
        names = {file: shipped for shipped, file in LADDERS.items() if file != LADDER}
        name = names.get(manifest, "ladder") + ("-steps" if only else "")
        ladder = load_ladder(manifest, overlay, settings, only)
    else:
        name = f"ablation-{ablate.stem}"
        ladder = load_ablation(ablate, overlay, settings, only)
    _refuse_holdout(ladder, ablate or manifest)
    return ladder, name


def _refuse_holdout(ladder: Ladder, where: Path) -> None:
    """The steps of a ladder are compared on all rows, and nothing is chosen among them."""
    share = next(iter(ladder.experiments().values())).data.holdout
    if share:
        raise ConfigError(
            "a ladder must not have a hold-out",
            got=f"data.holdout: {share:g}",
            where=where,
            fix="Set it to 0: --set data.holdout=0. Hold out patients in a sweep.",
        )


def _overlay(folder: Path, name: str) -> Path:
    file = folder / f"{name}.yaml"
    if file.is_file():
        return file
    known = []
    for other in folder.glob("*.yaml"):
        with suppress(ConfigError):
            read_scale(other)
            known.append(other.stem)
    raise ConfigError(
        "--scale must name an overlay in the folder of the manifest",
        got=f"{name}{closest(name, known)}",
        where=folder,
    )
