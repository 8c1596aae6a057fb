"""A submission of each experiment of the gold ladder, and of their blend, at small scale."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.schema import PROBABILITY_COLUMNS, SUBMISSION_COLUMNS
from hms_ray.config.experiment import Experiment
from hms_ray.config.shipped import LADDERS
from hms_ray.config.values import replace_values
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.ladder.command import LadderCall, run_command
from hms_ray.ladder.folder import StoredLadder, read_ladder
from hms_ray.ladder.local import LocalTrainer
from hms_ray.ladder.manifest import read_manifest
from hms_ray.ladder.steps import Ladder, load_ladder
from hms_ray.predict.submission import check_submission, submission_ids
from hms_ray.predict.submit_trial import SubmitOptions, submit_models
from hms_ray.predict.trial import read_models
from tests.competition_folder import write_competition_folder
from tests.trained_study import write_test_set

pytestmark = pytest.mark.usefixtures("one_process")

MANIFEST = LADDERS["gold"]
SHIPPED = [
    entry.name for entry in read_manifest(MANIFEST).steps if entry.chain == "gold" and entry.file
]


def shortened(experiment: Experiment) -> Experiment:
    """Two folds and an epoch per stage."""
    stages = [stage.model_copy(update={"epochs": 1}) for stage in experiment.training.stages]
    values = {"data.n_folds": 2, "data.n_patients": None}
    made = replace_values(experiment, values)
    training = made.training.model_copy(update={"stages": tuple(stages)})
    return made.model_copy(update={"training": training})


def small_ladder() -> Ladder:
    ladder = load_ladder(MANIFEST, MANIFEST.parent / "small.yaml", only=["g8_log_linear"])
    steps = [
        step if step.experiment is None else replace(step, experiment=shortened(step.experiment))
        for step in ladder.steps
    ]
    return replace(ladder, steps=tuple(steps))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the data, and the results of the ladder."""
    place = tmp_path_factory.mktemp("gold")
    write_competition_folder(place / "data", n_patients=4)
    write_test_set(place / "test")
    call = LadderCall(
        data_dir=place / "data",
        results=place / "results",
        name="gold",
        simulator=None,
        oracle_scores=lambda *_: None,
        scale="small",
        argv=["ladder", "gold"],
        local=True,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hms_ray.ladder.command.print_text", lambda text: None)
        trainer = LocalTrainer(InProcessRunner(device="cpu"))
        assert run_command(small_ladder(), call, lambda _: nullcontext(trainer)) == 0
    return place


@pytest.fixture(scope="module")
def stored(folder: Path) -> StoredLadder:
    return read_ladder(folder / "results" / "gold")


def checked(file: Path, data: Path) -> np.ndarray:
    table = pd.read_csv(file)
    assert tuple(table.columns) == SUBMISSION_COLUMNS
    test_ids = pd.read_csv(data / "test.csv")["eeg_id"].tolist()
    check_submission(table, submission_ids(data, test_ids), file)
    return table[list(PROBABILITY_COLUMNS)].to_numpy()


@pytest.mark.parametrize("name", SHIPPED)
def test_each_experiment_makes_a_submission(
    name: str, folder: Path, stored: StoredLadder, tmp_path: Path
) -> None:
    (step,) = [step for step in stored.results if step.name == name]
    assert step.keys is not None
    keys = {int(fold): key for fold, key in step.keys.items()}
    models = read_models(name, keys, folder / "results")
    options = SubmitOptions(data_dir=folder / "test", results=folder / "results", device="cpu")
    submit_models(models, options, tmp_path / "submission.csv")
    found = checked(tmp_path / "submission.csv", folder / "test")
    assert found.std(axis=0).max() > 1e-5, "it reads the recordings"


def test_their_blend_makes_a_submission(
    folder: Path, stored: StoredLadder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a user makes it: ``hms-ray blend`` of the steps, then ``hms-ray submit``."""
    monkeypatch.chdir(tmp_path)
    results = str(folder / "results")
    steps = [f"gold/{name}" for name in SHIPPED]
    words = ["--method", "log_linear", "--fit-on", "kl_10", "--results", results]
    assert main(["blend", *steps, *words, "--out", "g8"]) == 0
    data = str(folder / "test")
    assert main(["submit", "g8", "--data", data, "--results", results]) == 0
    assert len(checked(tmp_path / "submission.csv", folder / "test")) > 0
    assert {step.name for step in stored.results} == {*SHIPPED, "g8_log_linear"}
