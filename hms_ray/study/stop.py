"""``hms-ray stop``: ends a running study, or one of its trials, from another shell."""

from __future__ import annotations

import time
from typing import Final

from hms_ray.errors import StudyError
from hms_ray.storage.locks import running_since
from hms_ray.storage.stop_requests import STOPPED_ANSWER, StopRequests
from hms_ray.study.folder import StudyFolder

TIMEOUT_S: Final = 120.0
"""Ends of Ray's processes take seconds, those of a study on a busy cluster longer."""
_POLL_S: Final = 0.2


def stop(folder: StudyFolder, trial: int | None, timeout_s: float = TIMEOUT_S) -> str:
    """Stops a study that runs on any machine, or one of its trials, and waits for the end.

    A stopped study is as after Ctrl-C: the same command resumes it, and folds continue from
    their last checkpoints. A stopped trial has a state of its own and is not retried; the study
    continues with other trials.

    Args:
        folder: the study.
        trial: number of the trial; None: the whole study.
        timeout_s: longest time to wait.

    Returns:
        A line to print.

    Raises:
        StudyError: if the study or the trial does not run, or does not end in time.
    """
    requests = StopRequests(folder.path)
    what = f"study {folder.name}" if trial is None else f"trial {trial:04d} of {folder.name}"
    if running_since(folder.path) is None:
        raise StudyError(
            "only a running study can be stopped",
            got=f"{folder.name}, which does not run",
            where=folder.path,
            fix="List running studies with: hms-ray studies",
        )
    end = time.monotonic() + timeout_s
    try:
        while time.monotonic() < end:
            # Again if a study that is just starting has removed it.
            requests.write(trial)
            time.sleep(_POLL_S)
            if trial is not None and (answer := requests.take_answer(trial)) is not None:
                if answer == STOPPED_ANSWER:
                    return f"{what} stopped; the study continues"
                raise StudyError(
                    "only a running trial can be stopped",
                    got=f"trial {trial:04d}, which {answer}",
                    where=folder.path,
                    fix=f"List the trials with: hms-ray leaderboard {folder.name}",
                )
            if running_since(folder.path) is None:
                return f"study {folder.name} stopped; the same command resumes it"
    finally:
        requests.withdraw(trial)
    raise StudyError(
        f"a request to stop must take effect within {timeout_s:.0f} s",
        got=f"{what}, which still runs",
        where=folder.path,
        fix="Read its log.txt, or press Ctrl-C twice where it runs.",
    )
