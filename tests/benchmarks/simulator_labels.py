"""Figures of label tables, simulated compared with real.

The real table is ``train_labels.parquet`` or ``train.csv`` of a folder; the simulated one
comes from ``simulate_labels`` with the profile ``competition``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hms_ray.competition.schema import CLASSES, N_CLASSES, VOTE_COLUMNS

SHORT: Final = ("S", "LPD", "GPD", "LRDA", "GRDA", "O")
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


def total_variation(real: pd.DataFrame, simulated: pd.DataFrame) -> float:
    """Total variation distance of the numbers of votes by label row."""
    counts = [table["total"].value_counts(normalize=True) for table in (real, simulated)]
    return float(counts[0].sub(counts[1], fill_value=0).abs().sum() / 2)


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


def _tier_sides(groups: pd.DataFrame, key: str) -> pd.DataFrame:
    """Whether there are groups with fewer than ten votes (few) and others (many), by ``key``."""
    return (
        groups.assign(few=groups["total"] < 10, many=groups["total"] >= 10)
        .groupby(key)[["few", "many"]]
        .any()
    )


def few_many_agreement(groups: pd.DataFrame) -> float:
    """How often the majorities of few and of many votes agree on an EEG."""
    sums = (
        groups.assign(few=groups["total"] < 10).groupby(["eeg_id", "few"])[list(VOTE_COLUMNS)].sum()
    )
    majority = sums.to_numpy().argmax(axis=1)
    by_side = pd.Series(majority, sums.index).unstack("few").dropna()
    return float((by_side[True] == by_side[False]).mean())


def label_lines(real_labels: pd.DataFrame, simulated_labels: pd.DataFrame) -> list[Line]:
    """Every figure of both label tables."""
    real, simulated = Table.of(real_labels), Table.of(simulated_labels)

    def line(name: str, figure: Callable[[Table], float], within: float | None = None) -> Line:
        return near(name, figure(real), figure(simulated), within)

    distance = total_variation(real.rows, simulated.rows)
    return [
        near("vote totals by row, total variation", 0.0, distance, 0.05),
        *_agreement_lines(line),
        *_class_lines(real, simulated),
        *_second_vote_lines(real, simulated),
        *_structure_lines(line),
        *_cluster_lines(line, real, simulated),
    ]


LineOf = Callable[..., Line]


def _agreement_lines(line: LineOf) -> Iterator[Line]:
    for name, low, high in (("1-3", 1, 3), ("4-28", 4, 28), (">=10", 10, 99)):
        yield line(
            f"entropy of rows, {name} votes",
            lambda t, low=low, high=high: entropy(of_total(t.rows, low, high)),
            0.05,
        )
        yield line(
            f"unanimous rows, {name} votes",
            lambda t, low=low, high=high: unanimous(of_total(t.rows, low, high)),
            0.05,
        )
    for position, name in enumerate(CLASSES):

        def of_class(t: Table, position: int = position) -> float:
            few = of_total(t.groups, 1, 3)
            return unanimous(few[shares(few).argmax(axis=1) == position])

        yield line(f"unanimous groups, 1-3 votes, {name}", of_class)
    yield line("unanimous rows, 3 votes", lambda t: unanimous(of_total(t.rows, 3, 3)))
    yield line("unanimous groups, 3 votes", lambda t: unanimous(of_total(t.groups, 3, 3)))
    yield line(
        "groups of >=10 votes thinned to three, unanimous",
        lambda t: unanimous_of_three(of_total(t.groups, 10, 99)),
    )


def _class_lines(real: Table, simulated: Table) -> Iterator[Line]:
    """Class shares of vote groups, with a limit of 0.05, and of label rows, without one."""
    for unit, within in (("groups", 0.05), ("rows", None)):
        for tier, low, high in _TIERS:
            both = [
                shares(of_total(getattr(t, unit), low, high)).mean(axis=0)
                for t in (real, simulated)
            ]
            for name, *values in zip(CLASSES, *both, strict=True):
                yield near(f"share of {name}, {unit} of {tier} votes", *values, within)


def _second_vote_lines(real: Table, simulated: Table) -> Iterator[Line]:
    tables = [second_vote(t.groups) for t in (real, simulated)]
    for first in range(N_CLASSES):
        for second in range(N_CLASSES):
            values = (float(table[first, second]) for table in tables)
            yield near(f"second vote {SHORT[second]} after {SHORT[first]}", *values, 0.10)


def _structure_lines(line: LineOf) -> Iterator[Line]:
    """Numbers of rows, EEGs, spectrograms and patients, and their relations."""

    def sizes(t: Table, key: str) -> pd.Series:
        return t.rows.groupby(key).size()

    def numbers(t: Table, key: str, of: str) -> pd.Series:
        return t.rows.groupby(key)[of].nunique()

    yield line("label rows", lambda t: len(t.rows))
    for name in ("eeg_id", "spectrogram_id", "patient_id"):
        yield line(f"{name}s", lambda t, name=name: t.rows[name].nunique())
    yield line("label rows per EEG, median", lambda t: sizes(t, "eeg_id").median())
    yield line("label rows per EEG, mean", lambda t: sizes(t, "eeg_id").mean())
    yield line("label rows per EEG, largest", lambda t: sizes(t, "eeg_id").max())
    yield line("EEGs of one label row", lambda t: (sizes(t, "eeg_id") == 1).sum())
    yield line("EEGs per patient, median", lambda t: numbers(t, "patient_id", "eeg_id").median())
    yield line("EEGs per patient, mean", lambda t: numbers(t, "patient_id", "eeg_id").mean())
    yield line("EEGs per patient, largest", lambda t: numbers(t, "patient_id", "eeg_id").max())
    yield line(
        "EEGs per spectrogram, mean", lambda t: numbers(t, "spectrogram_id", "eeg_id").mean()
    )
    yield line(
        "spectrograms of one EEG", lambda t: (numbers(t, "spectrogram_id", "eeg_id") == 1).mean()
    )
    yield line("vote groups", lambda t: len(t.groups))
    for quantile in (0.5, 0.9):
        yield line(
            f"span of a vote group, {quantile:.0%}, s",
            lambda t, quantile=quantile: t.groups["span_s"].quantile(quantile),
        )
    yield line(
        "EEG file, median, s",
        lambda t: 50 + t.rows.groupby("eeg_id")["eeg_label_offset_seconds"].max().median(),
    )
    for name in CLASSES:
        yield line(
            f"consensus {name}, rows",
            lambda t, name=name: (t.rows["expert_consensus"] == name).sum(),
        )


def _cluster_lines(line: LineOf, real: Table, simulated: Table) -> Iterator[Line]:
    def patients(t: Table, few: bool, many: bool) -> float:
        sides = _tier_sides(t.groups, "patient_id")
        return float(((sides["few"] == few) & (sides["many"] == many)).mean())

    yield line("patients of few and many votes", lambda t: patients(t, True, True), 0.05)
    yield line("patients of few votes only", lambda t: patients(t, True, False), 0.05)
    yield line("patients of many votes only", lambda t: patients(t, False, True), 0.05)
    yield line(
        "EEGs of few and many votes",
        lambda t: _tier_sides(t.groups, "eeg_id").all(axis=1).sum(),
    )
    yield line("few and many agree on an EEG", lambda t: few_many_agreement(t.groups))
    both = [patient_correlation(t.groups) for t in (real, simulated)]
    for name, *values in zip(CLASSES, *both, strict=True):
        yield Line(f"correlation within a patient, {name}", *values)
