"""Reads event files as TensorBoard does."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tensorboard import context
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment
from tensorboard.plugins.hparams import list_session_groups as session_groups
from tensorboard.util import tensor_util

Curve = list[tuple[float, int, float]]


def scalars(folder: Path) -> dict[str, Curve]:
    """Tag -> (Unix time, step, value) of each point of a run, in the order of its file."""
    if not folder.is_dir():
        return {}
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.wall_time, event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    """(step, value) of each point of a curve."""
    return [(step, value) for _, step, value in scalars(folder)[tag]]


def texts(folder: Path) -> dict[str, str]:
    """Tag -> text of a run."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: tensor_util.make_ndarray(events.Tensors(tag)[-1].tensor_proto).item().decode()
        for tag in events.Tags()["tensors"]
        if not tag.startswith("_hparams_")
    }


def hparams_view(root: Path) -> SimpleNamespace:
    """The experiment and session groups that TensorBoard's HParams page requests."""
    runs = plugin_event_multiplexer.EventMultiplexer()
    runs.AddRunsFromDirectory(str(root))
    runs.Reload()
    provider = data_provider.MultiplexerDataProvider(runs, str(root))
    plugin = backend_context.Context(
        base_plugin.TBContext(data_provider=provider, logdir=str(root), multiplexer=runs)
    )
    request = api_pb2.ListSessionGroupsRequest(
        allowed_statuses=[api_pb2.STATUS_SUCCESS, api_pb2.STATUS_FAILURE, api_pb2.STATUS_RUNNING],
        slice_size=100,
    )
    no_context = context.RequestContext()
    groups = session_groups.Handler(no_context, plugin, "", request).run()
    experiment = get_experiment.Handler(
        no_context, plugin, "", api_pb2.GetExperimentRequest()
    ).run()
    return SimpleNamespace(
        experiment=experiment,
        groups={group.name: group for group in groups.session_groups},
        runs=sorted(runs.Runs()),
    )


def metrics(group: Any) -> dict[str, float]:
    """Tag -> value of a session group's metrics."""
    return {metric.name.tag: metric.value for metric in group.metric_values}
