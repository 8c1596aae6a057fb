"""Running ladders with a stand-in for training."""

import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.schema import PROBABILITY_COLUMNS, TARGET_COLUMNS
from hms_ray.config.experiment import canonical
from hms_ray.config.loading import load_space
from hms_ray.config.values import replace_values
from hms_ray.dataset.folds import make_folds
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.display.event_file import EventFile
from hms_ray.display.live_runs import LiveRuns
from hms_ray.ensemble.simplex import blend_probabilities, simplex_weights
from hms_ray.errors import ConfigError, PackError, StudyError, TrainingError
from hms_ray.evaluate.metric import kl_report
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.fold_task import FoldTask, Report, report_with_task
from hms_ray.experiment.placement import Placement
from hms_ray.ladder import command as ladder_command
from hms_ray.ladder.command import training_seeds
from hms_ray.ladder.folder import StoredLadder, read_ladder
from hms_ray.ladder.image_visits import ladder_work
from hms_ray.ladder.local import LocalTrainer
from hms_ray.ladder.plan import check_steps, plan_ladder, sources_of
from hms_ray.ladder.run import LadderRun, run_ladder
from hms_ray.ladder.select import select_ladder
from hms_ray.ladder.steps import Ladder, load_ladder
from hms_ray.storage.fold_store import FoldStore
from tests.competition_folder import write_competition_folder
from tests.ensemble_data import nested_simplex
from tests.refused import refusal
from tests.tensorboard_reading import curve, scalars

BASE = """
experiment:
  data: {{n_folds: 3}}
  input: {{downsample: [10, 10], views: [{views}]}}
  model: {{name: test_resnet, pretrained: false, drop_path: 0.0}}
  training:
    seed: {seed}
    stages: {stages}
resources: {{group: study, health_check_interval_s: 0.2}}
"""
ONE, TWO = "[{epochs: 1}]", "[{epochs: 1}, {epochs: 2}]"
MANIFEST = """
steps:
  - name: a
    file: a.yaml
    published: {cv: 0.7, last: 0.8, rows: stage_2, lb: 0.4, recipe: {training.seed: 0}}
  - {name: b, file: b.yaml, before: a, change: another seed}
  - {name: again, file: a.yaml, before: b}
  - {name: fixed, blend: {kind: fixed, members: [a, b], weights: [0.25, 0.75]}, before: a}
  - {name: optimised, blend: {kind: optimised, members: [a, b]}, before: fixed}
  - {name: of_blends, blend: {kind: fixed, members: [fixed, optimised]}, before: optimised}
"""


def write_files(folder: Path) -> Path:
    for name, seed, views, stages in (
        ("a", 0, "panels", ONE),
        ("b", 1, "statistics", ONE),
        ("c", 0, "panels", TWO),
    ):
        text = BASE.format(seed=seed, views=views, stages=stages)
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    manifest = folder / "ladder.yaml"
    manifest.write_text(MANIFEST, encoding="utf-8")
    return manifest


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ladder")
    write_competition_folder(folder / "data")
    write_files(folder)
    return folder


@pytest.fixture(scope="module")
def ladder(base: Path) -> Ladder:
    return load_ladder(base / "ladder.yaml")


@pytest.fixture(scope="module")
def prepared(base: Path, ladder: Ladder) -> Prepared:
    first = ladder.experiments()["a"]
    return prepare(base / "data", first, base / "prepared", sources=sources_of(ladder))


