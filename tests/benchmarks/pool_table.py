"""All pools on out-of-fold predictions: nested KL, optimism, difference to simplex weights.

``python -m tests.benchmarks.pool_table FOLDER [--objective kl_10] [--seeds 0 1 2 3 4]
[--methods ...] [--choosing]`` prints a Markdown table; FOLDER holds ``targets.parquet``
and a file a model. ``--choosing`` adds the nested estimate of the choice itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from hms_ray.ensemble.methods.registry import all_pools, named_pools
from hms_ray.ensemble.selection import SEEDS, choose_pool, nested_choice_estimate
from hms_ray.ensemble.selection_result import Choice
from hms_ray.evaluate.intervals import Interval
from hms_ray.evaluate.metric import OBJECTIVES
from tests.oof_sample import oof_sample

REFERENCE = "simplex"


def told(interval: Interval) -> str:
    return f"{interval.mean:+.5f} [{interval.low:+.5f}, {interval.high:+.5f}]"


def print_choice(choice: Choice) -> None:
    print(f"{choice.objective}: {choice.n_rows:,} rows of {choice.n_patients:,} patients,")
    print(f"{choice.n_splits} splits by patient, seeds {', '.join(map(str, choice.seeds))}.")
    print(f"Best {choice.rated[choice.best].name}, chosen {choice.name}.\n")
    print("| method | nested | in sample | optimism | minus simplex | minus best | fit s |")
    print("|---|---|---|---|---|---|---|")
    for rated in choice.rated:
        assert rated.to_reference is not None
        best = f"{rated.to_best.mean:+.5f} (SE {rated.standard_error:.5f})"
        print(
            f"| {rated.name} | {rated.nested:.4f} | {rated.in_sample:.4f} | "
            f"{rated.optimism:.4f} | {told(rated.to_reference)} | {best} | {rated.seconds:.2f} |"
        )


def main() -> None:
    """Prints the table, and with ``--choosing`` two lines more."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("folder", type=Path)
    words.add_argument("--objective", choices=OBJECTIVES, default="kl_all")
    words.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    words.add_argument("--methods", nargs="+")
    words.add_argument("--choosing", action="store_true")
    given = words.parse_args()
    sample = oof_sample(given.folder)
    pools = named_pools(given.methods or list(all_pools()))
    data = (sample.targets, sample.models, sample.patients, sample.votes, pools)
    print_choice(choose_pool(*data, given.objective, reference=REFERENCE, seeds=given.seeds))
    if given.choosing:
        found = nested_choice_estimate(*data, REFERENCE, given.objective)
        print(f"\nChosen and fitted on other patients: {told(found.nested)},")
        print(f"minus simplex {told(found.to_reference)}; taken: {found.taken}.")


if __name__ == "__main__":
    main()
