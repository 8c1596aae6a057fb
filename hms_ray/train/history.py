"""What is recorded of a fold's training: one record per evaluation, logged and reported."""

from __future__ import annotations

import logging
from typing import Any, Final

from hms_ray.evaluate.metric import named_scores
from hms_ray.train.fold_state import FoldState
from hms_ray.train.process import Process
from hms_ray.train.result import FoldResult

logger = logging.getLogger(__name__)

MEASURED: Final = frozenset({"seconds", "images_per_s", "gpu_memory_gib"})
"""Fields of a record that are measured: two trainings of one fold differ in them alone."""


class History:
    """The records of a fold and the steps that are done.

    The record of an evaluation has ``stage`` (name), ``stage_index``, ``epoch`` (epochs of this
    stage that are done, such as 1.5), ``step`` (optimiser steps of all stages that are done),
    ``kl_all``, ``kl_4`` and ``kl_10`` (None without such rows), ``train_loss`` (mean over the
    steps since the previous record), ``learning_rate`` (of the last step, before ``head_rate``
    and ``layer_decay``) and ``seconds`` (since the start, resumed stages included); and, in a
    stage that ends with its best evaluation, ``criterion`` (None in mosaic epochs). For charts it
    has ``epochs`` (of all stages that are done), ``loss`` (name of the training loss),
    ``gradient_norm`` (of the last step, see ``Step``), ``images_per_s`` (of training, since the
    previous record) and ``gpu_memory_gib`` (peak of what torch has allocated on rank 0's GPU for
    this fold; None on a CPU).

    Args:
        process: its rank 0 reports.
        resume_from: see ``train_fold``.

    Attributes:
        records: one per evaluation.
        n_done: optimiser steps that are done, of all stages.
        n_steps: those of the whole fold, set once they are known.
    """

    def __init__(self, process: Process, resume_from: FoldResult | FoldState | None) -> None:
        self._process, self._resume_from = process, resume_from
        self.records: list[dict[str, Any]] = []
        self.n_done = self.n_steps = 0
        if resume_from is not None:
            self.records, self.n_done = list(resume_from.history), resume_from.n_steps

    def add(self, record: dict[str, Any]) -> None:
        """Adds the record of an evaluation."""
        self.records.append(record)
        logger.info(
            "stage %s epoch %g: %s, train loss %.4f",
            *(record["stage"], record["epoch"], named_scores(record), record["train_loss"]),
        )
        self._report(record)

    def report_resumed(self) -> None:
        """Logs and reports what is not trained here."""
        resume_from = self._resume_from
        if isinstance(resume_from, FoldState):
            record = {key: self.records[-1][key] for key in ("stage", "epoch")}
            logger.info("resumed at stage %s, epoch %g", record["stage"], record["epoch"])
            self._report({"event": "fold_resumed", **record, "history": list(self.records)})
        elif resume_from is not None:
            names = dict.fromkeys((one["stage_index"], one["stage"]) for one in self.records)
            stages, saved_s = [name for _, name in names], resume_from.stages_s
            event = {"event": "stages_reused", "stages": stages, "saved_s": saved_s}
            self._report({**event, "history": list(self.records)})

    def _report(self, record: dict[str, Any]) -> None:
        if self._process.rank == 0:
            self._process.report({**record, "progress": self.n_done / self.n_steps})
