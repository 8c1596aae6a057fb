"""Figures of a label table: agreement, classes, structure, and patients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import CLASSES, VOTE_COLUMNS

_TIERS: Final = (("1-3", 1, 3), ("4-7", 4, 7), (">=10", 10, 99))


@dataclass(frozen=True)
class Line:
    """One figure of the real and of the simulated data.

    Attributes:
        name: name of the figure.
        real: its real value.
        simulated: its simulated value.
        low: smallest allowed simulated value; None: no limits.
        high: largest allowed simulated value; None: no upper limit.
    """

    name: str
    real: float
    simulated: float
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str:
        """``ok``, ``OFF`` or ``check`` (without limits)."""
        if self.low is None:
            return "check"
        high = np.inf if self.high is None else self.high
        return "ok" if self.low <= self.simulated <= high else "OFF"

    @property
    def target(self) -> str:
        """The limits as text."""
        if self.low is None:
            return ""
        return f"{self.low:.3g}.." + ("" if self.high is None else f"{self.high:.3g}")


def near(name: str, real: float, simulated: float, within: float | None = None) -> Line:
    """A line whose simulated value may differ from the real one by ``within``."""
    if within is None:
        return Line(name, real, simulated)
    return Line(name, real, simulated, real - within, real + within)


@dataclass(frozen=True)
class Table:
    """A label table and its vote groups.

    Attributes:
        rows: label rows; ``total``: their votes.
        groups: vote groups (distinct EEG and votes) with ``n_rows``, ``span_s``, ``total``.
    """

    rows: pd.DataFrame
    groups: pd.DataFrame

    @classmethod
    def of(cls, labels: pd.DataFrame) -> Table:
        """From label rows in the competition's format."""
        rows = labels.assign(total=labels[list(VOTE_COLUMNS)].sum(axis=1))
        offset = "eeg_label_offset_seconds"
        groups = rows.groupby(["eeg_id", *VOTE_COLUMNS], as_index=False, sort=False).agg(
            patient_id=("patient_id", "first"),
            total=("total", "first"),
            n_rows=("total", "size"),
            first_s=(offset, "min"),
            last_s=(offset, "max"),
        )
        return cls(rows, groups.assign(span_s=groups["last_s"] - groups["first_s"]))


def shares(table: pd.DataFrame) -> NDArray[np.float64]:
    """(n, 6) vote shares."""
    votes = table[list(VOTE_COLUMNS)].to_numpy(np.float64)
    result: NDArray[np.float64] = votes / votes.sum(axis=1, keepdims=True)
    return result


def of_total(table: pd.DataFrame, low: int, high: int) -> pd.DataFrame:
    """Rows with ``low`` to ``high`` votes."""
    return table[table["total"].between(low, high)]


def entropy(table: pd.DataFrame) -> float:
    """Mean entropy of the vote shares, nats."""
    p = shares(table)
    return float(-(p * np.log(np.where(p > 0, p, 1))).sum(axis=1).mean())


def unanimous(table: pd.DataFrame) -> float:
    """Share of unanimous rows."""
    return float((shares(table).max(axis=1) == 1).mean())


def unanimous_of_three(groups: pd.DataFrame) -> float:
    """Probability that three votes of a group, drawn without replacement, are equal."""
    votes = groups[list(VOTE_COLUMNS)].to_numpy(np.float64)
    totals = votes.sum(axis=1)
    equal = (votes * (votes - 1) * (votes - 2)).sum(axis=1)
    return float((equal / (totals * (totals - 1) * (totals - 2))).mean())


def second_vote(groups: pd.DataFrame) -> NDArray[np.float64]:
    """(6, 6): a second vote given the first, of groups of ten votes or more."""
    votes = of_total(groups, 10, 99)[list(VOTE_COLUMNS)].to_numpy(np.float64)
    weighted = votes / (votes.sum(axis=1, keepdims=True) - 1)
    pairs = votes.T @ weighted - np.diag(weighted.sum(axis=0))
    result: NDArray[np.float64] = pairs / pairs.sum(axis=1, keepdims=True)
    return result


def patient_correlation(groups: pd.DataFrame) -> NDArray[np.float64]:
    """(6,) intraclass correlation of the shares within a patient (one-way ANOVA)."""
    patients = groups["patient_id"]
    sizes = patients.value_counts()
    n, k = len(groups), len(sizes)
    usual = (n - (sizes**2).sum() / n) / (k - 1)
    p = pd.DataFrame(shares(groups), index=groups.index)
    within = p - p.groupby(patients).transform("mean")
    total = ((p - p.mean()) ** 2).sum()
    inside = (within**2).sum()
    between_square, within_square = (total - inside) / (k - 1), inside / (n - k)
    ratio = (between_square - within_square) / (between_square + (usual - 1) * within_square)
    return ratio.to_numpy()


def few_many_agreement(groups: pd.DataFrame) -> float:
    """How often the majorities of few and of many votes agree on an EEG."""
    few = groups["total"] < 10
    sums = groups.assign(few=few).groupby(["eeg_id", "few"])[list(VOTE_COLUMNS)].sum()
    majority = sums.to_numpy().argmax(axis=1)
    by_side = pd.Series(majority, sums.index).unstack("few").dropna()
    return float((by_side[True] == by_side[False]).mean())


