"""The command that explains a search space: space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hms_ray.cli.next_command import print_next
from hms_ray.cli.options import Settings, flag, option
from hms_ray.errors import ConfigError


def space(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE", help="Search space: a YAML file, or the name of a shipped one."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        option("Competition folder, to count image visits.", "DIR", default="not counted"),
    ] = None,
    settings: Settings = None,
    draws: Annotated[int, option("Number of first trials to show.", "N")] = 5,
    schema: Annotated[
        bool, flag("--schema", "Print the JSON Schema of space files, for editors.")
    ] = False,
) -> None:
    """Check and explain a search space: parameters, size, first trials, cost."""
    from hms_ray.search.explain import explain_space
    from hms_ray.search.explain import schema as made_schema

    if schema:
        print(json.dumps(made_schema(), indent=2))
        return
    if file is None:
        raise ConfigError("space needs a file", fix="Name one: hms-ray space FILE")
    if draws < 0:
        raise ConfigError("--draws must be at least 0", got=draws)
    from hms_ray.config.experiment import Experiment
    from hms_ray.config.loading import load_space
    from hms_ray.config.shipped import find_space
    from hms_ray.display.space_table import render_space

    path = find_space(file)
    found = load_space(path, settings or [])
    visits, notes = None, list[str]()
    if data is not None:
        from hms_ray.dataset.prepare import rows_with_folds
        from hms_ray.experiment.image_visits import experiment_visits
        from hms_ray.experiment.same_rows import same_rows_notes

        rows = rows_with_folds(data, found.experiment.data)
        notes = same_rows_notes(found, rows)

        def visits(experiment: Experiment) -> int:
            return experiment_visits(experiment, rows)

    print(render_space(explain_space(found, path.stem, draws, visits, notes)))
    words = ["sweep" if found.parameters else "train", file, "--data", data or "DIR"]
    words += [word for setting in settings or () for word in ("--set", setting)]
    print_next(*words)
