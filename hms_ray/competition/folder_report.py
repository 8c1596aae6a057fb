"""The result of a check, as text and as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from hms_ray.errors import Fault
from hms_ray.text import counted

TEXT_WIDTH: Final = 80
FAULTS_SHOWN: Final = 5
"""Faults per kind that the text shows; JSON has all of them."""
IDS_SHOWN: Final = 3

COUNT_NAMES: Final = {
    "label_rows": "label rows",
    "eegs": "EEGs",
    "spectrograms": "spectrograms",
    "patients": "patients",
    "unknown_label_ids": "label rows without a label_id",
    "missing_eeg_files": "EEG files missing",
    "missing_spectrogram_files": "spectrogram files missing",
    "unlisted_eeg_files": "EEG files not in train.csv",
    "unlisted_spectrogram_files": "spectrogram files not in train.csv",
    "test_recordings": "test recordings",
    "missing_test_eeg_files": "test EEG files missing",
    "missing_test_spectrogram_files": "test spectrogram files missing",
    "unlisted_test_eeg_files": "EEG files not in test.csv",
    "unlisted_test_spectrogram_files": "spectrogram files not in test.csv",
}
"""Counts in display order; those after the patients are shown only if not 0."""
_ALWAYS_SHOWN: Final = tuple(COUNT_NAMES)[:4]


@dataclass(frozen=True)
class TierReport:
    """Label rows whose total votes lie in one tier.

    Attributes:
        label_rows: number of label rows.
        rows: number of training rows of the unit ``eeg_votes``.
        entropy: mean entropy of the vote shares in nats; None without rows.
        unanimous: share of label rows whose votes are all for one class; None without rows.
    """

    label_rows: int
    rows: int
    entropy: float | None
    unanimous: float | None


@dataclass(frozen=True)
class FolderReport:
    """The result of ``check_folder`` or ``check_table``.

    Attributes:
        folder: the checked folder; None if only a table was checked.
        table: the label table, if it is not the folder's own.
        counts: ``COUNT_NAMES`` -> number, counts of files only with a folder; empty if
            the label table is unusable.
        units: row unit -> number of training rows.
        classes: class -> label rows with that expert consensus.
        tiers: name of a vote tier -> its rows.
        faults: all faults: of the label table, of training files by file, of the test part.
        notes: lines on what the folder does not have and need not have.
    """

    folder: str | None
    table: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, int] = field(default_factory=dict)
    classes: Mapping[str, int] = field(default_factory=dict)
    tiers: Mapping[str, TierReport] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there are no faults."""
        return not self.faults

    def by_kind(self) -> dict[str, list[Fault]]:
        """Kind -> its faults, both in the order of ``faults``."""
        found: dict[str, list[Fault]] = {}
        for fault in self.faults:
            found.setdefault(fault.kind, []).append(fault)
        return found

    def to_json(self) -> str:
        """The whole report as a JSON object.

        Its keys are ``ok``, the names of the attributes, and ``kinds``: kind -> ``count`` and
        ``first_ids``, the ids of the first faults that have one. ``faults`` has one line per
        fault, however many there are.
        """
        head = {"ok": self.ok, **asdict(replace(self, faults=()))}
        del head["faults"]
        head["kinds"] = {
            kind: {
                "count": len(faults),
                "first_ids": [fault.id for fault in faults if fault.id is not None][:IDS_SHOWN],
            }
            for kind, faults in self.by_kind().items()
        }
        lines = ",\n    ".join(json.dumps(vars(fault)) for fault in self.faults)
        faults = f"[\n    {lines}\n  ]" if lines else "[]"
        return f'{json.dumps(head, indent=2)[:-2]},\n  "faults": {faults}\n}}'

    def to_text(self) -> str:
        """The report as text, wrapped to 80 columns."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if self.folder is not None:
            yield f"Competition folder {self.folder}"
        if self.table is not None:
            yield f"Label table {self.table}"
        if self.counts:
            yield ""
            yield from self._count_lines()
            yield ""
            yield from self._tier_lines()
            yield ""
            yield from self._class_lines()
        yield ""
        yield from self.notes
        yield from self._fault_lines()

    def _count_lines(self) -> Iterator[str]:
        for name, title in COUNT_NAMES.items():
            if self.counts.get(name) or name in _ALWAYS_SHOWN:
                yield f"  {title:<36}{self.counts[name]:>9,}"
        missing = [n for name, n in self.counts.items() if name.startswith("missing_")]
        if missing and not any(missing):
            yield f"  {'files missing':<36}{'none':>9}"
        for unit, n_rows in self.units.items():
            yield f"  {f'training rows (unit {unit})':<36}{n_rows:>9,}"

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
            yield f"No faults in the {'table' if self.folder is None else 'folder'}."
            return
        kinds = self.by_kind()
        yield f"{counted(len(self.faults), 'fault')} of {counted(len(kinds), 'kind')}"
        for kind, faults in kinds.items():
            yield ""
            yield f"{kind}: {counted(len(faults), 'fault')}"
            for fault in faults[:FAULTS_SHOWN]:
                yield from _wrapped(str(fault))
            if len(faults) > FAULTS_SHOWN:
                yield f"  and {len(faults) - FAULTS_SHOWN:,} more; --json lists all of them"
            for fix in dict.fromkeys(fault.fix for fault in faults if fault.fix):
                yield from _wrapped(f"Remedy: {fix}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        TEXT_WIDTH,
        initial_indent="  ",
        subsequent_indent="      ",
        break_long_words=False,
        break_on_hyphens=False,
    )
