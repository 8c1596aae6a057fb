"""The event file of a TensorBoard run: it grows, and holds no value twice.

TensorBoard follows a file that is appended to. It keeps what it has read, so values of a curve
are appended in the order of their steps. When that is not possible, or what the file has no
longer holds, all of it is written again as the next file of the run: a running TensorBoard
then continues with that one.

The records use TensorBoard's own messages and framing, because torch's ``SummaryWriter`` writes
a sub-run for every set of hyperparameters and names its files by time and process.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hms_ray.storage.atomic import whole_file
from hms_ray.storage.faults import make_folder

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

_NAME: Final = "events.out.tfevents.{:010d}.hms_ray"
"""TensorBoard recognises an event file by its middle part, and reads those of a run in order."""
_PATTERN: Final = "events.out.tfevents.*.hms_ray"
DECLARATION_NAME: Final = "events.out.tfevents.0000000000.hparams"
"""File that one run of a study has beside its own; read before it."""
_MARK: Final = "hms_ray "
_SHORT: Final = 256
"""Bytes of a short event, such as the end of a session."""
_HEADER: Final = struct.Struct("<QI")
_FOOTER: Final = struct.Struct("<I")


class EventFile:
    """The content of a run, each value of a tag and step once.

    What is added is written by ``flush``. After an error of ``flush`` nothing is lost: the next
    call reads the file again and writes what it lacks.

    Args:
        folder: of the run; made by ``flush``.
        below: folder that must exist, such as that of the study.
    """

    def __init__(self, folder: Path, below: Path) -> None:
        self.folder, self._below = folder, below
        self._waiting: list[Event] = []
        self._path: Path | None = None
        self._known: dict[tuple[str, int], float] = {}
        self._last: dict[str, int] = {}
        self._marks: dict[str, str] = {}
        self._rewrite: Callable[[str], bool] | None = None
        self._unsure = False
        self._open()

    def _open(self) -> None:
        """Reads what the file has; a part of a record at its end is not appended to."""
        self._known, self._last, self._marks, self._rewrite = {}, {}, {}, None
        files = sorted(self.folder.glob(_PATTERN))
        self._path = files[-1] if files else None
        if self._path is None:
            return
        content = self._path.read_bytes()
        whole = 0
        for end, event in read_events(content):
            self._take(event)
            whole = end
        if whole < len(content) or any(file.stat().st_size for file in files[:-1]):
            self._rewrite = lambda tag: True

    def _take(self, event: Event) -> None:
        if event.source_metadata.writer.startswith(_MARK):
            name, value = event.source_metadata.writer[len(_MARK) :].split(" ", 1)
            self._marks[name] = value
        for value in event.summary.value:
            self._known[value.tag, event.step] = value.simple_value
            self._last[value.tag] = max(event.step, self._last.get(value.tag, event.step))

    def has(self, tag: str, step: int = 0) -> bool:
        """Whether the file has a value, or will have it."""
        return (tag, step) in self._known

    def value(self, tag: str, step: int) -> float | None:
        """A scalar that the file has, or will have, as float32; None without one."""
        return self._known.get((tag, step))

    def mark(self, name: str, value: str) -> None:
        """Notes where values come from, which TensorBoard does not show.

        Args:
            name: without spaces.
            value: replaces an earlier one.
        """
        if self._marks.get(name) != value:
            self._marks[name] = value
            self._waiting.append(_mark(name, value))

    def marked(self, name: str) -> str | None:
        """The value of a mark."""
        return self._marks.get(name)

    def drop(self, tags: Callable[[str], bool]) -> None:
        """Removes all values of some tags."""
        if not any(tags(tag) for tag, _ in self._known):
            return
        keep = self._rewrite or (lambda tag: True)
        self._rewrite = lambda tag: keep(tag) and not tags(tag)
        self._known = {at: value for at, value in self._known.items() if not tags(at[0])}
        self._last = {tag: step for tag, step in self._last.items() if not tags(tag)}
        self._waiting = [_kept(event, lambda tag: not tags(tag)) for event in self._waiting]

    def add(self, time_s: float, step: int, summary: Summary) -> None:
        """Adds the values of a summary that the file does not have.

        Args:
            time_s: Unix time.
            step: from 0.
            summary: scalars and texts.
        """
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time_s, step=step, summary=summary)
        event = _kept(event, lambda tag: (tag, step) not in self._known)
        if not event.summary.value:
            return
        if any(step < self._last.get(value.tag, step) for value in event.summary.value):
            self._rewrite = self._rewrite or (lambda tag: True)
        self._waiting.append(event)
        self._take(event)

    def add_scalars(self, time_s: float, step: int, scalars: Mapping[str, Any]) -> None:
        """Adds the scalars that are finite numbers; None is skipped."""
        self.add(time_s, step, scalar_summary(scalars))

    def flush(self) -> None:
        """Writes what was added.

        Raises:
            OSError: if the file cannot be written.
            StorageError: if ``below`` is gone.
        """
        if not self._waiting and self._rewrite is None:
            return
        if self._unsure:
            self._reopen()
        self._unsure = True
        if self._path is None or self._rewrite is not None:
            self._write_next()
        else:
            with self._path.open("ab") as file:
                file.write(framed(self._waiting))
        self._waiting, self._rewrite, self._unsure = [], None, False

    def _write_next(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        keep = self._rewrite or (lambda tag: True)
        old = sorted(self.folder.glob(_PATTERN))
        stored = (
            [_kept(event, keep) for _, event in read_events(old[-1].read_bytes())] if old else []
        )
        values = [event for event in (*stored, *self._waiting) if event.summary.value]
        # By steps, in which the values of a curve must be; sorting keeps the order of equals.
        values.sort(key=lambda event: event.step)
        first_s = min((event.wall_time for event in values), default=0.0)
        # At the second start of a run, TensorBoard forgets what it has read before.
        start = SessionLog(status=SessionLog.START)
        events = [
            Event(wall_time=first_s, file_version="brain.Event:2"),
            Event(wall_time=first_s, session_log=start),
        ]
        events += [_mark(*mark) for mark in sorted(self._marks.items())]
        events += values
        number = 1 + (int(old[-1].name.split(".")[3]) if old else 0)
        make_folder(self.folder, self._below)
        path = self.folder / _NAME.format(number)
        # Copies of what is stored elsewhere: not worth the time of a flush to disk.
        with whole_file(path, fsync=False) as draft:
            draft.write_bytes(framed(events))
        self._path = path
        for file in old:
            # Not removed: a TensorBoard that follows it would not look for the next one.
            os.truncate(file, 0)

    def _reopen(self) -> None:
        """After an error: what the file has decides about what is still to be written."""
        waiting, marks, dropped = self._waiting, self._marks, self._rewrite
        self._open()
        self._waiting = []
        if dropped is not None:
            keep = self._rewrite or (lambda tag: True)
            self._rewrite = lambda tag: keep(tag) and dropped(tag)
            self._known = {at: value for at, value in self._known.items() if dropped(at[0])}
            self._last = {tag: step for tag, step in self._last.items() if dropped(tag)}
        for name, value in marks.items():
            self.mark(name, value)
        for event in waiting:
            self.add(event.wall_time, event.step, event.summary)


def _mark(name: str, value: str) -> Event:
    from tensorboard.compat.proto.event_pb2 import Event, SourceMetadata

    return Event(source_metadata=SourceMetadata(writer=f"{_MARK}{name} {value}"))


def _kept(event: Event, keep: Callable[[str], bool]) -> Event:
    """An event with the values whose tags are kept."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    values = [value for value in event.summary.value if keep(value.tag)]
    if len(values) == len(event.summary.value):
        return event
    return Event(wall_time=event.wall_time, step=event.step, summary=Summary(value=values))


