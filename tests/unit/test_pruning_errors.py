"""How often the pruner stops the trial that is in truth the best; prints its table."""

import numpy as np
import pytest

from hms_ray.config.pruning import PruneConfig
from tests.simulated_trials import ALONE, loses_best

N_TRIALS = 40
CHOSEN_ON, REPORTED_ON = range(1_000, 1_300), range(20_000, 20_400)
"""Seeds of the studies on which the rule was chosen, and of others, seen only afterwards."""


def share_lost(config: PruneConfig, spread: float, fold_noise: float, seeds: range) -> float:
    return float(
        np.mean(
            [
                loses_best(np.random.default_rng(seed), config, N_TRIALS, spread, fold_noise)
                for seed in seeds
            ]
        )
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_best_trial_is_stopped_in_at_most_5_percent_of_studies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ranges = f"seeds {CHOSEN_ON.start} to {CHOSEN_ON.stop - 1} chose the rule; reported are seeds "
    ranges += f"{REPORTED_ON.start} to {REPORTED_ON.stop - 1}"
    lines = [f"studies of {N_TRIALS} trials x 5 folds in which the best trial is stopped", ranges]
    lines.append(
        f"{'spread':>8}{'fold noise':>12}{'chosen on':>11}{'reported':>10}{'patients alone':>16}"
    )
    found = {}
    for spread in (0.05, 0.15):
        for fold_noise in (0.0, 0.004, 0.008, 0.016, 0.03):
            chosen, reported = (
                share_lost(PruneConfig(), spread, fold_noise, seeds)
                for seeds in (CHOSEN_ON, REPORTED_ON)
            )
            alone = share_lost(ALONE, spread, fold_noise, REPORTED_ON[:100])
            found[spread, fold_noise] = reported, alone
            lines.append(
                f"{spread:8.2f}{fold_noise:12.3f}{chosen:11.1%}{reported:10.1%}{alone:16.1%}"
            )
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert all(reported <= 0.05 for reported, _ in found.values())
    assert found[0.05, 0.016][1] > 3 * found[0.05, 0.016][0]
    assert found[0.05, 0.016][1] > 0.10
