import math
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.errors import LockedError, StudyError
from hms_ray.search.journal import open_storage
from hms_ray.search.outcomes import STOP_REASON, Exhausted, Proposal, Pruned
from hms_ray.search.proposals import Proposals
from hms_ray.search.pruner import FoldReport
from tests.refused import refusal

LEARNING_RATE = {"training.learning_rate": {"min": 1e-4, "max": 1e-2, "log": True}}
LOSSES = {"training.loss": {"values": ["kl", "kl_log_votes", "kl_capped_votes"]}}


def make_space(search: dict, **others: object) -> Space:
    # As a study stored it: a parameter may be without effect.
    return validate_space({"parameters": search, **others}, "test", stored=True)


def scores(value: float) -> dict[str, float | None]:
    return {"kl_all": value + 0.2, "kl_4": None, "kl_10": value}


def optuna_study(journal: Path) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(study_name=None, storage=storage)


def recorded_trials(journal: Path) -> list[FrozenTrial]:
    return optuna_study(journal).trials


def proposed(proposals: Proposals) -> Proposal:
    found = proposals.next()
    assert isinstance(found, Proposal)
    return found


def run(proposals: Proposals, n_trials: int) -> list[Proposal]:
    """Finishes trials in turn, with a value that depends on the point alone."""
    done = []
    for _ in range(n_trials):
        proposal = proposed(proposals)
        training = proposal.experiment.training
        proposals.complete(
            proposal.number, scores(100 * training.learning_rate + len(training.loss) / 100)
        )
        done.append(proposal)
    return done