def scalar_summary(scalars: Mapping[str, Any]) -> Summary:
    """A summary of the scalars that are finite numbers."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(
        value=[
            Summary.Value(tag=tag, simple_value=float(value))
            for tag, value in scalars.items()
            if value is not None and math.isfinite(value)
        ]
    )


def framed(events: Iterable[Event]) -> bytes:
    """Events as the records of an event file."""
    from io import BytesIO

    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = BytesIO()
    records = RecordWriter(buffer)
    for event in events:
        records.write(event.SerializeToString())
    return buffer.getvalue()


def last_event(run: Path) -> Event | None:
    """The last event of a run, if it is short and nothing follows it; reads little."""
    files = sorted(run.glob(_PATTERN))
    if not files:
        return None
    with files[-1].open("rb") as stream:
        stream.seek(max(0, files[-1].stat().st_size - _SHORT))
        tail = stream.read()
    for start in range(len(tail)):
        events = list(read_events(tail[start:]))
        if events:
            end, event = events[-1]
            return event if start + end == len(tail) else None
    return None


def read_events(content: bytes) -> Iterator[tuple[int, Event]]:
    """The events of a file up to the first record that is not whole.

    Yields:
        Position behind the record, and the event.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    place = 0
    while place + _HEADER.size <= len(content):
        length, length_crc = _HEADER.unpack_from(content, place)
        start, end = place + _HEADER.size, place + _HEADER.size + length
        whole = end + _FOOTER.size <= len(content)
        if not whole or masked_crc32c(content[place : place + 8]) != length_crc:
            return
        record = content[start:end]
        if masked_crc32c(record) != _FOOTER.unpack_from(content, end)[0]:
            return
        place = end + _FOOTER.size
        yield place, Event.FromString(record)
