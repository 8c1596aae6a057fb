"""Trials of earlier studies that teach the sampler of a new one."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import ValidationError

from hms_ray.config.space import Space
from hms_ray.dataset.prepare import Prepared
from hms_ray.errors import StudyError
from hms_ray.search.distributions import resolve
from hms_ray.search.outcomes import Proposal
from hms_ray.search.proposals import Proposals
from hms_ray.search.warm_start import known_trials, point_of
from hms_ray.study.folder import StudyFolder
from hms_ray.study.new import create_study
from hms_ray.study.warm_start import warm_start_studies
from tests.refused import refusal
from tests.study_data import RATE, make_result, make_space

DATA = {"rows": "r" * 64, "folds": "f" * 64}


@pytest.fixture
def earlier(tmp_path: Path, prepared: Prepared) -> StudyFolder:
    """Trials at 0.0002, 0.001, 0.005 and a failed one."""
    space = make_space()
    study = create_study(tmp_path, "earlier", space, prepared)
    for number, rate in enumerate([2e-4, 1e-3, 5e-3]):
        point = {RATE: rate}
        study.write_trial(number, point, resolve(space, point), make_result(0.5 + number / 10))
    study.write_failure(3, {RATE: 2e-3}, resolve(space, {RATE: 2e-3}), "lost")
    return study


def narrower(**others: object) -> Space:
    return make_space(
        parameters={
            RATE: {"min": 5e-4, "max": 1e-2, "log": True},
            "training.batch_size": {"values": [16, 32]},
        },
        warm_start=["earlier"],
        **others,
    )


def test_trials_that_lie_in_the_space_are_known(earlier: StudyFolder) -> None:
    found = known_trials(narrower(), [earlier])
    assert [(one.origin, one.point, one.scores["kl_10"]) for one in found] == [
        ("warm start: earlier/0001", {RATE: 1e-3, "training.batch_size": 32}, 0.6),
        ("warm start: earlier/0002", {RATE: 5e-3, "training.batch_size": 32}, 0.7),
    ]
    other = narrower(experiment={"training": {"seed": 1}})
    assert known_trials(other, [earlier]) == [], "another experiment trains something else"


def test_conditions_hold_for_known_trials() -> None:
    space = make_space(
        parameters={
            "training.seed": {"values": [0, 1]},
            "training.batch_size": {"values": [8, 16], "when": {"training.seed": 1}},
        }
    )
    for point in ({"training.seed": 0}, {"training.seed": 1, "training.batch_size": 8}):
        assert point_of(space, resolve(space, point)) == point
    assert point_of(space, make_space(experiment={"training": {"seed": 1}}).experiment) is None


def test_known_trials_teach_once_and_do_not_count(earlier: StudyFolder, tmp_path: Path) -> None:
    space = narrower(start=[{RATE: 1e-3}], startup_trials=2)
    known, journal = known_trials(space, [earlier]), tmp_path / "journal"
    for _ in range(2):
        proposals = Proposals(space, journal, known=known)
        assert (proposals.n_finished, proposals.n_interrupted) == (0, 0)
    first = proposals.next()
    assert isinstance(first, Proposal)
    assert first.point == {RATE: 1e-3, "training.batch_size": 32}, "trained here all the same"
    proposals.complete(first.number, {"kl_all": 0.5, "kl_4": None, "kl_10": 0.4})
    assert (proposals.n_finished, Proposals(space, journal, known=known).n_finished) == (1, 1)
    study = optuna.load_study(
        study_name="study", storage=JournalStorage(JournalFileBackend(str(journal)))
    )
    assert [(trial.user_attrs["origin"], trial.value) for trial in study.trials] == [
        ("warm start: earlier/0001", 0.6),
        ("warm start: earlier/0002", 0.7),
        ("start", 0.4),
    ]


def test_other_rows_or_a_missing_study_are_refused(earlier: StudyFolder, tmp_path: Path) -> None:
    space = narrower()
    assert [one.path for one in warm_start_studies(space, tmp_path, DATA)] == [earlier.path]
    with refusal(
        StudyError,
        "same rows and folds",
        got="other folds in earlier",
        where="warm_start",
        fix="Remove earlier",
    ):
        warm_start_studies(space, tmp_path, {**DATA, "folds": "g"})
    missing = space.model_copy(update={"warm_start": ["earlie"]})
    with refusal(StudyError, "must exist", got="did you mean earlier", fix="List studies"):
        warm_start_studies(missing, tmp_path, DATA)
    with pytest.raises(ValidationError, match="warm_start needs a KL"):
        Space(metric="blend_gain", warm_start=["earlier"])