def test_results_are_recorded_with_their_state(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    reports = [FoldReport(1, 0, 0.6, 0.9), FoldReport(2, 1, 0.5, 0.8)]
    proposals = Proposals(make_space(LEARNING_RATE), journal, reports=lambda number: reports)
    done, failed, pruned = proposed(proposals), proposed(proposals), proposed(proposals)
    proposals.complete(done.number, scores(0.5))
    proposals.fail(failed.number, "a model must be known")
    proposals.prune(pruned.number, Pruned("after 2 of 5 folds"))
    trials = recorded_trials(journal)
    states = [TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED]
    assert [trial.state for trial in trials] == states
    assert trials[0].value == 0.5
    assert trials[0].params == done.point
    assert [trials[0].user_attrs[name] for name in ("kl_all", "kl_4", "kl_10")] == [0.7, None, 0.5]
    assert trials[1].user_attrs["reason"] == "a model must be known"
    for trial in (trials[0], trials[2]):
        assert trial.intermediate_values == {1: 0.9, 2: 0.8}
        assert [trial.user_attrs[name] for name in ("fold_0", "fold_1")] == [0.6, 0.5]
    assert trials[2].user_attrs["reason"] == "after 2 of 5 folds"
    assert optuna_study(journal).best_trial.number == done.number
    # A pruned trial is spent, a failed one is not.
    assert proposals.n_finished == 2


def test_value_is_the_objective(tmp_path: Path) -> None:
    space = make_space(LEARNING_RATE, metric="kl_all")
    proposals = Proposals(space, tmp_path / "journal")
    proposals.complete(proposed(proposals).number, scores(0.5))
    assert recorded_trials(tmp_path / "journal")[0].value == 0.7


def test_non_finite_value_is_a_failure(tmp_path: Path) -> None:
    proposals = Proposals(make_space(LEARNING_RATE), tmp_path / "journal")
    proposals.complete(proposed(proposals).number, scores(float("nan")))
    assert recorded_trials(tmp_path / "journal")[0].state == TrialState.FAIL
    assert proposals.n_finished == 0


def test_start_points_come_first(tmp_path: Path) -> None:
    start = [{"training.learning_rate": 0.001}, {"training.learning_rate": 0.002}]
    proposals = Proposals(make_space(LEARNING_RATE, start=start), tmp_path / "journal")
    done = run(proposals, 3)
    assert [proposal.point for proposal in done[:2]] == start
    assert done[2].point not in start
    assert done[1].experiment.training.learning_rate == 0.002


def test_resumed_study_draws_the_points_of_an_uninterrupted_one(tmp_path: Path) -> None:
    space = make_space({**LEARNING_RATE, **LOSSES}, startup_trials=3)
    whole = [proposal.point for proposal in run(Proposals(space, tmp_path / "whole"), 8)]
    stopped = tmp_path / "stopped"
    first = run(Proposals(space, stopped), 4)
    interrupted = proposed(Proposals(space, stopped))
    again = Proposals(space, stopped)
    assert (again.n_finished, again.n_interrupted) == (4, 1)
    rest = run(again, 4)
    assert [p.point for p in (*first, *rest)] == whole
    assert rest[0].point == interrupted.point
    assert [trial.state for trial in recorded_trials(stopped)].count(TrialState.RUNNING) == 0
    assert recorded_trials(stopped)[interrupted.number].state == TrialState.FAIL
    assert (
        "repeated as trial 5" in recorded_trials(stopped)[interrupted.number].user_attrs["reason"]
    )


def test_study_killed_twice_loses_no_point(tmp_path: Path) -> None:
    space, journal = make_space(LEARNING_RATE), tmp_path / "journal"
    proposals = Proposals(space, journal)
    first, second = proposed(proposals), proposed(proposals)
    # The second run is killed after it has proposed only the first point again.
    assert proposed(Proposals(space, journal)).point == first.point
    third_run = Proposals(space, journal)
    assert third_run.n_interrupted == 2
    assert {p.point["training.learning_rate"] for p in run(third_run, 2)} == {
        first.point["training.learning_rate"],
        second.point["training.learning_rate"],
    }
    assert third_run.n_finished == 2


def test_stored_result_missing_in_the_journal_counts(tmp_path: Path) -> None:
    space, journal = make_space(LEARNING_RATE), tmp_path / "journal"
    number = proposed(Proposals(space, journal)).number
    again = Proposals(space, journal, recover={number: scores(0.4)}.get)
    assert (again.n_finished, again.n_interrupted) == (1, 0)
    assert recorded_trials(journal)[number].value == 0.4


@pytest.mark.parametrize(("kl", "n_finished"), [(0.4, 1), (math.nan, 0), (None, 0)])
def test_result_that_became_visible_after_its_failure_counts(
    tmp_path: Path, kl: float | None, n_finished: int
) -> None:
    space = make_space(LOSSES, start=[{"training.loss": "kl"}])
    journal = tmp_path / "journal"
    first = Proposals(space, journal)
    number = proposed(first).number
    first.fail(number, "the trial's process was lost")
    stored = {} if kl is None else {number: scores(kl)}
    again = Proposals(space, journal, recover=stored.get)
    assert again.n_finished == n_finished
    # The start point is repeated only if it has no result.
    assert (proposed(again).point == {"training.loss": "kl"}) == (n_finished == 0)
    assert recorded_trials(journal)[number].state == TrialState.FAIL


def test_opening_a_journal_leaves_the_verbosity_of_optuna(tmp_path: Path) -> None:
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(optuna.logging.INFO)
        Proposals(make_space(LOSSES), tmp_path / "journal")
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)


def test_point_left_waiting_by_a_kill_is_proposed(tmp_path: Path) -> None:
    space, journal = make_space(LEARNING_RATE), tmp_path / "journal"
    Proposals(space, journal)
    optuna_study(journal).enqueue_trial({"training.learning_rate": 0.005})
    proposals = Proposals(space, journal)
    assert proposed(proposals).point == {"training.learning_rate": 0.005}
    assert proposed(proposals).point != {"training.learning_rate": 0.005}


def test_draw_interrupted_by_a_kill_is_repeated(tmp_path: Path) -> None:
    space, journal = make_space(LEARNING_RATE), tmp_path / "journal"
    expected = proposed(Proposals(space, tmp_path / "other")).point
    Proposals(space, journal)
    optuna_study(journal).ask()
    proposals = Proposals(space, journal)
    assert proposals.n_interrupted == 0
    assert proposed(proposals).point == expected
    assert recorded_trials(journal)[0].state == TrialState.FAIL


