"""A search by blend gain, without Ray: stub trials, renewed references, resumption, Optuna."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.ensemble.blend_gain import GainRows
from hms_ray.errors import StudyError
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.run import ExperimentResult
from hms_ray.search.proposals import Proposal, Proposals
from hms_ray.study.folder import StudyFolder
from hms_ray.study.gains import StudyGains
from hms_ray.study.new import create_study
from hms_ray.study.references import REFERENCE_FILE, REFERENCES, read_reference
from tests.ensemble_data import softmax
from tests.refused import refusal
from tests.study_data import RATE, make_space

N_ROWS, N_FOLDS, EVERY = 160, 4, 4
GENERATOR = np.random.default_rng(0)
TRUTH = 1.5 * GENERATOR.normal(size=(N_ROWS, 6))
DRAWN = np.stack([GENERATOR.multinomial(12, one) for one in softmax(TRUTH)])


def make_study(place: Path, **gain: object) -> StudyFolder:
    number = np.arange(N_ROWS)
    rows = pd.DataFrame(
        {
            "row_id": [f"{n}-0" for n in number],
            "eeg_id": number,
            "patient_id": number // 2,
            "total_votes": np.where(number % 4, 12, 3),
            "fold": number // 2 % N_FOLDS,
        }
    )
    rows[list(TARGET_COLUMNS)] = DRAWN / 12
    rows.to_parquet(place / "rows.parquet")
    packs = {"kaggle": PackRef(place / "pack", "p" * 64)}
    prepared = Prepared(place / "rows.parquet", packs, "r" * 64, "f" * 64, N_FOLDS)
    space = make_space(metric="blend_gain", gain={"renew_every": EVERY, **gain})
    return create_study(place / "results", "one", space, prepared)


def predictions(rate: float) -> np.ndarray:
    """Better near a rate of 0.003; each rate has errors of its own."""
    seed = int(hashlib.sha256(f"{rate:.6g}".encode()).hexdigest()[:8], 16)
    noise = np.random.default_rng(seed).normal(size=TRUTH.shape)
    return softmax(0.6 * TRUTH + (0.5 + abs(np.log10(rate / 0.003))) * noise)


def proposals_of(folder: StudyFolder) -> Proposals:
    def recover(number: int) -> dict[str, float | None] | None:
        trial = folder.trial(number)
        return trial.scores if trial is not None and trial.finished else None

    return Proposals(folder.space(), folder.journal, recover=recover, gains=StudyGains(folder))


def store(folder: StudyFolder, proposal: Proposal) -> dict[str, float | None]:
    rows = folder.rows()
    oof = rows[["row_id", "eeg_id", "patient_id", "fold"]].copy()
    probabilities = predictions(proposal.experiment.training.learning_rate)
    oof[list(PROBABILITY_COLUMNS)] = probabilities
    targets = rows[list(TARGET_COLUMNS)].to_numpy()
    result = ExperimentResult(
        scores=kl_report(targets, probabilities, rows["total_votes"]),
        oof=oof,
        keys={
            fold: hashlib.sha256(f"{proposal.number} {fold}".encode()).hexdigest()
            for fold in range(N_FOLDS)
        },
        reused=(),
        optimistic=False,
        fold_minutes=1.0,
        saved_minutes=0.0,
    )
    folder.write_trial(proposal.number, proposal.point, proposal.experiment, result)
    return result.scores


def ask(proposals: Proposals) -> Proposal:
    found = proposals.next()
    assert isinstance(found, Proposal)
    return found


def run(folder: StudyFolder, proposals: Proposals, n: int) -> None:
    for _ in range(n):
        proposal = ask(proposals)
        proposals.complete(proposal.number, store(folder, proposal))


def optuna_studies(folder: StudyFolder) -> dict[str, optuna.Study]:
    storage = JournalStorage(JournalFileBackend(str(folder.journal)))
    names = optuna.get_all_study_names(storage)
    return {name: optuna.load_study(study_name=name, storage=storage) for name in names}


def expected_value(folder: StudyFolder, trial: int, number: int) -> float:
    """From whole predictions and the stored file alone."""
    rows = folder.rows()
    reference = read_reference(folder, number, rows)
    targets = rows[list(TARGET_COLUMNS)].to_numpy()
    scored = GainRows.of(targets, rows["fold"].to_numpy(), (rows["total_votes"] >= 10).to_numpy())
    oof = folder.finished_trial(trial).oof(rows)
    p, q = probabilities_of(oof), reference.probabilities.copy()
    file = folder.path / REFERENCES / f"{number:04d}" / REFERENCE_FILE
    for member in json.loads(file.read_text())["members"]:
        if member["trial"] == trial:
            for fold, weight in member["weights_by_fold"].items():
                inside = (rows["fold"] == int(fold)).to_numpy()
                if weight < 1:
                    q[inside] = (q[inside] - weight * p[inside]) / (1 - weight)
    return scored.gain(scored.probabilities(q), scored.probabilities(p)).mean


def test_every_study_of_the_journal_has_true_states_and_values(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    proposals = proposals_of(folder)
    run(folder, proposals, 2)
    failed = ask(proposals)
    proposals.fail(failed.number, "diverged")
    running = ask(proposals)
    run(folder, proposals, 2)  # renewed while a trial runs
    run(folder, proposals, 1)
    proposals.complete(running.number, store(folder, running))
    run(folder, proposals, 3)
    assert [file.name for file in sorted((folder.path / REFERENCES).iterdir())] == [
        "0000",
        "0001",
        "0002",
    ]
    studies = optuna_studies(folder)
    assert sorted(studies) == ["reference-0000", "reference-0001", "reference-0002"]
    n_trials = [len(study.trials) for study in studies.values()]
    assert n_trials == [6, 9, 10]
    for number, study in enumerate(studies.values()):
        assert study.direction == optuna.study.StudyDirection.MAXIMIZE
        for trial in study.trials:
            if trial.number == failed.number:
                assert trial.state == TrialState.FAIL
                continue
            assert trial.state == TrialState.COMPLETE
            expected = expected_value(folder, trial.number, number)
            assert trial.value == pytest.approx(expected, abs=1e-12)
            assert trial.user_attrs["kl_10"] == folder.finished_trial(trial.number).scores["kl_10"]
    assert studies["reference-0002"].best_value > 0


def test_the_first_reference_is_the_first_finished_trial(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    proposals = proposals_of(folder)
    first, second = ask(proposals), ask(proposals)
    proposals.complete(second.number, store(folder, second))
    proposals.complete(first.number, store(folder, first))
    reference = read_reference(folder, 0, folder.rows())
    assert [member["trial"] for member in reference.members] == [second.number]
    trials = optuna_studies(folder)["reference-0000"].trials
    assert trials[second.number].value == 0
    assert trials[first.number].value != 0


def test_a_resumed_search_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, broken = make_study(tmp_path / "a"), make_study(tmp_path / "b")
    run(whole, proposals_of(whole), 11)
    for n in (3, 3, 5):
        run(broken, proposals_of(broken), n)
    for (name, first), second in zip(
        optuna_studies(whole).items(), optuna_studies(broken).values(), strict=True
    ):
        assert second.study_name == name
        assert [trial.values for trial in first.trials] == [trial.values for trial in second.trials]
        assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]


def test_a_study_killed_while_it_was_filled_is_filled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_study(tmp_path)
    proposals = proposals_of(folder)
    run(folder, proposals, EVERY - 1)
    add, added = optuna.Study.add_trial, []

    def killed(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(trial)
        add(study, trial)

    monkeypatch.setattr(optuna.Study, "add_trial", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, proposals, 1)
    monkeypatch.undo()
    proposals = proposals_of(folder)
    studies = optuna_studies(folder)
    assert [len(study.trials) for study in studies.values()] == [EVERY, EVERY]
    run(folder, proposals, 1)
    assert len(optuna_studies(folder)["reference-0001"].trials) == EVERY + 1


def test_a_trial_lost_after_its_result_is_recorded_in_every_study(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    proposals = proposals_of(folder)
    lost, repeated = ask(proposals), ask(proposals)
    run(folder, proposals, EVERY)
    store(folder, lost)
    again = proposals_of(folder)
    for study in optuna_studies(folder).values():
        assert study.trials[lost.number].state == TrialState.COMPLETE
    proposal = ask(again)
    assert proposal.point == repeated.point
    again.complete(proposal.number, store(folder, proposal))
    for study in optuna_studies(folder).values():
        assert study.trials[repeated.number].state == TrialState.FAIL
        assert "stopped" in study.trials[repeated.number].user_attrs["reason"]


def test_a_damaged_reference_is_reported(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    run(folder, proposals_of(folder), 2)
    file = folder.path / REFERENCES / "0000" / "oof.parquet"
    file.write_bytes(file.read_bytes()[:100])
    with refusal(StudyError, where=str(file), fix="Restore it from a backup"):
        proposals_of(folder)


def test_points_are_searched_by_gain(tmp_path: Path) -> None:
    """The sampler sees gains: the best value of the present study is that of its best trial."""
    folder = make_study(tmp_path)
    run(folder, proposals_of(folder), 9)
    study = optuna_studies(folder)["reference-0002"]
    gains = StudyGains(folder)
    values = {trial.number: gains.value(trial.number, 2) for trial in study.trials[:-1]}
    assert study.best_trial.params[RATE] > 0
    assert max(values.values()) <= study.best_value + 1e-12
