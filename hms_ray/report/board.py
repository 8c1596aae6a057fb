"""TensorBoard of a study or ladder, in this process, with the page as people want it first.

The page's address has what TensorBoard's Time Series view reads from it: the pinned chart, the
grouping of colours and the smoothing. TensorBoard ticks none of more than 500 runs, and a filter
of the address does not tick them either; so of more runs than that, it is given some.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from hms_ray.display.event_file import DECLARATION_NAME
from hms_ray.errors import StudyError
from hms_ray.text import shortened_list

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

MAX_RUNS: Final = 499
"""TensorBoard ticks all runs of a folder up to 500."""
LOAD_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.1


def run_names(board: Path) -> list[str]:
    """Names of the runs below a folder, sorted: relative folders with event files."""
    found = {file.parent for file in board.glob("**/events.out.tfevents.*")}
    return sorted(str(folder.relative_to(board)) for folder in found)


def first_runs(board: Path, best_first: Sequence[str], requested: Sequence[str] = ()) -> list[str]:
    """The runs to show: the requested ones, or all; of more than ``MAX_RUNS``, the best.

    Args:
        board: folder of the runs.
        best_first: runs in the order in which they are kept.
        requested: names of runs; default: all.

    Raises:
        StudyError: if there is no run, or a requested one does not exist.
    """
    known = run_names(board)
    if not known:
        raise nothing_to_show(board)
    missing = [name for name in requested if name not in known]
    if missing:
        raise StudyError(
            "the trial must have a TensorBoard run",
            got=shortened_list(missing),
            where=board,
            fix=f"Use one of {shortened_list(known)}.",
        )
    if requested:
        return sorted(set(requested))
    if len(known) <= MAX_RUNS:
        return known
    ordered = dict.fromkeys([*(name for name in best_first if name in known), *known])
    return sorted(list(ordered)[:MAX_RUNS])


def nothing_to_show(where: Path) -> StudyError:
    """The error of a folder without runs."""
    return StudyError(
        "TensorBoard needs a trial or step that was evaluated",
        got="none",
        where=where,
        fix="Train first, with the command that made this folder.",
    )


@contextmanager
def shown_folder(board: Path, names: Sequence[str], declaring: str | None = None) -> Iterator[Path]:
    """The folder for TensorBoard: that of all runs, or one with links to some.

    Args:
        board: folder of the runs; in itself, later runs appear as well.
        names: of the runs to show.
        declaring: one of them that is not trained any more; of some runs, it declares the
            columns of the HParams view.
    """
    if set(names) == set(run_names(board)):
        yield board
        return
    declared = next(board.glob(f"*/{DECLARATION_NAME}"), None)
    with tempfile.TemporaryDirectory(prefix="hms-ray-board-") as place:
        for name in names:
            link, run = Path(place) / name, (board / name).resolve()
            link.parent.mkdir(parents=True, exist_ok=True)
            if name != declaring or declared is None:
                link.symlink_to(run, target_is_directory=True)
                continue
            link.mkdir()
            for file in {*run.iterdir(), declared.resolve()}:
                with suppress(FileExistsError):
                    (link / file.name).symlink_to(file)
        yield Path(place)


def page(pinned: str, colours: str = "run") -> str:
    """Path of the page that opens first.

    Args:
        pinned: tag of the chart to pin.
        colours: runs of one colour: ``run``, each its own; or ``regex:`` and an expression whose
            groups they share.
    """
    pins = json.dumps([{"plugin": "scalars", "tag": pinned}], separators=(",", ":"))
    # Smoothed curves hide how much evaluations differ.
    values = {"pinnedCards": pins, "runColorGroup": colours, "smoothing": "0"}
    return f"/?{urlencode(values, quote_via=quote)}#timeseries"


@contextmanager
def tensorboard_app(folder: Path, n_runs: int, title: str) -> Iterator[WSGIApplication]:
    """TensorBoard as an application, once it has read the runs; it reads on while a block runs.

    Args:
        folder: of the runs.
        n_runs: runs that it should find; waited for at most ``LOAD_TIMEOUT_S``.
        title: of the page.
    """
    from tensorboard.program import TensorBoard, TensorBoardServer
    from werkzeug.test import Client

    made: list[WSGIApplication] = []

    class _NoServer(TensorBoardServer):  # type: ignore[misc]
        """Keeps the application: it is served elsewhere."""

        def __init__(self, wsgi_app: WSGIApplication, flags: Any) -> None:
            made.append(wsgi_app)

        def serve_forever(self) -> None:
            """Serves nothing."""

        def get_url(self) -> str:
            """No address."""
            return ""

    program = TensorBoard(server_class=_NoServer)
    program.configure(logdir=str(folder), window_title=title)
    # It announces that its fast reader is experimental.
    with redirect_stderr(io.StringIO()):
        program.launch()
    client, until = Client(made[0]), time.monotonic() + LOAD_TIMEOUT_S
    while len(client.get("/data/runs").get_json(force=True)) < n_runs:
        if time.monotonic() > until:
            break
        time.sleep(_POLL_S)
    try:
        yield made[0]
    finally:
        # Its reader, a process of its own, ends with this pipe, at the latest with this process.
        reader = getattr(program, "_ingester", None)
        if (pipe := getattr(reader, "_stdin_handle", None)) is not None:
            pipe.close()