def test_duplicates_are_recorded_and_not_proposed(tmp_path: Path) -> None:
    # No stage uses the threshold: all six points are three experiments.
    search = {**LOSSES, "training.stage_threshold": {"values": [4, 10]}}
    journal, duplicates = tmp_path / "journal", []
    proposals = Proposals(
        make_space(search),
        journal,
        on_duplicate=lambda number, original: duplicates.append((number, original)),
    )
    values = {"kl": 0.3, "kl_log_votes": 0.2, "kl_capped_votes": 0.1}
    numbers = {}
    for _ in range(3):
        proposal = proposed(proposals)
        numbers[proposal.number] = values[proposal.experiment.training.loss]
        proposals.complete(proposal.number, scores(numbers[proposal.number]))
    assert sorted(numbers.values()) == [0.1, 0.2, 0.3]
    ending = proposals.next()
    assert ending == Exhausted("every experiment of the space was tried")
    assert proposals.n_finished == 3
    for number, original in duplicates:
        trial = recorded_trials(journal)[number]
        assert trial.state == TrialState.COMPLETE
        assert trial.user_attrs["duplicate_of"] == original
        assert trial.value == numbers[original]
    assert Proposals(make_space(search), journal).n_finished == 3


def test_duplicate_of_a_running_trial_waits_for_it(tmp_path: Path) -> None:
    search = {"training.stage_threshold": {"values": [4, 6, 10]}}
    start = [{"training.stage_threshold": votes} for votes in (4, 6)]
    journal = tmp_path / "journal"
    proposals = Proposals(make_space(search, start=start), journal)
    first = proposed(proposals)
    assert proposals.next() == "wait"
    n_recorded = len(recorded_trials(journal))
    assert proposals.next() == "wait"
    assert len(recorded_trials(journal)) == n_recorded, "waiting must not fill the journal"
    proposals.complete(first.number, scores(0.3))
    assert [trial.value for trial in recorded_trials(journal)] == [0.3, 0.3]
    assert isinstance(proposals.next(), Exhausted)


def test_failed_experiment_is_retried_in_the_next_run_only(tmp_path: Path) -> None:
    space, journal = make_space(LOSSES), tmp_path / "journal"
    proposals = Proposals(space, journal)
    failed = proposed(proposals)
    proposals.fail(failed.number, "no memory")
    others = {p.experiment.training.loss for p in run(proposals, 2)}
    assert failed.experiment.training.loss not in others
    assert isinstance(proposals.next(), Exhausted)
    assert proposed(Proposals(space, journal)).point == failed.point


def test_failed_trials_of_earlier_runs_are_retried_on_request(tmp_path: Path) -> None:
    """Drawn ones too, and before anything else; finished and stopped ones are not."""
    space = make_space(LEARNING_RATE)
    journal = tmp_path / "journal"
    first = Proposals(space, journal)
    failed, good, stopped, interrupted = (proposed(first) for _ in range(4))
    first.fail(failed.number, "no memory")
    first.complete(good.number, scores(0.5))
    first.fail(stopped.number, STOP_REASON)
    assert Proposals(space, journal).n_retried == 0
    later = Proposals(space, journal, retry_failed=True)
    assert later.n_retried == 1
    points = [proposed(later).point for _ in range(3)]
    assert points[:2] == [failed.point, interrupted.point]
    assert points[2] not in (failed.point, good.point, stopped.point)
    assert later.n_retried == 0


@pytest.mark.parametrize("end", ["finished", "stopped", "failed"])
def test_a_retried_trial_is_retried_again_only_if_it_failed_again(tmp_path: Path, end: str) -> None:
    first = make_space(LEARNING_RATE)
    space = first.model_copy(update={"start": [{"training.learning_rate": 0.01}]})
    journal = tmp_path / "journal"
    proposals = Proposals(space, journal)
    proposals.fail(proposed(proposals).number, "no memory")
    again = Proposals(space, journal, retry_failed=True)
    retried = proposed(again)
    assert retried.point == space.start[0]
    if end == "finished":
        again.complete(retried.number, scores(0.5))
    else:
        again.fail(retried.number, STOP_REASON if end == "stopped" else "no memory")
    assert proposed(again).point != retried.point, "a start point too is retried once"
    assert len(recorded_trials(journal)) == 3
    assert Proposals(space, journal, retry_failed=True).n_retried == (end == "failed")


