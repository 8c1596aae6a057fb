"""What a check found in a competition folder, as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Final

from hms_ray.errors import Fault

TEXT_WIDTH: Final = 80
FAULTS_SHOWN: Final = 50
"""Faults of one kind that the text lists; JSON has them all."""
_IDS_SHOWN: Final = 3

COUNT_NAMES: Final = {
    "label_rows": "label rows",
    "eegs": "EEGs",
    "spectrograms": "spectrograms",
    "patients": "patients",
    "missing_eeg_files": "EEG files missing",
    "missing_spectrogram_files": "spectrogram files missing",
    "unlisted_eeg_files": "EEG files not in train.csv",
    "unlisted_spectrogram_files": "spectrogram files not in train.csv",
}
"""Counts in the order shown; the last four only where they are not 0."""


@dataclass(frozen=True)
class TierReport:
    """Label rows whose total votes lie in one tier.

    Attributes:
        label_rows: how many.
        rows: training rows of the unit ``eeg_votes``.
        entropy: mean entropy of the vote shares in nats; None without rows.
        unanimous: share of rows whose votes are all for one class; None without rows.
    """

    label_rows: int
    rows: int
    entropy: float | None
    unanimous: float | None


@dataclass(frozen=True)
class FolderReport:
    """What ``check_folder`` found.

    Attributes:
        folder: the folder checked.
        counts: ``COUNT_NAMES`` -> number; empty where ``train.csv`` is unusable.
        units: row unit -> number of training rows.
        classes: class -> label rows with that expert consensus.
        tiers: name of a vote tier -> its rows.
        faults: everything wrong, the table's first, then by file.
    """

    folder: str
    counts: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    tiers: Mapping[str, TierReport] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the folder is free of faults."""
        return not self.faults

    def to_json(self) -> str:
        """Everything, as an indented JSON object with the attributes' names and ``ok``."""
        return json.dumps({"ok": self.ok, **asdict(self)}, indent=2)

    def to_text(self) -> str:
        """A report of at most 80 columns, but for names that are longer themselves."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"Competition folder {self.folder}"
        if self.counts:
            yield ""
            yield from self._count_lines()
            yield ""
            yield from self._tier_lines()
            yield ""
            yield from self._class_lines()
        yield ""
        yield from self._fault_lines()

    def _count_lines(self) -> Iterator[str]:
        for name, words in COUNT_NAMES.items():
            if self.counts[name] or name in tuple(COUNT_NAMES)[:4]:
                yield f"  {words:<36}{self.counts[name]:>9,}"
        if not self.counts["missing_eeg_files"] + self.counts["missing_spectrogram_files"]:
            yield f"  {'files missing':<36}{'none':>9}"
        for unit, n_rows in self.units.items():
            yield f"  {f'training rows of the unit {unit}':<36}{n_rows:>9,}"

    def _tier_lines(self) -> Iterator[str]:
        yield (
            f"  {'votes':<8}{'label rows':>12}{'share':>8}{'eeg_votes rows':>16}"
            f"{'entropy (nats)':>16}{'unanimous':>11}"
        )
        total = max(1, self.counts["label_rows"])
        for name, tier in self.tiers.items():
            entropy = "-" if tier.entropy is None else f"{tier.entropy:.3f}"
            unanimous = "-" if tier.unanimous is None else f"{tier.unanimous:.0%}"
            yield (
                f"  {name:<8}{tier.label_rows:>12,}{tier.label_rows / total:>8.1%}"
                f"{tier.rows:>16,}{entropy:>16}{unanimous:>11}"
            )

    def _class_lines(self) -> Iterator[str]:
        yield f"  {'consensus':<12}{'label rows':>12}{'share':>8}"
        total = max(1, self.counts["label_rows"])
        for name, n_rows in self.classes.items():
            yield f"  {name:<12}{n_rows:>12,}{n_rows / total:>8.1%}"

    def _fault_lines(self) -> Iterator[str]:
        if self.ok:
            yield "No faults: the folder is sound."
            return
        kinds: dict[str, list[Fault]] = {}
        for fault in self.faults:
            kinds.setdefault(fault.kind, []).append(fault)
        yield f"{_number(len(self.faults), 'fault')} of {_number(len(kinds), 'kind')}:"
        for kind, faults in kinds.items():
            yield from _wrapped(f"{kind:<26}{len(faults):>9,}{_first_ids(faults)}", 2)
        for kind, faults in kinds.items():
            yield ""
            yield f"{kind}:"
            for fault in faults[:FAULTS_SHOWN]:
                yield from _wrapped(str(fault), 2)
            if len(faults) > FAULTS_SHOWN:
                yield f"  and {len(faults) - FAULTS_SHOWN:,} more; see them all with --json"


def _first_ids(faults: list[Fault]) -> str:
    ids = [fault.id for fault in faults if fault.id is not None]
    if not ids:
        return ""
    return f"  {', '.join(ids[:_IDS_SHOWN])}" + (", ..." if len(ids) > _IDS_SHOWN else "")


def _number(n: int, what: str) -> str:
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def _wrapped(text: str, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        TEXT_WIDTH,
        initial_indent=" " * indent,
        subsequent_indent=" " * (indent + 4),
        break_long_words=False,
        break_on_hyphens=False,
    )