class NoisyRunner:
    """Stores targets mixed with noise of the experiment's seed; fails on chosen folds."""

    placement = Placement()

    def __init__(
        self,
        failing: Sequence[tuple[str, int]] = (),
        optimistic: Sequence[str] = (),
        saved_s: float = 0.0,
    ) -> None:
        self.trained: list[tuple[str, int]] = []
        self.failing, self.optimistic, self.saved_s = failing, optimistic, saved_s

    def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
        for task in tasks:
            name = (task.experiment.name, task.fold)
            if name in self.failing:
                raise TrainingError("the training loss must be finite", got="nan")
            self.trained.append(name)
            rows = task.prepared.rows()
            rows = rows[rows["fold"] == task.fold].reset_index(drop=True)
            generator = np.random.default_rng([task.experiment.training.seed, task.fold])
            noise = generator.dirichlet(np.ones(6), size=len(rows))
            oof = rows[["row_id", "eeg_id", "patient_id", "fold"]].copy()
            oof[list(PROBABILITY_COLUMNS)] = 0.5 * rows[list(TARGET_COLUMNS)].to_numpy() + (
                0.5 * noise
            )
            optimistic = task.experiment.name in self.optimistic
            history = [
                {
                    "step": step,
                    "epoch": step / 2,
                    "stage_index": 0,
                    "seconds": 1.0,
                    "kl_all": 1 / step,
                    "criterion": None,
                }
                for step in (1, 2)
            ]
            record = {
                "optimistic": optimistic,
                "seconds": 60.0,
                "saved_s": self.saved_s,
                "history": history,
                "started_s": 5.0,
            }
            FoldStore(task.results).write(task.key, oof, record, lambda path: path.touch())
            report_with_task(report, task, {"event": "fold_ended"})


def run(
    ladder: Ladder, prepared: Prepared, results: Path, runner: NoisyRunner
) -> tuple[LadderRun, str]:
    printed = io.StringIO()
    trainer = LocalTrainer(runner, stream=printed)
    return run_ladder(ladder, prepared, results, trainer), printed.getvalue()


