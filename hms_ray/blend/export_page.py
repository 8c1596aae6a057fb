"""The page of an export: how to run it in a notebook without internet."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from hms_ray import __version__
from hms_ray.blend.wheel import requirements
from hms_ray.config.import_path import is_import_path
from hms_ray.predict.trial import TrialModels

_NOT_NEEDED: Final = ("ray", "optuna", "tensorboard", "matplotlib")
"""Required by hms_ray, but not to predict."""


def export_page(
    name: str, folder: str, models: Sequence[TrialModels], wheels: Sequence[str]
) -> str:
    """The page of an export: how to run it in a notebook without internet.

    Args:
        name: of what is exported.
        folder: name of the export's folder.
        models: of its members.
        wheels: names of its wheels.
    """
    members = "\n".join(f"- {one.name}: {one.text}" for one in models)
    elsewhere = sorted({one.experiment.model.name for one in models})
    elsewhere = [name for name in elsewhere if is_import_path(name)]
    needed = [line for line in requirements() if not line.startswith(_NOT_NEEDED)]
    place = shlex.quote(f"/kaggle/input/{folder}")
    install = (
        f"!pip install --no-index --no-deps {place}/*.whl"
        if wheels
        else "Install hms_ray of the same version, without its dependencies."
    )
    return _PAGE.format(
        name=name,
        version=__version__,
        members=members,
        install=install,
        place=place,
        trust=" --trust-code" if elsewhere else "",
        elsewhere="".join(map(_ELSEWHERE.format, elsewhere)),
        needed=", ".join(f"`{line}`" for line in needed) or "see pyproject.toml of hms_ray",
        not_needed=", ".join(_NOT_NEEDED),
        wheels=", ".join(f"`{wheel}`" for wheel in wheels) or "none",
    )


_ELSEWHERE: Final = """\
- Code of a model from elsewhere, which is not in this folder: `{}`. Install it, or put it on
  PYTHONPATH; it must be the source that the model was trained with.
"""
_PAGE: Final = """# Export of {name}

Written by hms_ray {version}. `hms-ray submit` predicts with this folder alone: no Ray, Optuna,
network or results folder.

{members}

## In a Kaggle notebook without internet

Upload this folder with its subfolders as a dataset, add the dataset and the competition's data to
the notebook, and run two cells. Change the paths if Kaggle shows others.

```
{install}
```

```
!hms-ray submit {place} --data /kaggle/input/hms-harmful-brain-activity-classification{trust} --pack-dir /tmp/packed --threads 4 --out /kaggle/working/submission.csv
```

The last line of the second cell estimates the time for 3,000 test rows. `--pack-dir` is needed
because Kaggle's input folders are read-only.

## Packages

- In this folder: {wheels}.
- Needed: {needed}. What is not in this folder must be in the notebook's image, which may have
  older versions of some: hms_ray is not tested with these.
- Not needed: {not_needed}.
{elsewhere}
## Files

`export.json` has the SHA-256 of each file, versions and the order of classes. `models/NN/` has a
member's experiment, its weights by fold, and the constants of its normalisation. `blend.json` has
the fitted method with its weights, if this is a blend.
"""  # noqa: E501 - a cell is one line
