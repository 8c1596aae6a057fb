"""All ensemble methods on out-of-fold predictions, as a Markdown table.

``python -m tests.benchmarks.method_table FOLDER [--objective kl_10] [--repeats 5]
[--choosing]``: FOLDER holds ``targets.parquet`` and one file per model. ``--choosing`` adds
the nested estimate of selecting a method.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hms_ray.ensemble.methods.registry import all_methods
from hms_ray.ensemble.report import blend_report
from hms_ray.ensemble.selection_result import Selection
from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.metric import OBJECTIVES
from tests.oof_sample import oof_sample


def interval_text(interval: Interval) -> str:
    return f"{interval.mean:+.5f} [{interval.low:+.5f}, {interval.high:+.5f}]"


def print_selection(selection: Selection) -> None:
    print(f"{selection.objective}: {selection.n_rows:,} rows of {selection.n_patients:,} patients,")
    print(f"{selection.n_splits} splits by patient, seeds {', '.join(map(str, selection.seeds))}.")
    best = selection.candidates[selection.best].name
    print(f"Best {best}, chosen {selection.name}.\n")
    print("| method | nested | in-sample | optimism | minus simplex | minus best | fit s |")
    print("|---|---|---|---|---|---|---|")
    for found in selection.candidates:
        cells = [
            found.name,
            *(f"{value:.4f}" for value in (found.nested, found.in_sample, found.optimism)),
            interval_text(found.minus_reference),
            f"{found.minus_best.mean:+.5f} (SE {found.minus_best.standard_error:.5f})",
            f"{found.fit_seconds:.2f}",
        ]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Prints the table, and with ``--choosing`` the nested estimate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--objective", choices=OBJECTIVES, default="kl_all")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--choosing", action="store_true")
    args = parser.parse_args()
    sample = oof_sample(args.folder)
    report = blend_report(
        *(sample.targets, sample.models, sample.names, sample.patients, sample.votes),
        candidates=list(all_methods().values()),
        method=None if args.choosing else "simplex",
        objective=args.objective,
        n_repeats=args.repeats,
    )
    print_selection(report.selection)
    found = report.selection_estimate
    if found is not None:
        print(f"\nchoosing nested: {interval_text(found.nested)},")
        print(f"minus simplex {interval_text(found.minus_reference)}; {found.times_chosen}.")


if __name__ == "__main__":
    main()
