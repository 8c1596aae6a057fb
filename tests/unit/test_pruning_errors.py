"""How often the pruner stops the trial that is in truth the best; prints its table."""

import numpy as np
import pytest

from hms_ray.config.pruning import PruneConfig
from tests.simulated_trials import ALONE, loses_best

N_STUDIES = 100
N_TRIALS = 40


def share_lost(config: PruneConfig, spread: float, fold_noise: float) -> float:
    generator = np.random.default_rng(11)
    return float(
        np.mean(
            [loses_best(generator, config, N_TRIALS, spread, fold_noise) for _ in range(N_STUDIES)]
        )
    )


@pytest.mark.slow
def test_best_trial_is_stopped_in_at_most_5_percent_of_studies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [f"{N_STUDIES} studies of {N_TRIALS} trials x 5 folds; the best one is stopped in"]
    lines.append(f"{'spread':>8}{'fold noise':>12}{'paired':>10}{'patients alone':>16}")
    found = {}
    for spread in (0.05, 0.15):
        for fold_noise in (0.0, 0.004, 0.008, 0.016):
            paired, alone = (share_lost(one, spread, fold_noise) for one in (PruneConfig(), ALONE))
            found[spread, fold_noise] = paired, alone
            lines.append(f"{spread:8.2f}{fold_noise:12.3f}{paired:10.1%}{alone:16.1%}")
    with capsys.disabled():
        print("\n" + "\n".join(lines))
    assert all(paired <= 0.05 for (_, noise), (paired, _) in found.items() if noise <= 0.008)
    assert found[0.05, 0.008][1] > 3 * found[0.05, 0.008][0]
    assert found[0.05, 0.008][1] > 0.10
