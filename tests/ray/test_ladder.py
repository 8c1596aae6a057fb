import io
import re
from pathlib import Path

import pandas as pd
import pytest

from hms_ray.config.values import replace_values
from hms_ray.dataset.prepare import prepare
from hms_ray.distributed.ladder_trainer import RayTrainer
from hms_ray.ladder.plan import sources_of
from hms_ray.ladder.run import run_ladder
from hms_ray.ladder.steps import Ladder, LadderStep, load_ladder
from tests.competition_folder import write_competition_folder
from tests.unit.test_ladder_run import write_files

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("connected")]


def test_ladder_keeps_worker_groups_for_many_folds(tmp_path: Path) -> None:
    write_competition_folder(tmp_path / "data")
    whole = load_ladder(write_files(tmp_path), only=["a", "b"])
    broken = replace_values(whole.experiments()["b"], {"training.learning_rate": 1e30})
    ladder = Ladder(
        (
            *whole.steps,
            LadderStep("broken", "test", "", None, broken.model_copy(update={"name": "x"})),
        ),
        whole.resources,
    )
    results = tmp_path / "results"
    first = ladder.experiments()["a"]
    prepared = prepare(tmp_path / "data", first, results, sources=sources_of(ladder))
    printed = io.StringIO()
    with RayTrainer(ladder.resources, tmp_path / "ray", results, stream=printed) as trainer:
        run = run_ladder(ladder, prepared, results, trainer)
    assert [result.name for result in run.results] == ["a", "b"]
    assert list(run.failed) == ["broken"]
    assert re.search(r"must be finite, got .*, in stage .*, epoch 1, step \d", run.failed["broken"])
    assert run.n_trained == 6
    for result in run.results:
        pd.testing.assert_series_equal(result.oof["row_id"], prepared.rows()["row_id"])
    lines = printed.getvalue().splitlines()
    assert any("groups of 1 worker" in line for line in lines)
    assert len([line for line in lines if " done" in line]) == 6
    # On two CPUs; a new one would be a loss.
    groups = set(re.findall(r"(group-\d+) started in", printed.getvalue()))
    assert sorted(groups) in (["group-0"], ["group-0", "group-1"])
    assert not (tmp_path / "ray").exists(), "nothing is left"
