"""A search by blend gain, without Ray: stub trials, renewed references, resumption, Optuna."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from hms_ray.blend.fit_command import blend
from hms_ray.blend.gain_reference import add_first_reference, check_reference
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.config.loading import load_space
from hms_ray.dataset.prepare import PackRef, Prepared
from hms_ray.ensemble.blend_gain import GainRows
from hms_ray.errors import ConfigError, StudyError
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import probabilities_of, read_oof
from hms_ray.experiment.run import ExperimentResult
from hms_ray.search.outcomes import Proposal
from hms_ray.search.proposals import Proposals
from hms_ray.study.folder import StudyFolder
from hms_ray.study.gains import StudyGains
from hms_ray.study.identity import differences, space_identity
from hms_ray.study.leaderboard import Leaderboard
from hms_ray.study.new import create_study
from hms_ray.study.references import REFERENCE_FILE, REFERENCES, read_reference
from tests.ensemble_data import softmax
from tests.refused import refusal, refused
from tests.study_data import make_space

N_ROWS, N_FOLDS, EVERY = 160, 4, 3
GENERATOR = np.random.default_rng(0)
TRUTH = 1.5 * GENERATOR.normal(size=(N_ROWS, 6))
DRAWN = np.stack([GENERATOR.multinomial(12, one) for one in softmax(TRUTH)])


def make_study(place: Path, name: str = "one", seed: int = 0, **gain: object) -> StudyFolder:
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
    space = make_space(metric="blend_gain", seed=seed, gain={"renew_every": EVERY, **gain})
    return create_study(place / "results", name, space, prepared)


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
        if member.get("trial") == trial and "weights_by_fold" in member:
            for fold, weight in member["weights_by_fold"].items():
                inside = (rows["fold"] == int(fold)).to_numpy()
                if weight < 1:
                    q[inside] = (q[inside] - weight * p[inside]) / (1 - weight)
    return scored.gain(scored.probabilities(q), scored.probabilities(p)).mean


def test_every_study_of_the_journal_has_true_states_and_values(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    proposals = proposals_of(folder)
    run(folder, proposals, 1)
    failed = ask(proposals)
    proposals.fail(failed.number, "diverged")
    running = ask(proposals)
    run(folder, proposals, 2)  # renewed while a trial runs
    run(folder, proposals, 1)
    proposals.complete(running.number, store(folder, running))
    run(folder, proposals, 2)
    assert [file.name for file in sorted((folder.path / REFERENCES).iterdir())] == [
        "0000",
        "0001",
        "0002",
    ]
    studies = optuna_studies(folder)
    assert sorted(studies) == ["reference-0000", "reference-0001", "reference-0002"]
    n_trials = [len(study.trials) for study in studies.values()]
    assert n_trials == [5, 7, 8]
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
    run(whole, proposals_of(whole), 7)
    for n in (2, 2, 3):  # before and after a renewal
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


def test_the_leaderboard_orders_by_gain_under_the_latest_reference(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    proposals = proposals_of(folder)
    run(folder, proposals, EVERY)
    board = Leaderboard(folder)
    for n in (1, EVERY):  # before and after a renewal, with one board
        run(folder, proposals, n)
        for number in folder.trial_numbers():
            board.add(number)
        frame, last = board.frame(), StudyGains(folder).n_references - 1
        study = optuna_studies(folder)[f"reference-{last:04d}"]
        expected = sorted((-trial.value, f"{trial.number:04d}") for trial in study.trials)
        assert frame["trial"].tolist() == [number for _, number in expected]
        np.testing.assert_allclose(frame["gain"], [-value for value, _ in expected], atol=1e-12)
        assert set(frame["reference"]) == {f"{last:04d}"}
        assert frame["rank"].iloc[0] == 1
    assert last == 2
    text = board.text()
    assert f"Largest gain: trial {frame['trial'].iloc[0]}" in text
    assert "reference 0002" in text
    lowest = folder.finished_trial()
    assert f"Best trial alone: {lowest.number:04d}, KL >=10 {lowest.scores['kl_10']:.4f}" in text
    assert json.loads(board.json())["reference"]["number"] == 2


def test_a_blend_is_the_first_reference(tmp_path: Path) -> None:
    first = make_study(tmp_path)
    run(first, proposals_of(first), 3)
    results = first.path.parent
    blend(["one"], results)
    second = make_study(tmp_path, name="two", seed=1, reference="one/blend")
    add_first_reference(second, "one/blend")
    rows = second.rows()
    nested = probabilities_of(read_oof(results / "one" / "blend" / "oof_nested.parquet", rows))
    reference = read_reference(second, 0, rows)
    np.testing.assert_array_equal(reference.probabilities, nested)
    shutil.rmtree(results / "one" / "blend")
    add_first_reference(second, "one/blend")  # resumed: its copy is frozen
    proposals = proposals_of(second)
    run(second, proposals, EVERY)
    values = [trial.value for trial in optuna_studies(second)["reference-0000"].trials]
    assert values == pytest.approx([expected_value(second, n, 0) for n in range(EVERY)])
    members = read_reference(second, 1, rows).members
    assert "reference 0000" in {member["name"] for member in members}


def test_a_reference_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    results = folder.path.parent
    with refusal(
        ConfigError,
        "gain.reference must be STUDY/blend or the folder of a blend",
        got="one/blend",
        where=str(results),
        fix="Write it first: hms-ray blend",
    ):
        check_reference("one/blend", results, folder.rows())
    run(folder, proposals_of(folder), 2)
    blend(["one"], results)
    check_reference("one/blend", results, folder.rows())
    moved = folder.rows()
    moved["fold"] = (moved["fold"] + 1) % N_FOLDS
    with refusal(
        ConfigError,
        "gain.reference must be a blend of the study's rows and folds",
        got="fold",
        where="oof_nested.parquet",
        fix="Blend models of the same rows and folds",
    ):
        check_reference("one/blend", results, moved)


@pytest.mark.parametrize("gain", [{"renew_every": 5}, {"reference": "x/blend"}, {"rows": "kl_4"}])
def test_another_reference_is_another_study(gain: dict[str, object]) -> None:
    plain = space_identity(make_space(metric="blend_gain"))
    assert differences(plain, space_identity(make_space(metric="blend_gain", gain=gain)))


def test_gain_without_its_metric_is_refused() -> None:
    with refusal(ConfigError, "gain has no effect without metric: blend_gain", where="test"):
        make_space(gain={"renew_every": 5})


def test_a_new_reference_is_reported(tmp_path: Path) -> None:
    folder, seen = make_study(tmp_path), []
    gains = StudyGains(folder, seen.append)
    run(folder, Proposals(folder.space(), folder.journal, gains=gains), EVERY)
    assert [reference.number for reference in seen] == [0, 1]
    assert seen[1].finished == [0, 1, 2]
    assert seen[1].scores == pytest.approx(read_reference(folder, 1, folder.rows()).scores)


@pytest.mark.parametrize("prune", ["paired", {"rule": "paired"}, {"level": 0.1}, "median"])
def test_a_rule_that_would_prune_a_search_by_gain_is_refused(prune: object, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(json.dumps({"metric": "blend_gain", "prune": prune}, indent=1))
    rule = "prune: must be none with metric: blend_gain, which needs all folds of each trial"
    error = refused(load_space, file)
    text = str(error)
    assert (type(error), error.rule[: len(rule)], error.where) == (ConfigError, rule, file)
    assert f"got {'median' if prune == 'median' else 'paired'}" in text
    assert "remove prune, or write prune: none" in text
    assert "line 3" in text
    for accepted in ({}, {"prune": "none"}):
        assert make_space(metric="blend_gain", **accepted).pruning.rule == "none"


def test_a_stored_search_by_gain_is_read_with_its_default_rule(tmp_path: Path) -> None:
    folder = make_study(tmp_path)
    assert "rule: paired" in (folder.path / "space.yaml").read_text()
    assert folder.space().pruning.rule == "none"
