"""TensorBoard logs: scalars by fold, and one HParams view over all trials.

A study's logs are in ``STUDY/trials/TRIAL/fold_K/``. Each fold is one TensorBoard run and
one HParams session; the sessions of a trial share a group, over which TensorBoard averages.
A trial without a stored fold has one session without curves in its own folder. The HParams
view has the state of each trial, and its comparable estimate: the objective of a complete
trial, and what a pruned one would probably have reached.
The experiment (searched parameters and scores) is declared once. Event files have fixed
names and are replaced as a whole, so that writing a fold again never doubles its curves.

The records use TensorBoard's own messages and framing, because torch's ``SummaryWriter``
writes a sub-run for every set of hyperparameters and names its files by time and process.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hms_ray.config.space import Parameter
from hms_ray.config.values import parameter_values
from hms_ray.evaluate.metric import OBJECTIVES
from hms_ray.storage.atomic import whole_file
from hms_ray.storage.locks import short_lock

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

HistoryRecord = Mapping[str, Any]

FILE_NAME: Final = "events.out.tfevents.0000000000.hms_ray"
"""TensorBoard recognises an event file by its middle part; the rest is free."""
DECLARATION: Final = "hparams.json"
"""The declaration as JSON beside its events, so that later studies can add to it."""

LOCK_FILE: Final = ".hparams.lock"

CURVES: Final = (*OBJECTIVES, "criterion", "train_loss", "learning_rate")
"""Keys of a history record that become scalars by global step."""
KEPT: Final = "kept/"
"""Prefix of the kept checkpoint's scores, which the HParams view shows."""
METRICS: Final = ("kl_10", "kl_4", "kl_all")
STATE: Final = "state"
"""Name of a trial's state among its values."""
ESTIMATE: Final = "estimate"
"""Tag of a trial's comparable estimate."""
_ANY_TEXT: Final[dict[str, Any]] = {"kind": "text", "values": []}
"""Declared for a path that studies search with values of different types."""