def label_lines(real_labels: pd.DataFrame, simulated_labels: pd.DataFrame) -> list[Line]:
    """Every figure of both label tables."""
    tables = [Table.of(labels) for labels in (real_labels, simulated_labels)]
    totals = [table.rows["total"].value_counts(normalize=True) for table in tables]
    distance = float(totals[0].sub(totals[1], fill_value=0).abs().sum() / 2)
    real, simulated = (_agreement(t) | _classes(t) | _structure(t) | _patients(t) for t in tables)
    return [
        near("vote totals by row, total variation", 0.0, distance, 0.05),
        *(near(name, real[name][0], *simulated[name]) for name in real),
    ]


Figures = dict[str, tuple[float, float | None]]
"""Name -> figure and the largest allowed difference; None: no limit."""


def _agreement(t: Table) -> Figures:
    found: Figures = {}
    for name, low, high in (("1-3", 1, 3), ("4-28", 4, 28), (">=10", 10, 99)):
        rows = of_total(t.rows, low, high)
        found[f"entropy of rows, {name} votes"] = entropy(rows), 0.05
        found[f"unanimous rows, {name} votes"] = unanimous(rows), 0.05
    few = of_total(t.groups, 1, 3)
    for position, name in enumerate(CLASSES):
        of_class = few[shares(few).argmax(axis=1) == position]
        found[f"unanimous groups, 1-3 votes, {name}"] = unanimous(of_class), None
    thinned = unanimous_of_three(of_total(t.groups, 10, 99))
    return found | {
        "unanimous rows, 3 votes": (unanimous(of_total(t.rows, 3, 3)), None),
        "unanimous groups, 3 votes": (unanimous(of_total(t.groups, 3, 3)), None),
        "groups of >=10 votes thinned to three, unanimous": (thinned, None),
    }


def _classes(t: Table) -> Figures:
    found: Figures = {}
    for unit, table, within in (("groups", t.groups, 0.05), ("rows", t.rows, None)):
        for tier, low, high in _TIERS:
            mean = shares(of_total(table, low, high)).mean(axis=0).tolist()
            for name, share in zip(CLASSES, mean, strict=True):
                found[f"share of {name}, {unit} of {tier} votes"] = share, within
    for first, row in zip(CLASSES, second_vote(t.groups).tolist(), strict=True):
        for second, share in zip(CLASSES, row, strict=True):
            found[f"second vote {second} after {first}"] = share, 0.10
    return found


def _structure(t: Table) -> Figures:
    """Numbers of rows, EEGs, spectrograms and patients, and their relations."""
    rows_of_eeg = t.rows.groupby("eeg_id").size()
    eegs_of_patient = t.rows.groupby("patient_id")["eeg_id"].nunique()
    eegs_of_spectrogram = t.rows.groupby("spectrogram_id")["eeg_id"].nunique()
    last_offset = t.rows.groupby("eeg_id")["eeg_label_offset_seconds"].max()
    found = {
        "label rows": len(t.rows),
        "eeg_ids": len(rows_of_eeg),
        "spectrogram_ids": len(eegs_of_spectrogram),
        "patient_ids": len(eegs_of_patient),
        "label rows per EEG, median": rows_of_eeg.median(),
        "label rows per EEG, mean": rows_of_eeg.mean(),
        "label rows per EEG, largest": rows_of_eeg.max(),
        "EEGs of one label row": (rows_of_eeg == 1).sum(),
        "EEGs per patient, median": eegs_of_patient.median(),
        "EEGs per patient, mean": eegs_of_patient.mean(),
        "EEGs per patient, largest": eegs_of_patient.max(),
        "EEGs per spectrogram, mean": eegs_of_spectrogram.mean(),
        "spectrograms of one EEG": (eegs_of_spectrogram == 1).mean(),
        "vote groups": len(t.groups),
        "span of a vote group, 50%, s": t.groups["span_s"].quantile(0.5),
        "span of a vote group, 90%, s": t.groups["span_s"].quantile(0.9),
        "EEG file, median, s": 50 + last_offset.median(),
    }
    consensus = t.rows["expert_consensus"]
    found |= {f"consensus {name}, rows": (consensus == name).sum() for name in CLASSES}
    return {name: (float(value), None) for name, value in found.items()}


def _patients(t: Table) -> Figures:
    sides = t.groups.assign(few=t.groups["total"] < 10, many=t.groups["total"] >= 10)
    patients = sides.groupby("patient_id")[["few", "many"]].any()
    both_on_eeg = sides.groupby("eeg_id")[["few", "many"]].any().all(axis=1)
    correlations = patient_correlation(t.groups).tolist()
    return {
        "patients of few and many votes": (float(patients.all(axis=1).mean()), 0.05),
        "patients of few votes only": (float((~patients["many"]).mean()), 0.05),
        "patients of many votes only": (float((~patients["few"]).mean()), 0.05),
        "EEGs of few and many votes": (float(both_on_eeg.sum()), None),
        "few and many agree on an EEG": (few_many_agreement(t.groups), None),
        **{
            f"correlation within a patient, {name}": (value, None)
            for name, value in zip(CLASSES, correlations, strict=True)
        },
    }
