import pickle
from pathlib import Path
from typing import Any

import pytest
from ray.tune.search import Searcher

from hms_ray.config.experiment import Experiment
from hms_ray.config.loading import validate_space
from hms_ray.search.outcomes import Exhausted, Proposal
from hms_ray.search.proposals import Proposals
from hms_ray.sweep.tune_searcher import LOST, StudySearch

SPACE = validate_space(
    {"parameters": {"training.loss": {"values": ["kl", "kl_log_votes"]}}}, "test"
)

SCORES = {"kl_all": 0.7, "kl_4": None, "kl_10": 0.5}


class FakeProposals:
    def __init__(self, answers: list[Any], n_finished: int = 0) -> None:
        self.answers = answers
        self.n_finished, self.n_running, self.n_retried = n_finished, 0, 0
        self.recorded: list[tuple[Any, ...]] = []

    def next(self) -> Any:
        answer = self.answers.pop(0)
        self.n_running += isinstance(answer, Proposal)
        return answer

    def complete(self, number: int, scores: dict[str, float | None]) -> None:
        self.n_running -= 1
        self.n_finished += 1
        self.recorded.append((number, "complete", scores))

    def fail(self, number: int, reason: str) -> None:
        self.n_running -= 1
        self.recorded.append((number, "fail", reason))


def proposal(number: int) -> Proposal:
    return Proposal(number, {"training.loss": "kl"}, SPACE.experiment)


def test_proposal_becomes_a_config() -> None:
    search = StudySearch(FakeProposals([proposal(7)]), 1)
    config = search.suggest("a")
    assert isinstance(config, dict)
    # Tune keeps several copies of each nested value, and statistics of each number.
    assert type(config["experiment"]) is str
    assert Experiment.model_validate_json(config["experiment"]) == SPACE.experiment
    assert config["number"] == 7
    assert config["point"] == {"training.loss": "kl"}


def test_tune_gets_waiting_and_the_end() -> None:
    reasons = []
    search = StudySearch(
        FakeProposals(["wait", *2 * [Exhausted("every experiment was tried")]]),
        2,
        on_exhausted=reasons.append,
    )
    assert search.suggest("a") is None
    assert search.suggest("b") == Searcher.FINISHED
    assert search.suggest("c") == Searcher.FINISHED
    assert reasons == ["every experiment was tried"]


@pytest.mark.parametrize(
    ("result", "error", "expected"),
    [
        ({**SCORES, "training_iteration": 1}, False, ("complete", SCORES)),
        ({"error": "a model must be known"}, False, ("fail", "a model must be known")),
        (None, True, ("fail", LOST)),
        ({}, False, ("fail", LOST)),
        (SCORES, True, ("complete", SCORES)),
    ],
)
def test_results_are_recorded_for_their_trial(
    result: dict[str, Any] | None, error: bool, expected: tuple[Any, ...]
) -> None:
    ended = []
    proposals = FakeProposals([proposal(3), proposal(4)])
    search = StudySearch(proposals, 5, on_end=lambda *end: ended.append(end))
    search.suggest("a")
    search.suggest("b")
    search.on_trial_complete("b", result=result, error=error)
    assert proposals.recorded == [(4, *expected)]
    assert ended == [(proposal(4), expected[1])]


def test_failed_trials_are_replaced() -> None:
    proposals = FakeProposals([proposal(number) for number in range(9)], n_finished=4)
    reasons: list[str] = []
    search = StudySearch(proposals, 6, on_exhausted=reasons.append)
    search.suggest("a")
    search.suggest("b")
    assert search.suggest("c") is None  # two are missing and two are running
    search.on_trial_complete("a", result={"error": "too large"})
    assert isinstance(search.suggest("c"), dict)
    search.on_trial_complete("b", result=SCORES)
    assert search.suggest("d") is None
    search.on_trial_complete("c", result=SCORES)
    assert search.suggest("d") == Searcher.FINISHED
    assert proposals.n_finished == 6
    assert reasons == []


def test_run_with_failures_only_ends() -> None:
    proposals = FakeProposals([proposal(number) for number in range(20)])
    reasons: list[str] = []
    search = StudySearch(proposals, 4, on_exhausted=reasons.append)
    n_tried = 0
    while (config := search.suggest(f"{n_tried}")) != Searcher.FINISHED:
        assert isinstance(config, dict)
        search.on_trial_complete(f"{n_tried}", error=True)
        n_tried += 1
    assert n_tried == 4
    assert reasons == ["4 trials failed in this run"]


def test_tune_can_pickle_and_save_it(tmp_path: Path) -> None:
    search = StudySearch(FakeProposals([]), 1, on_end=lambda *end: None)
    assert b"FakeProposals" not in pickle.dumps(search)
    search.save_to_dir(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_search_ends_at_a_limit_of_hours_after_the_running_trials() -> None:
    reasons: list[str] = []
    limits = [None, "budget.hours is used up", "budget.hours is used up"]
    proposals = FakeProposals([proposal(0), proposal(1)])
    search = StudySearch(
        proposals, 9, on_exhausted=reasons.append, reached_limit=lambda: limits.pop(0)
    )
    assert isinstance(search.suggest("a"), dict)
    assert search.suggest("b") is None
    assert reasons == []
    search.on_trial_complete("a", result=SCORES)
    assert search.suggest("b") == Searcher.FINISHED
    assert reasons == ["budget.hours is used up"]
    assert proposals.answers, "no trial was proposed after the limit"


def test_a_search_beyond_its_hours_retries_failed_trials_and_draws_no_others(
    tmp_path: Path,
) -> None:
    space = validate_space(
        {
            "parameters": {"training.weight_decay": {"min": 0.01, "max": 0.1}},
            "budget": {"trials": 9},
        },
        "test",
    )
    first = Proposals(space, tmp_path / "journal")
    failed, _ = first.next(), first.next()
    assert isinstance(failed, Proposal)
    first.fail(failed.number, "no memory")
    proposals = Proposals(space, tmp_path / "journal", retry_failed=True)
    search = StudySearch(
        proposals, 9, reached_limit=lambda: None if proposals.n_retried else "used up"
    )
    config = search.suggest("a")
    assert isinstance(config, dict)
    assert config["point"] == failed.point
    assert search.suggest("b") is None
    search.on_trial_complete("a", result=SCORES)
    assert search.suggest("b") == Searcher.FINISHED
    assert (proposals.n_finished, proposals.n_interrupted) == (1, 1)
