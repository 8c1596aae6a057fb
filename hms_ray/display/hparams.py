"""TensorBoard's HParams view: one session per trial, with the leaderboard's numbers.

TensorBoard takes the columns of its table from the first declaration that it finds, whatever
folder it shows. So each study has one, beside the events of one of its trials: a run of its own
would be a run without charts. It declares the parameters of its study, whose columns are shown
first, and after them those of the other studies of the results folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hms_ray.config.space import Objective, Parameter
from hms_ray.config.values import parameter_values
from hms_ray.display.cells import RECALIBRATED
from hms_ray.display.event_file import DECLARATION_NAME, framed, last_event
from hms_ray.display.tensorboard import ESTIMATE, MINUTES, recalibrated_tag, result_tag
from hms_ray.evaluate.metric import OBJECTIVES, SCORE_NAMES
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.folder_names import BOARD
from hms_ray.storage.locks import short_lock

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary

DECLARATION: Final = "hparams.json"
"""The declaration of a study alone, in the folder of its runs."""
LOCK_FILE: Final = ".hparams.lock"

MODEL: Final = "Model"
REASON: Final = "Reason"
STATE: Final = "State"
"""Columns of every trial; capital letters come before the parameters."""
STATES: Final = ("complete", "pruned", "diverged", "failed", "stopped")
_ANY_TEXT: Final[dict[str, Any]] = {"kind": "text", "values": []}
"""Declared for a path that studies search with values of different types."""


def declare(
    board: Path, parameters: Mapping[str, Parameter], objective: Objective, models: Sequence[str]
) -> None:
    """Declares the columns of a study, and adds its parameters to those of other studies.

    Args:
        board: folder of the study's runs, ``RESULTS/STUDY/board``, with at least one run.
        parameters: dotted path -> searched parameter.
        objective: its score is the first one.
        models: names of the models of its trials; empty if they are searched.
    """
    columns = {path: _described(parameter) for path, parameter in parameters.items()}
    columns[MODEL] = {"kind": "text", "values": sorted(set(models))}
    results = board.parents[1]
    # Another study may be declared at the same time.
    with short_lock(results / LOCK_FILE):
        _write_changed(
            board / DECLARATION,
            json.dumps({"objective": objective, "columns": columns}, indent=1).encode(),
        )
        found = {
            file.parent: _read(file) for file in sorted(results.glob(f"*/{BOARD}/{DECLARATION}"))
        }
        everywhere: dict[str, Any] = {}
        for own in found.values():
            for path, described in own.get("columns", {}).items():
                everywhere[path] = _merged(everywhere.get(path), described)
        for folder, own in found.items():
            runs = sorted(run for run in folder.iterdir() if run.is_dir())
            if own and runs:
                summary = _experiment_summary(own, everywhere)
                _write_changed(runs[0] / DECLARATION_NAME, _declaration(summary))


def _read(file: Path) -> dict[str, Any]:
    try:
        own = json.loads(file.read_text(encoding="utf-8"))
        return {"columns": dict(own["columns"]), "objective": str(own["objective"])}
    except (OSError, ValueError, KeyError, TypeError):
        # Damaged: written again when its study is run.
        return {}


def _write_changed(file: Path, content: bytes) -> None:
    if not file.is_file() or file.read_bytes() != content:
        with whole_file(file, fsync=False) as draft:
            draft.write_bytes(content)


def _declaration(summary: Summary) -> bytes:
    from tensorboard.compat.proto.event_pb2 import Event

    return framed([Event(file_version="brain.Event:2"), Event(summary=summary)])


def session_name(study: str, number: int, state: str, score: float | None) -> str:
    """Name of a trial in the table, which TensorBoard sorts by name: the best ones are first.

    The study is last, since TensorBoard cuts off what is long.

    Args:
        study: name of the study.
        number: of the trial.
        state: one of ``STATES``.
        score: of the objective, which is at least 0; None if the trial has none.
    """
    rank = state if score is None else f"{min(score, 9.9999):.4f}"
    return f"{rank} {number:04d} {study}"


def session(
    group: str,
    values: Mapping[str, Any],
    parameters: Mapping[str, Parameter],
    state: str,
    started_s: float,
    ended_s: float,
) -> list[Summary]:
    """The session of a trial that has ended.

    Args:
        group: its name, unique below ``--logdir``.
        values: column, or dotted path of a parameter -> value or label of the trial.
        parameters: searched parameters, so that values are written as declared.
        state: of the trial, one of ``STATES``.
        started_s: Unix time.
        ended_s: Unix time.
    """
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

    shown = {
        path: shown_value(value, parameters.get(path))
        for path, value in {**values, STATE: state}.items()
        if value is not None or path in parameters
    }
    start = summary_v2.hparams_pb(shown, trial_id=group, start_time_secs=started_s)
    # The folds of a pruned trial are whole; TensorBoard has no status of its own for a stop.
    failed = state in ("failed", "diverged")
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=ended_s)
    return [start, _plugin_summary(metadata.SESSION_END_INFO_TAG, end)]


def has_session(run: Path) -> bool:
    """Whether the event file of a run ends with the end of a session."""
    from tensorboard.plugins.hparams import metadata

    event = last_event(run)
    return event is not None and any(
        value.tag == metadata.SESSION_END_INFO_TAG for value in event.summary.value
    )


def shown_value(value: Any, parameter: Parameter | None = None) -> bool | float | str:
    """A searched value in a type that the HParams view can show, as it is declared.

    Args:
        value: of a trial's point: the label of a parameter with labels, else the value.
        parameter: the searched parameter; None for a value that is not searched.
    """
    if parameter is None or parameter.values is None:
        return value if isinstance(value, (bool, int, float, str)) else json.dumps(value)
    hparam_type = _hparam_type(parameter)
    if hparam_type == "text":
        return str(value)
    return bool(value) if hparam_type == "truth" else float(value)


def _hparam_type(parameter: Parameter) -> str:
    """``truth``, ``number`` or ``text``: TensorBoard's three types of values."""
    if isinstance(parameter.values, dict):
        return "text"
    choices = parameter.values
    if choices is None:
        return "number"
    if all(isinstance(choice, bool) for choice in choices):
        return "truth"
    return "number" if all(type(choice) in (int, float) for choice in choices) else "text"


