from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch

from hms_ray.competition.schema import PROBABILITY_COLUMNS
from hms_ray.config.experiment import Experiment, ModelConfig, canonical
from hms_ray.config.values import replace_values
from hms_ray.dataset.prepare import PackRef, Prepared, prepare
from hms_ray.errors import ConfigError, PredictionError, TrainingError
from hms_ray.experiment.cache_key import cache_key_inputs
from hms_ray.experiment.fold_task import FoldTask, Report, run_task
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds, run_experiment
from hms_ray.storage import visibility
from hms_ray.storage.fold_store import FoldStore, StoredFoldError
from hms_ray.train import pretrained, versions
from hms_ray.train.process import Process
from tests.competition_folder import write_competition_folder
from tests.refused import refusal

TINY = Experiment.model_validate(
    {
        "data": {"n_folds": 3},
        "input": {"downsample": [4, 4]},
        "model": {"name": "test_efficientnet", "pretrained": False, "drop_path": 0.0},
        "training": {"batch_size": 8, "stages": [{"epochs": 1}]},
    }
)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition_folder(tmp_path_factory.mktemp("data") / "hms")


@pytest.fixture
def prepared(data_dir: Path, tmp_path: Path) -> Prepared:
    return prepare(data_dir, TINY, tmp_path)


class UniformRunner:
    """Stores uniform predictions and remembers the trained folds."""

    placement = Placement()

    def __init__(self, spoil: bool = False) -> None:
        self.folds: list[int] = []
        self.spoil = spoil

    def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
        for task in tasks:
            self.folds.append(task.fold)
            rows = task.prepared.rows()
            oof = rows.loc[rows["fold"] == task.fold, ["row_id", "eeg_id", "patient_id", "fold"]]
            oof = oof.assign(**dict.fromkeys(PROBABILITY_COLUMNS, 1 / 6))
            record: dict[str, Any] = {"optimistic": False, "seconds": 6.0, "saved_s": 0.0}
            FoldStore(task.results).write(
                task.key, oof.iloc[int(self.spoil) :], record, lambda path: path.touch()
            )


def test_missing_folds_are_trained_once_then_reused(prepared: Prepared, tmp_path: Path) -> None:
    runner = UniformRunner()
    run_experiment(TINY, prepared, tmp_path, runner, folds=[1])
    result = run_experiment(TINY, prepared, tmp_path, runner)
    assert runner.folds == [1, 0, 2]
    assert result.reused == (1,)
    assert result.fold_minutes == pytest.approx(0.3)
    again = run_experiment(TINY, prepared, tmp_path, runner)
    assert runner.folds == [1, 0, 2]
    assert again.reused == (0, 1, 2)
    assert again.scores == result.scores


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_damaged_fold_is_trained_again(prepared: Prepared, tmp_path: Path, when: str) -> None:
    class Runner(UniformRunner):
        def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
            super().run(tasks, report)
            if when == "meanwhile" and len(self.folds) == 3:
                damage(tasks[2].key)

    def damage(key: str) -> None:
        (FoldStore(tmp_path).path(key) / "oof.parquet").write_bytes(b"damaged")

    runner = Runner()
    if when == "before":
        keys = run_experiment(TINY, prepared, tmp_path, runner).keys
        damage(keys[2])
    result = run_experiment(TINY, prepared, tmp_path, runner)
    assert runner.folds == [0, 1, 2, 2]
    assert result.reused == ((0, 1) if when == "before" else ())
    assert len(result.oof) == len(prepared.rows())


