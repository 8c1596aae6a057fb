"""The blend, the cost and the faults of a study as data frames; see ``frames``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from hms_ray.report.study_data import StudyData
from hms_ray.report.trial_frames import RESULTS, Study
from hms_ray.storage.run_log import LOG_FILE, WORKER_LOGS
from hms_ray.study.cost import read_costs

_SECONDS: Final = (
    *("seconds", "start_up_s", "training_s", "evaluated_s"),
    *("saved_by_store_s", "saved_by_stages_s", "saved_by_pruning_s"),
)
_LOGGED: Final = re.compile(r"^(\S+Z) ([A-Z]+) \S+: (.*)$")
_FAULT_LEVELS: Final = frozenset({"WARNING", "ERROR", "CRITICAL"})
_RESTART: Final = re.compile(r"was lost\b|\bresumed at stage\b")
"""Of lines that are no warning, because the run continued by itself."""
_NUMBERS: Final = re.compile(r"\d+")


def blend_weights(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """Weights of the study's blend, largest first; empty if its method has none.

    Returns:
        ``model``, ``weight`` (fitted on all patients), ``nested_low`` and ``nested_high``
        (smallest and largest weight of the fits on other patients; NaN if unknown).
    """
    data = StudyData.of(study, results)
    names = ["model", "weight", "nested_low", "nested_high"]
    if data.blend is None or not data.blend.get("weights"):
        return pd.DataFrame(columns=names)
    nested = data.blend.get("nested_weights") or {}
    none = (np.nan, np.nan)
    rows = [
        (name, weight, *nested.get(name, none)) for name, weight in data.blend["weights"].items()
    ]
    frame = pd.DataFrame(rows, columns=names)
    return frame.sort_values("weight", ascending=False, kind="stable", ignore_index=True)


def cost(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """Cost of each run of the study.

    Returns:
        ``started``, ``work``, ``slots``, ``devices``, ``n_folds``, ``images``, ``useful_share``,
        ``device_hours`` of training, and the times of ``RunCost`` in seconds.
    """
    data = StudyData.of(study, results)
    with data.noted("The cost of the runs"):
        rows = [
            {
                "started": one.started,
                "work": one.work,
                "slots": one.slots,
                "devices": one.devices,
                "n_folds": one.n_folds,
                "images": one.images,
                "useful_share": one.useful_share,
                "device_hours": one.training_s * one.devices / 3600,
                **{name: getattr(one, name) for name in _SECONDS},
            }
            for one in read_costs(data.folder.path)
        ]
        return pd.DataFrame(rows)
    return pd.DataFrame()


def faults(study: Study, results: str | Path = RESULTS) -> pd.DataFrame:
    """Trials that did not finish; lost worker groups, restarts, warnings and errors of the logs.

    Returns:
        ``what`` (such as ``failed``, ``restart`` or ``warning``), ``times``, ``text`` (of the
        latest, where lines of a log differ in numbers alone), and ``where``: the trials, or the
        time of the latest.
    """
    data = StudyData.of(study, results)
    reasons: dict[tuple[str, str], list[str]] = {}
    for trial in data.trials:
        if trial.reason is not None and trial.state != "pruned":
            reasons.setdefault((trial.state, trial.reason), []).append(f"{trial.number:04d}")
    rows = [
        (state, len(numbers), reason, f"trials {', '.join(numbers)}")
        for (state, reason), numbers in reasons.items()
    ]
    counts: Counter[tuple[str, str]] = Counter()
    last: dict[tuple[str, str], tuple[str, str]] = {}
    path = data.folder.path
    for log in (path / LOG_FILE, *sorted((path / WORKER_LOGS).glob("*.txt"))):
        with data.noted(f"The log {log.name}"):
            for what, when, text in _log_faults(log):
                kind = what, _NUMBERS.sub("#", text)
                counts[kind] += 1
                last[kind] = max(last.get(kind, ("", "")), (when, text))
    for kind, times in counts.most_common():
        when, text = last[kind]
        rows.append((kind[0], times, text, f"last at {when}"))
    return pd.DataFrame(rows, columns=["what", "times", "text", "where"])


def _log_faults(log: Path) -> Iterator[tuple[str, str, str]]:
    """Kind, time and text of each fault in a log; none if there is no such file."""
    if not log.is_file():
        return
    with log.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if found := _LOGGED.match(line.rstrip("\n")):
                when, level, text = found.groups()
                if level in _FAULT_LEVELS:
                    yield level.lower(), when, text
                elif _RESTART.search(text):
                    yield "restart", when, text