def declare_experiment(
    root: str | Path,
    parameters: Mapping[str, Parameter],
    metrics: Sequence[str] = METRICS,
    created_s: float = 0.0,
) -> None:
    """Declares the searched parameters and the scores.

    TensorBoard shows only the first declaration that it finds below its ``--logdir``. So
    the declaration belongs in the folder that ``--logdir`` names: an existing one is
    extended, and several studies share one view.

    Args:
        root: folder for the declaration: the results of all studies.
        parameters: dotted path -> searched parameter.
        metrics: scores, the most important one first.
        created_s: Unix time of the declaration.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    # Another study may be declared at the same time.
    with short_lock(root / LOCK_FILE):
        described = _declared(root)
        for path, parameter in parameters.items():
            known = described["parameters"].get(path)
            described["parameters"][path] = _merged(known, _described(parameter))
        described["metrics"] = list(dict.fromkeys([*metrics, *described["metrics"]]))
        summary = _experiment_summary(described, created_s)
        _write_events(root / FILE_NAME, [_event(created_s, 0, summary)])
        with whole_file(root / DECLARATION) as draft:
            draft.write_text(json.dumps(described, indent=1), encoding="utf-8")


def write_fold(
    folder: str | Path,
    history: Sequence[HistoryRecord],
    *,
    group: str | None = None,
    values: Mapping[str, Any] | None = None,
    parameters: Mapping[str, Parameter] | None = None,
    scores: Mapping[str, float | None] | None = None,
    started_s: float = 0.0,
    state: str = "complete",
    estimate: float | None = None,
) -> None:
    """Writes the curves of one fold, and its HParams session if a group is given.

    Args:
        folder: ``STUDY/trials/TRIAL/fold_K``, or that of a trial without folds; existing
            events are replaced.
        history: records with ``step``, ``seconds`` since the start, ``kl_all``,
            ``kl_4``, ``kl_10``, ``criterion``, ``train_loss`` and ``learning_rate``; missing
            values and None are skipped.
        group: trial, unique below ``--logdir``, such as ``STUDY/TRIAL``.
        values: dotted path -> value or label of the trial.
        parameters: searched parameters, so that values are written as declared.
        scores: of the kept checkpoint; default: those of the last record.
        started_s: Unix time at which the fold started.
        state: of the trial, see ``StoredTrial``.
        estimate: of the trial's objective, comparable with complete trials; None: unknown.
    """
    shown = {**(values or {}), STATE: state}
    events = [] if group is None else [_session_start(group, shown, parameters, started_s)]
    for record in history:
        time_s = started_s + float(record.get("seconds") or 0.0)
        scalars = {name: record.get(name) for name in CURVES}
        events += _scalar_events(scalars, time_s, int(record["step"]))
    last: HistoryRecord = history[-1] if history else {"step": 0}
    ended_s = started_s + float(last.get("seconds") or 0.0)
    kept = last if scores is None else scores
    named = {KEPT + name: kept.get(name) for name in OBJECTIVES} | {ESTIMATE: estimate}
    events += _scalar_events(named, ended_s, int(last["step"]))
    if group is not None:
        events.append(_session_end(ended_s, int(last["step"]), state))
    _write_events(Path(folder) / FILE_NAME, events)


def _session_start(
    group: str,
    values: Mapping[str, Any] | None,
    parameters: Mapping[str, Parameter] | None,
    started_s: float,
) -> Event:
    from tensorboard.plugins.hparams import summary_v2

    known = parameters or {}
    shown = {
        path: shown_value(value, known.get(path))
        for path, value in (values or {}).items()
        if value is not None or path in known
    }
    summary = summary_v2.hparams_pb(shown, trial_id=group, start_time_secs=started_s)
    return _event(started_s, 0, summary)


def _session_end(ended_s: float, step: int, state: str) -> Event:
    from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

    # The folds of a pruned trial are whole; TensorBoard has no status of its own for a stop.
    failed = state in ("failed", "diverged")
    status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
    end = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=ended_s)
    return _event(ended_s, step, _plugin_summary(metadata.SESSION_END_INFO_TAG, end))


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
    if known == _ANY_TEXT or known["kind"] != new["kind"]:
        # With different types, no list of values covers all studies.
        return _ANY_TEXT
    if "values" in known and "values" in new:
        return {**new, "values": list(dict.fromkeys([*known["values"], *new["values"]]))}
    ends = [float(end) for one in (known, new) for end in one.get("bounds") or one["values"]]
    return {"kind": "number", "bounds": [min(ends), max(ends)]}


def _declared(root: Path) -> dict[str, Any]:
    try:
        described = json.loads((root / DECLARATION).read_text(encoding="utf-8"))
        return {"parameters": dict(described["parameters"]), "metrics": list(described["metrics"])}
    except (OSError, ValueError, KeyError, TypeError):
        # Missing or damaged: the view starts with the present declaration.
        return {"parameters": {}, "metrics": []}


def _experiment_summary(described: Mapping[str, Any], created_s: float) -> Summary:
    from tensorboard.plugins.hparams import api_pb2, metadata, summary_v2

    kinds = {"truth": bool, "number": float, "text": str}
    # Without a domain: TensorBoard hides trials whose value is not in it.
    infos = [api_pb2.HParamInfo(name=STATE, type=api_pb2.DATA_TYPE_STRING, differs=True)]
    for path, parameter in described["parameters"].items():
        # Searched values differ between trials; the page shows such columns first.
        info = api_pb2.HParamInfo(name=path, differs=True)
        if "bounds" in parameter:
            summary_v2.RealInterval(*parameter["bounds"]).update_hparam_info(info)
        elif parameter["values"]:
            kind = kinds[parameter["kind"]]
            values = [kind(value) for value in parameter["values"]]
            summary_v2.Discrete(values, kind).update_hparam_info(info)
        infos.append(info)
    metrics = [
        api_pb2.MetricInfo(name=api_pb2.MetricName(tag=KEPT + name), display_name=name)
        for name in described["metrics"]
    ]
    name = api_pb2.MetricName(tag=ESTIMATE)
    metrics.append(api_pb2.MetricInfo(name=name, display_name=ESTIMATE))
    experiment = api_pb2.Experiment(
        hparam_infos=infos, metric_infos=metrics, time_created_secs=created_s
    )
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


def _scalar_events(scalars: Mapping[str, Any], time_s: float, step: int) -> list[Event]:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return [
        _event(time_s, step, Summary(value=[Summary.Value(tag=name, simple_value=float(value))]))
        for name, value in scalars.items()
        if value is not None and math.isfinite(value)
    ]


def _event(time_s: float, step: int, summary: Summary) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event

    return Event(wall_time=time_s, step=step, summary=summary)


def _write_events(path: Path, events: Iterable[Event]) -> None:
    """Writes an event file; an existing one is replaced."""
    from io import BytesIO

    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    records = RecordWriter(buffer)
    written = list(events)
    first = Event(wall_time=written[0].wall_time if written else 0.0, file_version="brain.Event:2")
    for event in (first, *written):
        records.write(event.SerializeToString())
    # Copies of what is stored elsewhere: five folds would take the most of a trial's end.
    with whole_file(path, fsync=False) as draft:
        draft.write_bytes(buffer.getvalue())