@pytest.fixture
def command(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command ``ladder --local`` with a runner; its results are in ``tmp_path``."""

    def call(runner: NoisyRunner, *words: str) -> int:
        monkeypatch.setattr(
            "hms_ray.experiment.in_process.InProcessRunner", lambda *_, **__: runner
        )
        places = ["--data", str(base / "data"), "--results", str(tmp_path)]
        return main(["ladder", "--local", *places, "--file", str(base / "ladder.yaml"), *words])

    return call


def test_every_step_has_a_result_and_equal_experiments_are_trained_once(
    ladder: Ladder, prepared: Prepared, tmp_path: Path
) -> None:
    runner = NoisyRunner()
    made, printed = run(ladder, prepared, tmp_path, runner)
    assert runner.trained == [(name, fold) for name in "ab" for fold in range(3)]
    assert (made.n_trained, made.n_reused, made.failed) == (6, 0, {})
    results = {result.name: result for result in made.results}
    assert list(results) == ["a", "b", "again", "fixed", "optimised", "of_blends"]
    assert [result.kind for result in made.results] == [
        *3 * ["experiment"],
        *("fixed_blend", "optimised_blend", "fixed_blend"),
    ]
    rows = prepared.rows()
    for result in made.results:
        assert list(result.oof["row_id"]) == list(rows["row_id"])
    assert results["a"].published_cv == 0.7
    assert (results["a"].published_lb, results["a"].published_last) == (0.4, 0.8)
    assert [result.checkpoint for result in made.results] == 6 * ["last"]
    assert (results["a"].published_rows, results["b"].published_rows) == ("stage_2", "all")
    assert results["b"].change == "another seed"
    assert (results["a"].fold_minutes, results["of_blends"].fold_minutes) == (3.0, 6.0)
    assert results["again"].oof.equals(results["a"].oof)
    assert results["a"].keys is not None
    assert list(results["a"].keys) == ["0", "1", "2"]
    assert all(FoldStore(tmp_path).has(key) for key in results["a"].keys.values())
    assert results["again"].keys == results["a"].keys != results["b"].keys
    assert [results[name].keys for name in ("fixed", "optimised", "of_blends")] == 3 * [None]
    lines = printed.splitlines()
    assert len([line for line in lines if " done" in line]) == 6
    assert max(map(len, lines)) <= 80


def test_a_step_of_another_has_its_experiment_with_other_values(base: Path) -> None:
    """Values are set before the overlay and --set; chains of such steps add up."""
    steps = """
  - {name: ema, of: a, set: {training.ema: 0.9, training.seed: 7}, before: a}
  - {name: ema_clip, of: ema, set: {training.clip_norm: 2, training.seed: 8}, before: ema}
"""
    manifest = base / "of.yaml"
    manifest.write_text("steps:\n  - {name: a, file: a.yaml}" + steps, encoding="utf-8")
    made = load_ladder(manifest, settings=["experiment.training.seed=1"], only=["ema_clip"])
    (found,) = made.experiments().values()
    changed = {"training.ema": 0.9, "training.clip_norm": 2, "training.seed": 1}
    whole = load_space(base / "a.yaml").experiment
    assert canonical(found) == canonical(replace_values(whole, changed))
    assert found.name == "ema_clip"
    manifest.write_text(manifest.read_text().replace("clip_norm", "clip_nrm"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"clip_nrm.*of\.yaml, step ema_clip"):
        load_ladder(manifest)


def test_blends_have_fixed_weights_or_those_of_other_patients(
    ladder: Ladder, prepared: Prepared, tmp_path: Path
) -> None:
    made, _ = run(ladder, prepared, tmp_path, NoisyRunner())
    results = {result.name: result for result in made.results}
    stack = np.stack([probabilities_of(results[name].oof) for name in "ab"])
    rows = prepared.rows()
    targets, patients = rows[list(TARGET_COLUMNS)].to_numpy(), rows["patient_id"].to_numpy()
    fixed = probabilities_of(results["fixed"].oof)
    np.testing.assert_allclose(fixed, 0.25 * stack[0] + 0.75 * stack[1], rtol=1e-12)
    assert results["fixed"].weights == {"a": 0.25, "b": 0.75}
    nested = nested_simplex(targets, stack, patients)
    optimised = probabilities_of(results["optimised"].oof)
    np.testing.assert_array_equal(optimised, nested)
    weights = simplex_weights(targets, stack).weights
    assert results["optimised"].weights == dict(zip("ab", weights.tolist(), strict=True))
    assert not np.allclose(optimised, blend_probabilities(stack, weights), atol=1e-12)
    both = probabilities_of(results["of_blends"].oof)
    np.testing.assert_allclose(both, (fixed + optimised) / 2, rtol=1e-12)


def test_blend_has_the_optimism_and_cost_of_its_members(
    ladder: Ladder, prepared: Prepared, tmp_path: Path
) -> None:
    made, _ = run(ladder, prepared, tmp_path, NoisyRunner(optimistic=["b"], saved_s=30.0))
    costs = [(result.fold_minutes, result.saved_minutes) for result in made.results]
    assert costs == 3 * [(4.5, 1.5)] + 3 * [(9.0, 3.0)]
    marked = [result.name for result in made.results if result.optimistic]
    assert marked == ["b", "fixed", "optimised", "of_blends"]


def test_steps_know_which_checkpoint_they_keep(
    base: Path, prepared: Prepared, tmp_path: Path
) -> None:
    kept = {}
    for settings in ([], ["training.checkpoint=best"]):
        chosen = load_ladder(base / "ladder.yaml", settings=settings, only=["a", "b", "fixed"])
        made, _ = run(chosen, prepared, tmp_path, NoisyRunner())
        kept[len(settings)] = [result.checkpoint for result in made.results]
    assert kept == {0: 3 * ["last"], 1: 3 * ["best"]}


def test_second_run_reuses_every_fold(ladder: Ladder, prepared: Prepared, tmp_path: Path) -> None:
    first, _ = run(ladder, prepared, tmp_path, NoisyRunner())
    runner = NoisyRunner()
    again, printed = run(ladder, prepared, tmp_path, runner)
    assert runner.trained == []
    assert printed == ""
    assert (again.n_trained, again.n_reused) == (0, 6)
    for before, after in zip(first.results, again.results, strict=True):
        assert before.oof.equals(after.oof)


def test_other_experiments_continue_after_a_failure(
    ladder: Ladder, prepared: Prepared, tmp_path: Path
) -> None:
    runner = NoisyRunner(failing=[("b", 1)])
    made, printed = run(ladder, prepared, tmp_path, runner)
    assert runner.trained == [("a", 0), ("a", 1), ("a", 2), ("b", 0)]
    assert [result.name for result in made.results] == ["a", "again"]
    assert made.results[1].before is None
    reason = "the training loss must be finite, got nan"
    assert made.failed["b"] == reason
    assert made.failed["fixed"] == made.failed["optimised"] == f"its member b failed: {reason}"
    assert made.failed["of_blends"].startswith("its member fixed failed: its member b failed")
    assert "b failed: the training loss must be finite" in printed
    assert made.n_trained == 4
    mended, _ = run(ladder, prepared, tmp_path, NoisyRunner())
    assert mended.failed == {}
    assert (mended.n_trained, mended.n_reused) == (2, 4)


def test_experiment_that_cannot_be_planned_fails_alone(prepared: Prepared, tmp_path: Path) -> None:
    # Such as weights that have gone since the steps were checked.
    manifest = write_files(tmp_path)
    text = BASE.format(seed=1, views="statistics", stages=ONE)
    text = text.replace("pretrained: false", "weights_file: gone.pth")
    (tmp_path / "b.yaml").write_text(text, encoding="utf-8")
    made, _ = run(load_ladder(manifest), prepared, tmp_path, NoisyRunner())
    assert made.failed["b"].startswith("model.weights_file must be a readable file")
    assert [result.name for result in made.results] == ["a", "again"]


def test_steps_that_cannot_be_trained_are_refused_together(
    prepared: Prepared, tmp_path: Path
) -> None:
    manifest = write_files(tmp_path)
    text = BASE.format(seed=1, views="statistics", stages=ONE).replace("test_resnet", "no_such")
    (tmp_path / "b.yaml").write_text(text, encoding="utf-8")
    late = "[{epochs: 1, rows: at_least_threshold}]"
    text = BASE.format(seed=1, views="statistics", stages=late)
    (tmp_path / "a.yaml").write_text(text, encoding="utf-8")
    rows = prepared.rows().assign(total_votes=3)
    with refusal(ConfigError, "every step", got="a stage needs training rows", fix="--steps"):
        check_steps(load_ladder(manifest), rows)
    with refusal(ConfigError, got="b: model.name must be a timm model, got no_such"):
        check_steps(load_ladder(manifest), rows)


def test_ladder_without_any_result_is_an_error(
    ladder: Ladder, prepared: Prepared, tmp_path: Path
) -> None:
    runner = NoisyRunner(failing=[("a", 0), ("b", 0)])
    with pytest.raises(StudyError, match="one step must have a result, got 6 failed") as caught:
        run(ladder, prepared, tmp_path, runner)
    assert "the first, a, with: the training loss must be finite" in str(caught.value)


def test_experiments_with_the_same_first_stage_stay_together(
    base: Path, prepared: Prepared, tmp_path: Path
) -> None:
    manifest = write_files(tmp_path)
    manifest.write_text(
        "steps:\n" + "".join(f"  - {{name: {name}, file: {name}.yaml}}\n" for name in "abc"),
        encoding="utf-8",
    )
    plan = plan_ladder(load_ladder(manifest), prepared, tmp_path, Placement())
    units = [[(task.experiment.name, task.fold) for task in unit] for unit in plan.missing]
    together = [[("a", fold), ("c", fold)] for fold in range(3)]
    assert units == [*together, *([("b", fold)] for fold in range(3))]
    # Three epochs of the same images cost three times one.
    costs = {task.experiment.name: plan.costs[task.key] for unit in plan.missing for task in unit}
    assert costs["c"] == pytest.approx(3 * costs["a"])


def test_run_announces_the_folds_and_image_visits_that_are_left(
    prepared: Prepared, tmp_path: Path
) -> None:
    manifest = write_files(tmp_path)
    text = "steps: [{name: a, file: a.yaml}, {name: c, file: c.yaml}]\n"
    manifest.write_text(text, encoding="utf-8")
    steps, n_rows = load_ladder(manifest), len(prepared.rows())
    lines: list[str] = []
    for only in (["a"], []):
        trainer = LocalTrainer(NoisyRunner(), stream=io.StringIO())
        chosen = load_ladder(manifest, only=only)
        run_ladder(chosen, prepared, tmp_path, trainer, announce=lines.append)
    # One epoch of a, on the rows of the other two folds; it is the first of the three of c.
    assert lines == [
        f"to train: 3 folds, {2 * n_rows:,} image visits; 0 reused from the fold store",
        f"to train: 3 folds, {4 * n_rows:,} image visits; 3 reused from the fold store",
    ]
    assert sum(step.visits for step in ladder_work(steps, prepared.rows())) == 6 * n_rows


def test_units_by_cost_are_all_units_the_most_expensive_first(
    ladder: Ladder, prepared: Prepared, tmp_path: Path
) -> None:
    plan = plan_ladder(ladder, prepared, tmp_path, Placement())
    plan = replace(plan, costs={key: float(cost) for cost, key in enumerate(plan.costs)})
    units = plan.by_cost()
    assert sorted(units, key=id) == sorted(plan.missing, key=id)
    costs = [sum(plan.costs[task.key] for task in unit) for unit in units]
    assert costs == sorted(costs, reverse=True)
    assert units != plan.missing


def test_command_writes_prints_and_resumes(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = NoisyRunner()
    words = ["--study", "mine", "--set", "training.seed=3"]
    assert command(runner, *words) == 0
    output = capsys.readouterr().out
    assert "mine: 6 steps, 3 of them experiments, on" in output
    # The views still tell a from b where --set gives all of them one seed.
    assert "6 folds trained, 0 reused from the fold store" in output
    about = json.loads((tmp_path / "mine" / "steps.json").read_text(encoding="utf-8"))["about"]
    assert about["simulated"] is False
    assert (about["seed"], about["scale"], about["floors"]) == (3, "full", None)
    assert about["command"].startswith("hms-ray ladder --local --data ")
    assert about["departures"] == {"a": ["training.seed"]}
    trained = list(runner.trained)
    assert command(runner, *words) == 0
    assert runner.trained == trained
    assert "0 folds trained" in capsys.readouterr().out


def test_seeds_are_trained_on_the_same_rows_and_pooled(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = NoisyRunner()
    assert command(runner, "--study", "mine", "--seeds", "0,2") == 0
    output = capsys.readouterr().out
    assert output.count("6 folds trained, 0 reused") == 2
    assert "next: hms-ray ladder pool mine-seed0 mine-seed2" in output
    first, second = (read_ladder(tmp_path / f"mine-seed{seed}") for seed in (0, 2))
    assert (first.about["seed"], second.about["seed"]) == (0, 2)
    assert first.rows.equals(second.rows)
    assert not first.results[0].oof.equals(second.results[0].oof)
    assert main(["ladder", "pool", "mine-seed0", "mine-seed2", "--results", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "2 ladders combined on 1 data set" in text
    assert "Differences are means over training seeds" in text


def test_folders_of_all_seeds_are_checked_before_the_first_is_trained(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine-seed2").mkdir()
    (tmp_path / "mine-seed2" / "study.json").touch()
    runner = NoisyRunner()
    assert command(runner, "--study", "mine", "--seeds", "0,2") != 0
    assert "mine-seed2" in capsys.readouterr().err
    assert runner.trained == []


@pytest.mark.parametrize("seeds", ["0,0", "1,a", "", "-1", "0;1"])
def test_invalid_seeds_are_refused(seeds: str) -> None:
    with refusal(ConfigError, "different whole numbers", got=seeds, fix="--seeds 0,1,2"):
        training_seeds(seeds, [])


def test_seeds_of_two_options_are_refused() -> None:
    with refusal(ConfigError, "--seeds sets training.seed", got="training.seed=1", fix="Omit one"):
        training_seeds("0,1", ["a=1", "training.seed=1"])


def test_every_step_has_a_run_that_grows(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LiveRuns.__init__, "__defaults__", (0.01,))
    board, seen = tmp_path / "ladder" / "board", list[int]()
    tag = "1 objective, mean over folds/KL all"

    class Watched(NoisyRunner):
        def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
            super().run(tasks, report)
            fold, end = f"folds/{tasks[0].fold}/KL all", time.monotonic() + 5
            while fold not in scalars(board / tasks[0].experiment.name):
                assert time.monotonic() < end
            seen.append(tasks[0].fold)

    assert command(Watched(), "--steps", "a", "--study", "ladder") == 0
    assert seen == [0, 1, 2], "written as soon as a fold ends"
    assert [run.name for run in board.iterdir()] == ["a"]
    (board / "former").mkdir()
    # Those of a are reused, and again is the same experiment.
    assert command(Watched()) == 0
    ladder = read_ladder(tmp_path / "ladder")
    assert sorted(run.name for run in board.iterdir()) == ["a", "again", "b"]
    for step in ladder.results:
        if step.keys is None:
            continue
        run = board / step.name
        assert curve(run, tag) == [(500, 1.0), (1000, 0.5)]
        found = {name for name in scalars(run) if name.startswith("result")}
        assert found == {
            *("result/KL all", "result/KL >=4", "result/KL >=10", "result/minutes of training")
        }
        rows = ladder.rows
        scores = kl_report(
            rows[list(TARGET_COLUMNS)].to_numpy(),
            probabilities_of(step.oof),
            rows["total_votes"].to_numpy(),
        )
        assert curve(run, "result/KL >=10") == [(1000, pytest.approx(scores["kl_10"]))]


def test_ladder_without_tensorboard_files_is_whole(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventFile, "flush", full)
    assert command(NoisyRunner()) == 0
    assert len(read_ladder(tmp_path / "ladder").results) == 6
    log = (tmp_path / "ladder" / "log.txt").read_text(encoding="utf-8")
    assert log.count("TensorBoard's files were not written: OSError: [Errno 28]") == 1


def test_ladder_with_failed_steps_keeps_the_others(
    command: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner = NoisyRunner(failing=[("b", 0)])
    assert command(runner) == 1
    output = capsys.readouterr()
    assert output.err.splitlines()[-1] == (
        "hms-ray ladder: 4 of 6 steps failed; run the same command again to retry"
    )
    assert "step b failed: the training loss must be finite, got nan\n" in output.out
    assert "Ladder of 2 steps" in output.out, "the other steps are printed"
    page = (tmp_path / "ladder" / "README.md").read_text(encoding="utf-8")
    assert "## Steps that failed\n\n- b: the training loss must be finite, got nan\n" in page
    assert [step.name for step in read_ladder(tmp_path / "ladder").results] == ["a", "again"]
    runner.failing = ()
    assert command(runner) == 0
    assert "must be finite" not in capsys.readouterr().out


def test_ladder_keeps_its_folds_until_others_are_requested(
    command: Callable[..., int], prepared: Prepared, tmp_path: Path
) -> None:
    runner = NoisyRunner()
    given = prepared.rows()[["row_id", "patient_id", "fold"]]
    given = given.assign(fold=(given["fold"] + 1) % 3)
    given.to_csv(tmp_path / "folds.csv", index=False)
    assert command(runner, "--steps", "a", "--folds", str(tmp_path / "folds.csv")) == 0
    for more, folds in (
        ([], given["fold"]),
        (["--set", "data.fold_seed=43"], make_folds(prepared.rows(), 3, 43)["fold"]),
    ):
        assert command(runner, "--steps", "a", *more) == 0
        stored = read_ladder(tmp_path / "ladder-steps").rows
        assert stored["fold"].tolist() == folds.tolist()
    assert len(runner.trained) == 6, "kept folds are not trained again"


def test_damaged_fold_of_a_ladder_is_trained_again(
    ladder: Ladder, prepared: Prepared, tmp_path: Path
) -> None:
    first, _ = run(ladder, prepared, tmp_path, NoisyRunner())
    keys = first.results[0].keys
    assert keys is not None
    (FoldStore(tmp_path).path(keys["1"]) / "oof.parquet").write_bytes(b"damaged")
    runner = NoisyRunner()
    again, _ = run(ladder, prepared, tmp_path, runner)
    assert len(runner.trained) == 1
    assert again.failed == {}
    assert again.results[0].oof.equals(first.results[0].oof)


def test_fault_of_the_data_is_raised_at_once(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--steps", "a", "--debug"]
    assert command(NoisyRunner(), *words) == 0
    given = []

    def damaged(*_: object, folds: object = None, **__: object) -> Prepared:
        given.append(folds is not None)
        raise PackError("the pack's content must match its checksums")

    monkeypatch.setattr(ladder_command, "prepare", damaged)
    with pytest.raises(PackError):
        command(NoisyRunner(), *words)
    assert given == [True], "it is not tried again with other folds"


@pytest.mark.parametrize("damage", ["steps.json", "data"])
def test_folds_are_drawn_if_the_stored_ones_cannot_be_used(
    command: Callable[..., int],
    tmp_path: Path,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command(NoisyRunner(), "--steps", "a") == 0
    if damage == "steps.json":
        (tmp_path / "ladder-steps" / damage).write_text("{")
    else:
        read = ladder_command.read_ladder

        def of_other_data(folder: Path) -> StoredLadder:
            stored = read(folder)
            return replace(stored, rows=stored.rows.assign(row_id="of another folder"))

        monkeypatch.setattr(ladder_command, "read_ladder", of_other_data)
    assert command(NoisyRunner(), "--steps", "a") == 0
    log = (tmp_path / "ladder-steps" / "log.txt").read_text(encoding="utf-8")
    assert ("the stored ladder is damaged" in log) == (damage == "steps.json")


def test_ladder_does_not_overwrite_a_study(command: Callable[..., int], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.json").touch()
    with pytest.raises(StudyError, match="a ladder needs a folder of its own, got a study"):
        command(NoisyRunner(), "--study", "mine", "--debug")


def test_default_folders_differ_by_selection(base: Path) -> None:
    manifest, one = base / "ladder.yaml", base / "c.yaml"
    assert select_ladder(manifest, None, None, [], [])[1] == "ladder"
    assert select_ladder(manifest, None, None, [], ["a"])[1] == "ladder-steps"
    assert select_ladder(manifest, one, None, [], [])[1] == "ablation-c"


@pytest.mark.parametrize("ablate", [None, "c.yaml"])
def test_ladder_with_a_hold_out_is_refused_before_anything_is_read(
    base: Path, ablate: str | None
) -> None:
    manifest, one = base / "ladder.yaml", None if ablate is None else base / ablate
    where = str(one or manifest)
    with refusal(
        ConfigError,
        "a ladder must not have a hold-out",
        got="data.holdout: 0.15",
        where=where,
        fix="--set data.holdout=0",
    ):
        select_ladder(manifest, one, None, ["data.holdout=0.15"], [])
