"""What TensorBoard's text page says of a run, as Markdown that shows values as they are."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, Final

from hms_ray.config.experiment import Experiment
from hms_ray.storage.structured_files import yaml_text

DIFFERENCE: Final = "2 difference to the best trial"
STAGES: Final = "3 stages"
ENVIRONMENT: Final = "4 environment"
CONFIGURATION: Final = "5 configuration"


def plain(text: str) -> str:
    """A text as Markdown that shows it as it is, on one line."""
    marked = re.sub(r"([\\`*_{}\[\]()#+\-.!])", r"\\\1", " ".join(text.split()))
    return html.escape(marked, quote=False).replace("|", "&#124;")


def difference_text(
    values: Mapping[str, Any], best: Mapping[str, Any], name: str, score: str
) -> str:
    """The values of a trial that differ from those of the best one so far.

    Args:
        values: dotted path -> value or label.
        best: likewise, of the best trial.
        name: of the best trial.
        score: of the best trial.
    """
    heading = f"Best trial so far: {plain(name)}, {plain(score)}."
    if values == best:
        return f"{heading} It has the same values."
    paths = [path for path in dict.fromkeys([*values, *best]) if values.get(path) != best.get(path)]
    rows = [(path, _shown(best.get(path)), _shown(values.get(path))) for path in paths]
    return f"{heading}\n\n{_table(('value', 'best trial', 'this trial'), rows)}"


def experiment_texts(experiment: Experiment) -> dict[str, str]:
    """The stages and the configuration of an experiment."""
    described = {"experiment": experiment.model_dump(mode="json")}
    rows, end = [], 0
    for number, stage in enumerate(experiment.training.resolved_stages()):
        start, end = end, end + stage.epochs
        steps = f"{1000 * start} to {1000 * end}"
        rows.append((str(number), stage.name, stage.rows, stage.loss, str(stage.epochs), steps))
    heading = ("stage", "name", "rows", "loss", "epochs", "steps of the charts")
    return {
        STAGES: _table(heading, rows),
        # Indented, so that no value can end the block.
        CONFIGURATION: textwrap.indent(yaml_text(described), "    ", lambda line: True),
    }


def environment_text(
    folds: Mapping[int, Mapping[str, Any]], command: Mapping[str, Any] | None = None
) -> str:
    """Software and machines of the folds, and of the command that ran them.

    Args:
        folds: fold -> name -> version, see ``train.versions.version_record``.
        command: an entry of ``environment.json``, whose ``packages`` are versions by name.
    """
    records: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for fold, record in sorted(folds.items()):
        found = tuple((name, _shown(value)) for name, value in record.items() if value is not None)
        records.setdefault(found, []).append(str(fold))
    columns = {f"fold {', '.join(of)}": dict(record) for record, of in records.items()}
    if command:
        values = {**command, **command.get("packages", {})}
        kinds = (str, int, float)
        columns["command"] = {k: _shown(v) for k, v in values.items() if isinstance(v, kinds)}
    names = dict.fromkeys(name for column in columns.values() for name in column)
    rows = [(name, *(column.get(name, "") for column in columns.values())) for name in names]
    return _table(("", *columns), rows)


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
