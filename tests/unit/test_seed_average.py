"""The training seeds of a trial averaged as one model: out of fold, in blends and submissions."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hms_ray.blend.export import ExportOptions, export
from hms_ray.blend.members import read_members
from hms_ray.blend.submit import submit
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.config.values import replace_values
from hms_ray.display.tables import to_text
from hms_ray.errors import StudyError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.run import run_experiment
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.study.confirmation import ConfirmedRuns, confirmation_table, confirmed_trials
from hms_ray.study.seeds import seed_runs
from tests.refused import refusal
from tests.trained_study import TrainedStudy, train_study, write_test_set

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> TrainedStudy:
    """A study of one trial, which was trained with a second seed too."""
    made = train_study(tmp_path_factory.mktemp("seeds"))
    experiment = replace_values(made.folder.space().experiment, {"training.seed": 1001})
    runner = InProcessRunner(device="cpu")
    result = run_experiment(experiment, made.prepared, made.results, runner)
    ConfirmedRuns(made.folder.path, 1001).write_trial(0, {}, experiment, result)
    return made


def test_out_of_fold_probabilities_are_the_mean_of_the_seeds(study: TrainedStudy) -> None:
    own = study.folder.finished_trial()
    other = ConfirmedRuns(study.folder.path, 1001).trial(0)
    assert other is not None
    assert other.recalibrated.keys() == own.recalibrated.keys() == {"kl_all", "kl_4", "kl_10"}
    rows = study.prepared.rows()
    single = [probabilities_of(run.oof(rows)) for run in (own, other)]
    mean = (single[0] + single[1]) / 2
    (member,) = read_members([f"{study.name}/0@seeds"], study.results)
    assert member.name == "0000@seeds"
    np.testing.assert_allclose(member.probabilities, mean, rtol=1e-12)
    keys = [*own.keys.values(), *other.keys.values()]
    assert member.origin["keys"] == {str(number): key for number, key in enumerate(keys)}
    assert member.minutes == pytest.approx(own.fold_minutes + other.fold_minutes)
    (of_study,) = read_members([f"{study.name}@seeds"], study.results)
    assert of_study.name == member.name
    (trial,) = confirmed_trials(study.folder)
    targets = rows[list(TARGET_COLUMNS)].to_numpy()
    logs = np.log(np.maximum(targets, 1e-300)) - np.log(mean)
    kl = (targets * np.where(targets > 0, logs, 0)).sum(axis=1)
    counted = rows["total_votes"].to_numpy() >= 10
    assert trial.averaged["kl_10"] == pytest.approx(kl[counted].mean())
    assert trial.recalibrated == pytest.approx(other.recalibrated["kl_10"])
    table = confirmation_table([trial], "kl_10")
    assert table is not None
    assert f"{kl[counted].mean():.4f}" in to_text(table)


def test_submissions_and_exports_average_the_seeds(study: TrainedStudy, tmp_path: Path) -> None:
    tests = write_test_set(tmp_path / "test")

    def submitted(target: str, **options: Any) -> tuple[np.ndarray, str]:
        out = tmp_path / "out.csv"
        call = SubmitOptions(data_dir=tests, results=study.results, out=out, **options)
        text = submit(target, call)
        return pd.read_csv(out)[list(PROBABILITY_COLUMNS)].to_numpy(), text

    own, _ = submitted(study.name)
    both, text = submitted(f"{study.name}@seeds")
    assert f"mean of 2 folds x 2 seeds of {study.name} 0000@seeds" in text
    assert np.abs(own - both).max() > 1e-4
    place = tmp_path / "export"
    target = f"{study.name}/0000@seeds"
    export(target, ExportOptions(out=place, results=study.results, wheel=False))
    assert "2 folds x 2 seeds" in (place / "README.md").read_text()
    exported, text = submitted(str(place))
    np.testing.assert_allclose(exported, both, rtol=1e-12)
    assert "2 folds x 2 seeds" in text
    # The second seed alone, as a study of its own.
    alone = train_study(tmp_path / "alone", data=study.data, values={"training.seed": 1001})
    assert alone.result.keys == seed_runs(study.folder, 0).runs[1].keys
    call = SubmitOptions(data_dir=tests, results=alone.results, out=tmp_path / "alone.csv")
    submit(alone.name, call)
    second = pd.read_csv(tmp_path / "alone.csv")[list(PROBABILITY_COLUMNS)].to_numpy()
    np.testing.assert_allclose(both, (own + second) / 2, rtol=1e-12)


def test_a_trial_with_one_seed_is_refused(tmp_path: Path) -> None:
    study = train_study(tmp_path)
    rule = "@seeds needs a trial that was trained with further seeds"
    got = "one training seed of trial 0000"
    for target in (f"{study.name}/0@seeds", f"{study.name}@seeds"):
        options = SubmitOptions(data_dir=study.data, results=study.results)
        with refusal(StudyError, rule, got=got, where=study.name, fix="--confirm 1 --seeds 3"):
            submit(target, options)
    # Of a whole study, trials with one seed are members as they are.
    (member,) = read_members([f"{study.name}@seeds"], study.results)
    assert member.name == "0000"