def _described(parameter: Parameter) -> dict[str, Any]:
    """A parameter as plain data: its type (``kind``) and its values or bounds."""
    if parameter.bounds is not None:
        return {"kind": "number", "bounds": [float(bound) for bound in parameter.bounds]}
    labels = parameter_values(parameter)
    kind = _hparam_type(parameter)
    return {"kind": kind, "values": list(labels) if kind == "text" else list(labels.values())}


def _merged(known: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The declaration of a path that two studies search; text if their types differ."""
    if known is None or known == new:
        return new
    if _ANY_TEXT in (known, new) or known["kind"] != new["kind"]:
        # With different types, no list of values covers all studies.
        return _ANY_TEXT
    if "values" in known and "values" in new:
        return {**new, "values": list(dict.fromkeys([*known["values"], *new["values"]]))}
    ends = [float(end) for one in (known, new) for end in one.get("bounds") or one["values"]]
    return {"kind": "number", "bounds": [min(ends), max(ends)]}


def _experiment_summary(own: Mapping[str, Any], everywhere: Mapping[str, Any]) -> Summary:
    from tensorboard.plugins.hparams import api_pb2, metadata, summary_v2

    kinds = {"truth": bool, "number": float, "text": str}
    columns = {
        STATE: {"kind": "text", "values": list(STATES)},
        **everywhere,
        REASON: _ANY_TEXT,
    }
    infos = []
    for path, column in columns.items():
        # TensorBoard shows the columns that differ first.
        differs = path == STATE or path in own["columns"]
        if path == MODEL:
            differs = len(column["values"]) != 1
        info = api_pb2.HParamInfo(name=path, differs=differs)
        if "bounds" in column:
            summary_v2.RealInterval(*column["bounds"]).update_hparam_info(info)
        elif column["values"]:
            kind = kinds[column["kind"]]
            values = [kind(value) for value in column["values"]]
            summary_v2.Discrete(values, kind).update_hparam_info(info)
        else:
            # Without a domain: TensorBoard hides trials whose value is not in it.
            info.type = api_pb2.DATA_TYPE_STRING
        infos.append(info)
    own_score = own["objective"]
    names = {
        result_tag(own_score): SCORE_NAMES[own_score],
        recalibrated_tag(own_score): f"{RECALIBRATED} {SCORE_NAMES[own_score]}",
        **{result_tag(name): SCORE_NAMES[name] for name in OBJECTIVES if name != own_score},
        # TensorBoard shows the first five until others are ticked.
        MINUTES: "minutes",
        ESTIMATE: "estimate",
    }
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag), display_name=name)
        for tag, name in names.items()
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=metrics)
    return _plugin_summary(metadata.EXPERIMENT_TAG, experiment)


def _plugin_summary(tag: str, message: Any) -> Summary:
    """A summary that carries a message of the HParams plugin.

    The plugin's functions for this either import TensorFlow or omit ``differs``.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.plugins.hparams import metadata, plugin_data_pb2

    fields = {
        metadata.EXPERIMENT_TAG: "experiment",
        metadata.SESSION_END_INFO_TAG: "session_end_info",
    }
    data = plugin_data_pb2.HParamsPluginData(**{fields[tag]: message})
    value = Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
    return Summary(value=[value])