STAGES = {"training.stages": {"values": {"one": [{}], "two": [{}, {}]}}}
SECOND_STAGE = {"training.stages.1.epochs": {"values": [2, 3]}}
TWO_STAGES = {"training": {"stages": [{}, {}]}}


def invalid_trials(journal: Path) -> list[FrozenTrial]:
    return [trial for trial in recorded_trials(journal) if trial.params["training.stages"] == "one"]


def test_invalid_points_are_recorded_and_skipped(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    start = [{"training.stages": "one", "training.stages.1.epochs": 2}]
    space = make_space({**STAGES, **SECOND_STAGE}, experiment=TWO_STAGES)
    # A file with such a point is refused; the search must survive it all the same.
    space = space.model_copy(update={"start": start})
    proposals = Proposals(space, journal)
    done = run(proposals, 2)
    assert sorted(p.experiment.training.stages[1].epochs for p in done) == [2, 3]
    ending = proposals.next()
    assert isinstance(ending, Exhausted)
    assert "every experiment of the space was tried; an invalid point: " in ending.reason
    assert invalid_trials(journal)[0].number == 0
    for trial in invalid_trials(journal):
        assert trial.state == TrialState.FAIL
        assert "must be from 0 to 0" in trial.user_attrs["reason"]
    n_recorded = len(recorded_trials(journal))
    assert isinstance(Proposals(space, journal).next(), Exhausted)
    assert len(recorded_trials(journal)) == n_recorded, (
        "a start point that cannot fit must not come again"
    )


def test_continuous_space_without_a_valid_point_ends(tmp_path: Path) -> None:
    stages = {"training.stages": {"values": {"one": [{}]}}}
    space = make_space({**stages, **SECOND_STAGE, **LEARNING_RATE}, experiment=TWO_STAGES)
    proposals = Proposals(space, tmp_path / "journal")
    ending = proposals.next()
    assert isinstance(ending, Exhausted)
    assert "20 draws in a row" in ending.reason
    assert "must be from 0 to 0" in ending.reason
    states = [trial.state for trial in recorded_trials(tmp_path / "journal")]
    assert states == [TrialState.FAIL] * 20


def test_study_killed_at_an_invalid_point_resumes(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    space = make_space({**STAGES, **SECOND_STAGE}, experiment=TWO_STAGES)
    Proposals(space, journal)
    optuna_study(journal).enqueue_trial({"training.stages": "one", "training.stages.1.epochs": 3})
    again = Proposals(space, journal)
    assert again.n_interrupted == 0
    assert recorded_trials(journal)[0].state == TrialState.FAIL
    assert "must be from 0 to 0" in recorded_trials(journal)[0].user_attrs["reason"]
    assert len(proposed(again).experiment.training.stages) == 2


def test_failed_start_point_is_retried_in_the_next_run(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    start = [{"training.learning_rate": rate} for rate in (0.001, 0.002, 0.003)]
    space = make_space(LEARNING_RATE, start=start)
    proposals = Proposals(space, journal)
    proposals.complete(proposed(proposals).number, scores(0.5))
    proposals.fail(proposed(proposals).number, "no memory")
    proposed(proposals)
    again = Proposals(space, journal)
    assert again.n_interrupted == 1
    points = [proposal.point for proposal in run(again, 3)]
    assert points[:2] == [start[2], start[1]], "the stopped one once, then the failed one"
    assert points[2] not in start
    assert run(Proposals(space, journal), 1)[0].point not in start


def test_start_point_that_always_fails_does_not_block_others(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    start = [{"training.learning_rate": rate} for rate in (0.001, 0.002)]
    space = make_space(LEARNING_RATE, start=start)
    proposed_first = []
    for _ in range(4):
        proposals = Proposals(space, journal)
        proposal = proposed(proposals)
        proposed_first.append(proposal.point)
        if proposal.point == start[0]:
            proposals.fail(proposal.number, "no memory")
        else:
            proposals.complete(proposal.number, scores(0.5))
    assert proposed_first[:3] == [start[0], start[1], start[0]]
    assert proposed_first[3] not in start


def test_sampler_that_repeats_itself_ends_the_search(tmp_path: Path) -> None:
    # Every stage sets its own rate, so the searched one changes nothing.
    stages = [{"rows": "all", "learning_rate": 1e-3}]
    space = make_space(LEARNING_RATE, experiment={"training": {"stages": stages}})
    proposals = Proposals(space, tmp_path / "journal")
    first = proposed(proposals)
    assert proposals.next() == "wait"
    n_recorded = len(recorded_trials(tmp_path / "journal"))
    assert proposals.next() == "wait"
    assert len(recorded_trials(tmp_path / "journal")) == n_recorded
    proposals.complete(first.number, scores(0.3))
    ending = proposals.next()
    assert isinstance(ending, Exhausted)
    assert "20 draws in a row" in ending.reason


def test_space_without_searched_paths_is_one_trial(tmp_path: Path) -> None:
    proposals = Proposals(make_space({}), tmp_path / "journal")
    assert run(proposals, 1)[0].point == {}
    assert isinstance(proposals.next(), Exhausted)


def test_journal_with_an_incomplete_last_line_is_resumed(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    first = Proposals(make_space(LOSSES), journal)
    number = proposed(first).number
    first.complete(number, scores(0.4))
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-15])
    # The study's folder has the result of the lost line.
    again = Proposals(make_space(LOSSES), journal, recover=lambda number: scores(0.4))
    assert again.n_finished == 1
    assert proposed(again).number == number + 1
    assert journal.read_bytes().endswith(b"\n")


def test_damaged_journal_is_an_error(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    Proposals(make_space(LOSSES), journal)
    journal.write_text("not a journal\n" * 3)
    with pytest.raises(StudyError, match="Optuna's journal must be readable"):
        Proposals(make_space(LOSSES), journal)


@pytest.mark.parametrize("diverged", [False, True])
def test_pruned_experiment_is_not_proposed_again_and_its_repetition_is_recorded_as_pruned(
    tmp_path: Path, diverged: bool
) -> None:
    space, journal = make_space(LOSSES, start=[{"training.loss": "kl"}] * 2), tmp_path / "journal"
    reports = {0: [FoldReport(1, 0, 0.6, 0.9)]}
    proposals = Proposals(space, journal, reports=lambda number: reports.get(number, ()))
    pruned = proposed(proposals)
    proposals.prune(pruned.number, Pruned("a reason", diverged=diverged))
    others = run(proposals, 2)
    assert isinstance(proposals.next(), Exhausted)
    repeated = [
        trial for trial in recorded_trials(journal) if trial.user_attrs.get("duplicate_of") == 0
    ]
    assert repeated
    for trial in (recorded_trials(journal)[0], *repeated):
        assert trial.state == TrialState.PRUNED
        # Without intermediate values, TPE ranks a trial behind all others.
        assert trial.intermediate_values == ({} if diverged else {1: 0.9})
    again = Proposals(space, journal)
    assert again.n_finished == 1 + len(others)
    assert isinstance(again.next(), Exhausted)


@pytest.mark.parametrize("state", [TrialState.RUNNING, TrialState.FAIL])
def test_stored_pruned_trial_missing_in_the_journal_is_not_trained_again(
    tmp_path: Path, state: TrialState
) -> None:
    space, journal = make_space(LEARNING_RATE), tmp_path / "journal"
    first = Proposals(space, journal)
    number = proposed(first).number
    if state == TrialState.FAIL:
        first.fail(number, "the trial's process was lost")
    again = Proposals(space, journal, recover={number: Pruned("after 2 of 5 folds")}.get)
    assert (again.n_finished, again.n_interrupted) == (1, 0)
    if state == TrialState.RUNNING:
        assert recorded_trials(journal)[number].state == TrialState.PRUNED


def test_tpe_avoids_where_trials_diverged(tmp_path: Path) -> None:
    space = make_space(LEARNING_RATE, startup_trials=5)

    def n_high(teach: bool) -> int:
        proposals = Proposals(space, tmp_path / str(teach))
        n_drawn = 0
        for _ in range(30):
            proposal = proposed(proposals)
            rate = proposal.experiment.training.learning_rate
            if rate < 2e-3:
                proposals.complete(proposal.number, scores(1.0 - 100 * rate))
                continue
            n_drawn += 1
            if teach:
                proposals.prune(proposal.number, Pruned("the loss is nan", diverged=True))
            else:
                proposals.fail(proposal.number, "the loss is nan")
        return n_drawn

    assert n_high(teach=True) < n_high(teach=False)


CONDITIONAL = {
    "training.seed": {"values": [0, 1]},
    "training.stage_threshold": {"values": [4, 10], "when": {"training.seed": 1}},
}


def test_trials_have_the_active_parameters_only_and_resume(tmp_path: Path) -> None:
    stages = [{"rows": "below_threshold"}, {"rows": "at_least_threshold"}]
    space = make_space(CONDITIONAL, experiment={"training": {"stages": stages}}, startup_trials=2)
    journal = tmp_path / "journal"
    done = run(Proposals(space, journal), 2)
    rest = run(Proposals(space, journal), 1)
    points = [proposal.point for proposal in [*done, *rest]]
    expected = [
        {"training.seed": 0},
        {"training.seed": 1, "training.stage_threshold": 4},
        {"training.seed": 1, "training.stage_threshold": 10},
    ]
    assert sorted(points, key=str) == sorted(expected, key=str)
    assert isinstance(Proposals(space, journal).next(), Exhausted)


def test_grid_proposes_every_point_once_over_all_runs(tmp_path: Path) -> None:
    space = make_space(LOSSES, method="grid", start=[{"training.loss": "kl_log_votes"}])
    journal = tmp_path / "journal"
    first, second = run(Proposals(space, journal), 2)
    assert [first.point, second.point] == [
        {"training.loss": "kl_log_votes"},
        {"training.loss": "kl"},
    ]
    interrupted = Proposals(space, journal).next()
    again = Proposals(space, journal)
    assert isinstance(interrupted, Proposal)
    assert [proposal.point for proposal in run(again, 1)] == [interrupted.point]
    assert interrupted.point == {"training.loss": "kl_capped_votes"}
    assert isinstance(again.next(), Exhausted)
    trials = [trial.params["training.loss"] for trial in recorded_trials(journal)]
    # The interrupted trial is repeated; no other point is recorded twice.
    assert trials == ["kl_log_votes", "kl", *2 * ["kl_capped_votes"]]


def test_records_of_an_owner_that_has_lost_the_study_are_skipped(tmp_path: Path) -> None:
    journal, space = tmp_path / "journal", make_space(LEARNING_RATE)
    former = Proposals(space, journal)
    first, second = proposed(former), proposed(former)
    former.complete(first.number, scores(0.5))
    # The former one was suspended, and goes on when another command has taken over.
    latter = Proposals(space, journal)
    assert (latter.n_finished, latter.n_interrupted) == (1, 1)
    with refusal(LockedError, "one command at a time", got="taken it over", where=str(journal)):
        former.complete(second.number, scores(0.4))
    with refusal(LockedError, "one command at a time", fix="Let the other one continue"):
        former.next()
    # It was suspended between its last look and a record.
    late = {"op_code": 8, "worker_id": "late", "trial_id": 1, "user_attr": {"late": True}}
    former._journal._storage._backend.append_logs([late])
    again = proposed(latter)
    assert again.point == second.point
    latter.complete(again.number, scores(0.3))
    states = [TrialState.COMPLETE, TrialState.FAIL, TrialState.COMPLETE]
    study = optuna.load_study(study_name="study", storage=open_storage(journal))
    assert [trial.state for trial in study.trials] == states
    assert "late" not in study.trials[1].user_attrs
    assert '"user_attr":{"late":true}' in journal.read_text()
    third = Proposals(space, journal)
    assert (third.n_finished, third.n_interrupted) == (2, 0)


def test_a_lock_of_the_journal_that_a_killed_owner_left_is_removed(tmp_path: Path) -> None:
    journal, space = tmp_path / "journal", make_space(LEARNING_RATE)
    proposed(Proposals(space, journal))
    lock = tmp_path / "journal.lock"
    lock.symlink_to(journal)
    began = time.monotonic()
    assert Proposals(space, journal).n_interrupted == 1
    assert time.monotonic() - began < 5
    assert not lock.is_symlink()