def test_fold_that_is_visible_late_is_not_trained_again(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine has stored it, on a file system that shows it seconds later."""
    has, hidden = FoldStore.has, iter(())

    class Runner(UniformRunner):
        def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
            nonlocal hidden
            super().run(tasks, report)
            hidden = iter(range(3))

    monkeypatch.setattr(visibility, "_POLL_S", 0.001)
    monkeypatch.setattr(
        FoldStore, "has", lambda store, key: has(store, key) and next(hidden, None) is None
    )
    runner = Runner()
    run_experiment(TINY, prepared, tmp_path, runner, folds=[0])
    assert runner.folds == [0]
    assert next(hidden, None) is None, "it was hidden"


def test_fold_that_stays_damaged_is_an_error(prepared: Prepared, tmp_path: Path) -> None:
    class Runner(UniformRunner):
        def run(self, tasks: Sequence[FoldTask], report: Report, after_fold: object = None) -> None:
            super().run(tasks, report)
            for task in tasks:
                (FoldStore(tmp_path).path(task.key) / "oof.parquet").write_bytes(b"damaged")

    runner = Runner()
    with refusal(StoredFoldError, "in the store", fix="Train it again"):
        run_experiment(TINY, prepared, tmp_path, runner, folds=[0])
    assert runner.folds == [0, 0]


def test_scores_are_those_of_the_stored_predictions(prepared: Prepared, tmp_path: Path) -> None:
    result = run_experiment(TINY, prepared, tmp_path, UniformRunner())
    rows = prepared.rows()
    targets = rows[[name for name in rows if name.endswith("_target")]].to_numpy()
    entropy = -np.sum(targets * np.log(np.where(targets > 0, targets, 1)), axis=1)
    assert result.scores["kl_all"] == pytest.approx(np.mean(np.log(6) - entropy), rel=1e-12)
    many = rows["total_votes"].to_numpy() >= 10
    assert result.scores["kl_10"] == pytest.approx(np.mean((np.log(6) - entropy)[many]), rel=1e-12)
    assert list(result.oof["row_id"]) == list(rows["row_id"])


def test_stored_predictions_with_gaps_are_refused(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(PredictionError):
        run_experiment(TINY, prepared, tmp_path, UniformRunner(spoil=True))


@pytest.mark.parametrize(
    ("path", "value", "same"),
    [
        ("name", "other", True),
        ("data.fold_seed", 1, True),  # the fold table itself is in the key
        ("data.n_patients", 9, True),  # so are the rows
        ("training.stage_threshold", 9, True),  # no stage uses it
        ("training.unanimous_from", 3, True),  # nor this
        ("training.precision", "float32", True),  # what auto means on this placement
        ("training.precision", "float64", False),
        ("model.dropout", 0.2, False),
    ],
)
def test_cache_keys_depend_on_what_changes_results(
    prepared: Prepared, path: str, value: Any, same: bool
) -> None:
    before = cache_key_inputs(TINY, prepared, 0, Placement())
    after = cache_key_inputs(replace_values(TINY, {path: value}), prepared, 0, Placement())
    assert (before == after) is same


AUGMENT = {
    "cutmix": {"probability": 0.4, "axis": "time"},
    "mosaic": {"probability": 1.0, "epochs": 3},
    "mixup": {"probability": 0.5, "alpha": 0.2},
    "time_mask": {"probability": 0.5, "largest": 0.2, "n_masks": 1},
    "frequency_mask": {"probability": 0.5, "largest": 0.2, "n_masks": 1},
    "pair_drop": {},
    "narrow_band": {},
    "time_zoom": {},
    "block_drop": {},
    "centre_shift": {},
    "window_shift_s": 4,
}
EVERYTHING = Experiment.model_validate(
    {
        "input": {
            "views": ["kaggle panels", "pairs panels", "raw signals", "eeg.zoom in eeg panels"],
            "recipes": {"eeg": {"zoom": {"margin_s": 11, "centre_s": 25}}},
            "splice_s": 5,
            "eeg": {"margin_s": 9},
            "pairs": {"margin_s": 9},
            "raw": {"margin_s": 9},
        },
        "training": {
            "augment": AUGMENT,
            "unanimous_from": 4,
            "tier_weights": {"decay": [1.2, 1.2, 0.0]},
            "label_smoothing": {"share": 0.05, "max_votes": 3},
            "next_stage_from": "best",
            "stages": [
                {
                    "rows": "below_threshold",
                    "loss": "kl_log_votes",
                    "learning_rate": 0.01,
                    "augment": AUGMENT,
                },
                {},
            ],
        },
    }
)
"""An experiment in which every value changes results."""
CHANGES_NOTHING = ("name", "data.", "model.weights_file", "training.stages.0.name")
OTHER_VALUES: list[Any] = [
    *(None, True, False, 1, 2, 3, 7, 0.3, 0.45, 0.7, 9.0, 150.0, 1024, [2, 2], [1, 2], [1.0, 30.0]),
    [12.0, 30.0],
    *("none", "global", "per_image", "kl", "kl_log_votes", "all", "at_least_threshold"),
    *(
        "frequency",
        "default",
        "best",
        "last",
        "kl_10",
        "float64",
        "interpolate",
        "interleaved",
        "librosa",
        "log",
        "stft",
        "mel_fixed",
        "test_resnet",
        "eeg",
        "nearest",
        "keep",
        "constant",
        "adam",
        "sigmoid",
        "gem",
        "random_window",
        "weights.pt",
        "per_tier",
    ),
    *(["statistics"], [300, 400], ["time_flip"]),
    *(["eeg.zoom in eeg panels", "kaggle panels", "pairs panels", "raw signals"], [0.5, 0.4, 0.6]),
]


def leaves(value: Any, path: str = "") -> Iterator[str]:
    """Dotted paths of all values of an experiment's plain data."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from leaves(below, f"{path}.{name}".lstrip("."))
    elif value and path in ("training.stages", "model.branches"):
        yield from leaves(value[0], f"{path}.0")
    else:
        yield path


BRANCHED = Experiment.model_validate(
    {
        "model": {
            "branches": [{"views": ["panels"], "name": "test_vit"}, {"views": ["raw signals"]}],
        }
    }
)
PATHS = [
    *((EVERYTHING, path) for path in leaves(EVERYTHING.model_dump(mode="json"))),
    *((BRANCHED, path) for path in leaves(BRANCHED.model_dump(mode="json"))),
]


@pytest.mark.parametrize(
    ("experiment", "path"),
    # With branches, only their own fields; elsewhere, all others.
    [
        (one, path)
        for one, path in PATHS
        if (one is BRANCHED) == path.startswith("model.branches")
        # They need views of raw signals alone, or none of kaggle.
        and not path.endswith(("signal_mixup", "shifts_s"))
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_value_that_changes_results_changes_the_cache_key(
    experiment: Experiment, path: str
) -> None:
    def key(experiment: Experiment) -> Any:
        # Rows and folds go in by content.
        return canonical(experiment) | {"data": None}

    others = 0
    for value in OTHER_VALUES:
        try:
            changed = replace_values(experiment, {path: value})
        except ConfigError:
            continue
        if changed != experiment:
            others += 1
            nothing = path.startswith(CHANGES_NOTHING) or path.endswith("weights_file")
            assert (key(changed) == key(experiment)) is nothing, value
    assert others, "OTHER_VALUES holds nothing that fits here"


def test_cache_keys_depend_on_data_fold_and_placement(prepared: Prepared, tmp_path: Path) -> None:
    two = replace_values(TINY, {"training.stages": [{}, {}]})

    def keys(data: Prepared = prepared, **placement: Any) -> list[str]:
        tasks = plan_folds(two, data, tmp_path, Placement(**placement))
        return [key for task in tasks for key in (task.key, task.truncated(1).key)]

    assert len(set(keys())) == 6
    assert keys() == keys()
    for other in (
        keys(world_size=2),
        keys(device_class="cuda"),
        keys(device_class="cuda", bfloat16=True),
        keys(replace(prepared, rows_fingerprint="x")),
        keys(replace(prepared, folds_fingerprint="x")),
        keys(replace(prepared, packs={"kaggle": PackRef(tmp_path, "x")})),
    ):
        assert not set(keys()) & set(other)


def test_cache_key_has_the_content_of_weights(prepared: Prepared, tmp_path: Path) -> None:
    def key(name: str, content: bytes) -> str:
        file = tmp_path / name
        file.write_bytes(content)
        model = ModelConfig(pretrained=True, weights_file=str(file))
        experiment = TINY.model_copy(update={"model": model})
        return plan_folds(experiment, prepared, tmp_path, Placement())[0].key

    assert key("a.pt", b"1") == key("b.pt", b"1")
    assert key("a.pt", b"1") != key("a.pt", b"2")


def test_cache_key_has_the_tag_and_content_of_the_hubs_weights(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.safetensors"
    monkeypatch.setattr(pretrained, "_hub_file", lambda name, config: file)

    def key(name: str, content: bytes) -> str:
        file.write_bytes(content)
        experiment = TINY.model_copy(update={"model": ModelConfig(name=name)})
        return plan_folds(experiment, prepared, tmp_path, Placement())[0].key

    assert key("test_resnet", b"1") == key("test_resnet.r160_in1k", b"1")
    assert key("test_resnet", b"1") != key("test_resnet", b"22")
    assert key("efficientnet_b0.ra_in1k", b"1") != key("efficientnet_b0.ra4_e3600_r224_in1k", b"1")


def test_cache_key_without_pretrained_weights_needs_neither_hub_nor_timm(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "pretrained_config", lambda name: pytest.fail("timm"))
    monkeypatch.setattr(pretrained, "_hub_file", lambda *of: pytest.fail("hub"))
    task = plan_folds(TINY, prepared, tmp_path, Placement())[0]
    tagged = replace_values(TINY, {"model.name": "test_efficientnet.r160_in1k"})
    assert plan_folds(tagged, prepared, tmp_path, Placement())[0].key == task.key
    assert task.key_inputs["weights"] is None


@pytest.mark.parametrize(
    ("library", "device", "changes"),
    [("torch", "cpu", True), ("timm", "cpu", True), ("cuda", "cuda", True), ("cuda", "cpu", False)],
)
def test_cache_key_has_versions_as_major_and_minor(
    library: str,
    device: Any,
    changes: bool,
    prepared: Prepared,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"torch": "2.11.0", "timm": "1.0.20", "cuda": "12.8"}
    monkeypatch.setattr(versions, "version", installed.__getitem__)

    def key(**changed: str) -> str:
        installed.update(changed)
        monkeypatch.setattr(torch.version, "cuda", installed["cuda"])
        return plan_folds(TINY, prepared, tmp_path, Placement(device_class=device))[0].key

    first = key()
    patch, minor = {"torch": ("2.11.1+cu128", "2.12.0"), "timm": ("1.0.31", "1.1.0")}.get(
        library, ("12.8", "13.0")
    )
    assert key(**{library: patch}) == first
    assert (key(**{library: minor}) != first) is changes


@pytest.mark.parametrize("changed", [{"weights": "0" * 64}, {"versions": {"torch": "1.0"}}])
def test_a_process_with_other_weights_or_libraries_trains_nothing(
    prepared: Prepared, tmp_path: Path, changed: dict[str, Any]
) -> None:
    task = plan_folds(TINY, prepared, tmp_path, Placement())[0]
    task = replace(task, key_inputs={**task.key_inputs, **changed})
    with refusal(
        TrainingError,
        "of its cache key",
        got=str(next(iter(changed.values()))),
        fix="same versions",
    ):
        run_task(task, Process())
    assert not FoldStore(tmp_path).has(task.key)


def test_repeated_fold_is_trained_once(prepared: Prepared, tmp_path: Path) -> None:
    tasks = plan_folds(TINY, prepared, tmp_path, Placement(), [2, 0, 2])
    assert [task.fold for task in tasks] == [2, 0]


def test_unknown_fold_is_refused(prepared: Prepared, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a fold must be from 0 to 2, got 3"):
        run_experiment(TINY, prepared, tmp_path, UniformRunner(), folds=[3])


def test_same_seed_gives_the_same_predictions_bit_for_bit(data_dir: Path, tmp_path: Path) -> None:
    results = []
    threads = torch.get_num_threads()
    for name in ("first", "second"):
        prepared = prepare(data_dir, TINY, tmp_path / name)
        records: list[dict[str, Any]] = []
        result = run_experiment(
            TINY, prepared, tmp_path / name, InProcessRunner(device="cpu"), report=records.append
        )
        assert torch.get_num_threads() == threads
        assert {record["fold"] for record in records} == {0, 1, 2}
        assert records[-1]["event"] == "fold_ended"
        assert records[-2]["progress"] == 1
        results.append(result)
    first, second = results
    pd.testing.assert_frame_equal(first.oof, second.oof, check_exact=True)
    assert first.scores == second.scores
    assert first.keys == second.keys
    record = FoldStore(tmp_path / "first").record(first.keys[0])
    assert record["made_with"]["torch"] == torch.__version__
    assert record["made_with"]["timm"] == timm.__version__
    assert record["made_with"]["cuda"] is None


def test_windows_are_shifted_in_training(data_dir: Path, tmp_path: Path) -> None:
    """From the configuration through packs with a margin to the fold store, twice."""
    inputs = {
        "views": ["panels", "eeg panels"],
        "downsample": [4, 4],
        "eeg": {"kind": "stft", "centre_s": 20, "margin_s": 6, "downsample": [4, 1]},
        "height": 100,
    }
    still = replace_values(TINY, {"input": inputs})
    moving = replace_values(still, {"training.augment.window_shift_s": 6})
    prepared = prepare(data_dir, still, tmp_path, pack_dir=tmp_path / "packs")
    found = []
    for experiment, results in ((still, "0"), (moving, "1"), (moving, "2")):
        runner = InProcessRunner(device="cpu")
        found.append(run_experiment(experiment, prepared, tmp_path / results, runner, folds=[1]))
    pd.testing.assert_frame_equal(found[1].oof, found[2].oof, check_exact=True)
    assert found[1].keys == found[2].keys != found[0].keys
    assert not found[0].oof.equals(found[1].oof)


def test_in_process_runner_uses_the_given_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert InProcessRunner(device="cpu").placement == Placement()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert InProcessRunner().placement == Placement()


def test_runner_without_threads_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        InProcessRunner(0)


def test_preparing_again_gives_the_same_references(data_dir: Path, tmp_path: Path) -> None:
    first, second = prepare(data_dir, TINY, tmp_path), prepare(data_dir, TINY, tmp_path)
    assert first == second
    rows = first.rows()
    assert rows.groupby("patient_id")["fold"].nunique().max() == 1
    assert sorted(rows["fold"].unique()) == [0, 1, 2]


def test_no_fold_starts_after_one_that_ends_the_run(
    prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = UniformRunner()
    monkeypatch.setattr(
        "hms_ray.experiment.in_process.run_task",
        lambda task, process: stand_in.run([task], process.report),
    )
    tasks = plan_folds(TINY, prepared, tmp_path, Placement())
    asked: list[int] = []

    def after_fold(task: FoldTask) -> bool:
        assert FoldStore(tmp_path).has(task.key)
        asked.append(task.fold)
        return task.fold < 1

    InProcessRunner(device="cpu").run(tasks, lambda record: None, after_fold)
    assert asked == stand_in.folds == [0, 1]
    # Folds of the store count too.
    InProcessRunner(device="cpu").run(tasks, lambda record: None, after_fold)
    assert asked == [0, 1, 0, 1]
    assert stand_in.folds == [0, 1]
