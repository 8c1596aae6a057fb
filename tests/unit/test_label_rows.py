"""Random label rows: which ones, what is trained of them, and their way through a study."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from hms_ray.augment.cutmix import CLASS_SHARE
from hms_ray.competition.read import read_labels
from hms_ray.competition.rows import Unit, make_rows
from hms_ray.competition.schema import TARGET_COLUMNS, VOTE_COLUMNS
from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.inputs import InputConfig
from hms_ray.config.loading import validate_space
from hms_ray.config.row_targets import LabelSmoothing, TierWeights
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.config.validation import validated
from hms_ray.config.values import replace_values
from hms_ray.dataset.folds import read_folds
from hms_ray.dataset.label_rows import LABELS, label_rows_in, label_rows_of, with_label_rows
from hms_ray.dataset.pack_command import pack_folder
from hms_ray.dataset.packs import missing_pack_bytes, pack_parts
from hms_ray.dataset.prepare import Prepared, prepare
from hms_ray.dataset.sources import sources_for
from hms_ray.errors import ConfigError, DataError, TrainingError
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.cache_key import cache_key_inputs
from hms_ray.experiment.fold_data import fold_data
from hms_ray.experiment.in_process import InProcessRunner
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.run import plan_folds
from hms_ray.pack.store import open_pack
from hms_ray.predict.models import predict_task
from hms_ray.storage.fold_store import FoldStore
from hms_ray.storage.hashing import digest
from hms_ray.train.batches import Batch, plan_epoch
from hms_ray.train.losses import row_weights, smoothed, tier_factors
from hms_ray.train.process import Process
from hms_ray.train.seeds import seed_sequence
from tests.competition_folder import make_labels, write_competition_folder, write_eeg
from tests.fold_data import all_sources, cut_windows, open_images
from tests.fold_data import with_label_rows as labelled_fold
from tests.refused import refusal

LABEL_TABLE = make_labels(np.random.default_rng(3), n_patients=8)
DATA = labelled_fold(all_sources())
assert DATA.labels is not None
HELD = DATA.labels
IMAGE = (64, 64), (64,)


def planned(stage: StageConfig, epoch: int = 0, **options: Any) -> list[Batch]:
    training = TrainingConfig(batch_size=12, stages=(stage,), **options)
    (resolved,) = training.resolved_stages()
    rows = DATA.train
    if stage.rows != "all":
        rows = rows[DATA.total_votes[rows] >= training.stage_threshold]
    return plan_epoch(DATA, rows, training, resolved, IMAGE, (0, 0, epoch), Process())


# --- which label rows


@pytest.mark.parametrize("unit", ["eeg_votes", "eeg"])
def test_label_rows_of_a_row_are_those_it_was_made_of(unit: Unit) -> None:
    rows = make_rows(LABEL_TABLE, unit)
    some = rows[rows["patient_id"] != rows["patient_id"][0]].reset_index(drop=True)
    first, table = label_rows_in(with_label_rows(some, label_rows_of(some, LABEL_TABLE, unit)))
    assert np.diff(first).tolist() == some["n_labels"].tolist()
    for k, row in some.iterrows():
        own = LABEL_TABLE[LABEL_TABLE["eeg_id"] == row["eeg_id"]]
        if unit == "eeg_votes":
            own = own[(own[list(VOTE_COLUMNS)] == row[list(VOTE_COLUMNS)].astype(int)).all(axis=1)]
        found = table[first[k] : first[k + 1]]  # type: ignore[operator, misc]
        assert (found["spectrogram_id"] == row["spectrogram_id"]).all()
        for column, offset, rate in (
            ("eeg_start", "eeg_label_offset_seconds", 200),
            ("spectrogram_start", "spectrogram_label_offset_seconds", 0.5),
        ):
            assert found[column].tolist() == (own[offset] * rate).astype(int).tolist()
        votes = own[list(VOTE_COLUMNS)].to_numpy()
        assert found["total_votes"].tolist() == votes.sum(1).tolist()
        np.testing.assert_allclose(found[list(TARGET_COLUMNS)], votes / votes.sum(1)[:, None])


def test_a_row_without_label_rows_has_its_own_window_and_votes() -> None:
    rows = make_rows(LABEL_TABLE, "eeg")
    labels = label_rows_of(rows, LABEL_TABLE, "eeg")
    first, table = label_rows_in(with_label_rows(rows, labels[labels["eeg_id"] != 500_007]))
    k = rows.index[rows["eeg_id"] == 500_007][0]
    assert first[k + 1] - first[k] == 1
    columns = ["eeg_start", "spectrogram_start", *VOTE_COLUMNS]
    assert table.loc[first[k], columns].tolist() == rows.loc[k, columns].tolist()
    assert first[-1] == len(table) == 1 + (labels["eeg_id"] != 500_007).sum()


def test_each_epoch_draws_evenly_among_the_label_rows_of_a_row() -> None:
    drawn: dict[int, Counter[int]] = {int(row): Counter() for row in DATA.train}
    n_epochs = 400
    for epoch in range(n_epochs):
        for batch in planned(StageConfig(), epoch, label_rows="random_window"):
            assert batch.labels is not None
            for row, label in zip(batch.needed, batch.labels, strict=True):
                drawn[int(row)][int(label)] += 1
    for row, counts in drawn.items():
        own = range(HELD.first[row], HELD.first[row + 1])
        assert set(counts) == set(own), "all of them, and no other"
        expected = n_epochs / len(own)
        # Five standard deviations.
        assert max(abs(n - expected) for n in counts.values()) <= 5 * expected**0.5


def test_draws_have_a_generator_of_their_own() -> None:
    training = TrainingConfig(label_rows="random_row")
    (stage,) = training.resolved_stages()
    generator = np.random.default_rng(seed_sequence(0, 0, 0, 3, "label row"))
    expected = dict(zip(DATA.train, HELD.drawn(DATA.train, stage, generator), strict=True))
    for batch in planned(StageConfig(epochs=4), 3, label_rows="random_row"):
        assert batch.labels is not None
        assert [expected[row] for row in batch.needed] == batch.labels.tolist()


def test_stages_of_many_votes_draw_label_rows_that_have_them() -> None:
    stage = StageConfig(rows="at_least_threshold", label_rows="random_row")
    few = HELD.total_votes < 8
    assert few[HELD.first[:-1]].any()
    seen = []
    for epoch in range(20):
        for batch in planned(stage, epoch, stage_threshold=8):
            assert batch.labels is not None
            assert not few[batch.labels].any()
            seen += batch.labels.tolist()
    assert set(seen) == {
        label
        for row in DATA.train
        for label in range(HELD.first[row], HELD.first[row + 1])
        if not few[label]
    }
    windows = planned(stage.model_copy(update={"label_rows": "random_window"}), stage_threshold=8)
    assert few[np.concatenate([batch.labels for batch in windows])].any(), "votes are the row's"


def test_a_row_whose_label_rows_lost_their_votes_draws_among_all_of_its_own() -> None:
    (stage,) = TrainingConfig(
        stages=(StageConfig(rows="at_least_threshold", label_rows="random_row"),),
        stage_threshold=8,
    ).resolved_stages()
    totals = np.where(np.arange(len(HELD.total_votes)) < HELD.first[1], 1, 9)
    labels = replace(HELD, total_votes=totals)
    rows = np.zeros(50, np.int64)
    drawn = labels.drawn(rows, stage, np.random.default_rng(0))
    assert set(drawn.tolist()) == set(range(HELD.first[1]))


# --- what is trained of them


@pytest.mark.parametrize("mode", ["random_window", "random_row"])
def test_votes_are_those_of_the_row_or_of_the_label_row(mode: str) -> None:
    tiers, smoothing = TierWeights(decay=(1.2, 0.4, 0.1)), LabelSmoothing(share=0.2, max_votes=5)
    options: dict[str, Any] = {"tier_weights": tiers, "label_smoothing": smoothing}
    stage = StageConfig(epochs=4)
    for batch in planned(stage, 2, loss="kl_log_votes", label_rows=mode, **options):
        assert batch.labels is not None
        votes, targets = DATA.total_votes[batch.rows], DATA.targets[batch.rows]
        if mode == "random_row":
            votes, targets = HELD.total_votes[batch.labels], HELD.targets[batch.labels]
        weights = row_weights("kl_log_votes", votes) * tier_factors(tiers, votes, 0.5)
        np.testing.assert_allclose(batch.weights, weights)
        np.testing.assert_allclose(batch.targets, smoothed(smoothing, targets, votes))


def test_order_and_cutmix_by_class_follow_the_drawn_votes() -> None:
    augment = AugmentConfig(cutmix=CutMixConfig(probability=1.0))
    own, rows = (
        planned(StageConfig(), augment=augment, label_rows=mode) for mode in ("own", "random_row")
    )
    n_swaps = 0
    for before, batch in zip(own, rows, strict=True):
        np.testing.assert_array_equal(batch.rows, before.rows)
        assert batch.labels is not None
        assert batch.plan.cutmix is not None
        shares = HELD.targets[batch.labels]
        for swap in batch.plan.cutmix.swaps:
            n_swaps += 1
            classes = (shares[swap.rows] >= CLASS_SHARE) & (shares[swap.donors] >= CLASS_SHARE)
            assert classes.all(axis=0).any()
    assert n_swaps


@pytest.mark.parametrize("shift_s", [0.0, 6.0])
def test_images_are_of_the_drawn_windows_moved_by_the_shift(shift_s: float) -> None:
    config = InputConfig(normalisation="none", views=("panels", "eeg panels"), size=(32, 64))
    config = config.model_copy(update={"eeg": config.eeg.model_copy(update={"margin_s": 6.0})})
    room = {
        name: replace(rows, labels=replace(rows.labels, room=np.full((len(HELD.targets), 2), 3)))  # type: ignore[type-var]
        for name, rows in DATA.sources.items()
    }
    data = replace(DATA, sources=room)
    images = open_images(data, config, cache_bytes=10**7)
    augment = AugmentConfig(window_shift_s=shift_s)
    batches = planned(StageConfig(), augment=augment, label_rows="random_window")
    for batch, image in zip(batches, images.for_training(batches), strict=True):
        assert batch.labels is not None
        moved = {}
        for name, rows in data.sources.items():
            assert rows.labels is not None
            starts = rows.labels.starts[batch.labels]
            if shift_s:
                assert batch.shifts_s is not None
                starts = starts + np.rint(batch.shifts_s / rows.pack.step_s).clip(-3, 3).astype(int)
            starts = starts.clip(0, len(rows.pack.values) - rows.pack.window)
            moved[name] = replace(rows, starts=starts, labels=None)
        plain = open_images(replace(data, sources=moved, **_rows_only(len(batch.rows))), config)
        expected = next(plain.for_rows([np.arange(len(batch.rows))]))
        np.testing.assert_allclose(image.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    windows = cut_windows(data.sources["kaggle"], batch.rows)
    assert not np.array_equal(windows.numpy()[0], cut_windows(moved["kaggle"], [0]).numpy()[0])


def _rows_only(n: int) -> dict[str, Any]:
    return {
        "labels": None,
        "targets": np.full((n, 6), 1 / 6),
        "total_votes": np.ones(n, np.int64),
        "train": np.arange(1, n),
        "valid": np.arange(1),
    }


def test_a_fold_without_label_rows_cannot_draw_them() -> None:
    training = TrainingConfig(label_rows="random_row")
    (stage,) = training.resolved_stages()
    bare = replace(DATA, labels=None)
    with refusal(TrainingError, "random label rows need the label rows of the fold"):
        plan_epoch(bare, bare.train, training, stage, IMAGE, (0, 0, 0), Process())


# --- configuration and keys


def test_rows_of_one_label_row_are_refused() -> None:
    given = {
        "data": {"unit": "label"},
        "training": {"stages": [{}, {"label_rows": "random_window"}]},
    }
    rule = "training.label_rows must be own for data.unit: label, whose rows are single label rows"
    with refusal(ConfigError, rule, where="here"):
        validated(Experiment, given, "here")
    validated(Experiment, {**given, "training": {"stages": [{}, {"label_rows": "own"}]}}, "here")


def test_the_default_has_the_key_of_before_and_equal_votes_make_modes_equal() -> None:
    def form(unit: str = "eeg", **training: Any) -> Any:
        given = {"data": {"unit": unit}, "training": training}
        return canonical(Experiment.model_validate(given))["training"]

    assert "label_rows" not in form()
    assert all("label_rows" not in stage for stage in form(label_rows="own")["stages"])
    window, row = ({"label_rows": mode} for mode in ("random_window", "random_row"))
    assert form(**window) != form(**row)
    assert form("eeg_votes", **window) == form("eeg_votes", **row) != form("eeg_votes")
    assert form(**window, stages=[{"label_rows": "own"}]) == form()
    assert form(stages=[{}, row])["stages"][1]["label_rows"] == "random_row"


# --- the way through a study

EEG = {"kind": "mel", "centre_s": 10}


def spaced(mode: str = "random_row", **data: Any) -> Any:
    experiment = {
        "data": {"unit": "eeg", "n_folds": 2, **data},
        "input": {
            "views": ["panels", "eeg panels"],
            "eeg": EEG,
            "size": [32, 64],
            "downsample": [4, 4],
        },
        "model": {"name": "test_vit", "pretrained": False, "drop_path": 0.0},
        "training": {"batch_size": 8, "stages": [{"epochs": 1}], "label_rows": mode},
    }
    parameters = {"training.label_rows": {"values": ["own", "random_window", "random_row"]}}
    return validate_space({"experiment": experiment, "parameters": parameters}, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_competition_folder(tmp_path_factory.mktemp("labels") / "hms", n_patients=6)


@pytest.fixture(scope="module")
def ready(folder: Path) -> Prepared:
    space = spaced()
    return prepare(folder, space.experiment, folder.parent / "r", sources=sources_for(space))


pytestmark = pytest.mark.usefixtures("one_process")


def test_a_study_has_packs_with_and_without_windows_of_label_rows(
    folder: Path, ready: Prepared, tmp_path: Path
) -> None:
    plain, labelled = (spaced(mode).experiment for mode in ("own", "random_row"))
    alone = prepare(folder, plain, tmp_path, pack_dir=folder / "packed")
    assert alone.label_rows_fingerprint is None
    assert LABELS not in alone.rows()
    key, with_labels = list(ready.packs)[1:]
    assert with_labels == f"{key}-labels"
    assert ready.packs == {**alone.packs, with_labels: ready.packs[with_labels]}
    assert alone.rows_fingerprint == ready.rows_fingerprint
    keys = [cache_key_inputs(plain, one, 0, Placement()) for one in (alone, ready)]
    assert digest(keys[0]) == digest(keys[1]), "experiments without label rows keep their keys"
    made_from = cache_key_inputs(labelled, ready, 0, Placement())
    assert made_from["sources"]["eeg"] == ready.packs[with_labels].fingerprint
    other = replace(ready, label_rows_fingerprint="x")
    assert digest(cache_key_inputs(labelled, other, 0, Placement())) != digest(made_from)
    labels, rows = read_labels(folder), ready.rows()
    held = open_pack(ready.packs[with_labels].path).recordings
    starts = (labels["eeg_label_offset_seconds"] * 200).astype(int)
    expected = set(zip(labels["eeg_id"], starts, strict=True))
    expected |= set(zip(rows["eeg_id"], rows["eeg_start"], strict=True))
    assert set(zip(held.index, held["start"], strict=True)) == expected


def test_the_rows_of_a_study_give_the_same_study_again(
    folder: Path, ready: Prepared, tmp_path: Path
) -> None:
    space, folds = spaced(), read_folds(ready.rows_file)
    again = prepare(folder, space.experiment, tmp_path, sources=sources_for(space), folds=folds)
    assert replace(again, rows_file=ready.rows_file) == ready
    assert again.rows_file.name == ready.rows_file.name


def test_disk_use_and_packing_ahead_count_windows_of_label_rows(
    folder: Path, ready: Prepared, tmp_path: Path
) -> None:
    space = spaced()
    rows = ready.rows()
    parts = pack_parts(sources_for(space), rows, label_rows_of(rows, read_labels(folder), "eeg"))
    sizes = [missing_pack_bytes(folder, tmp_path, *part, only_rows=False) for part in parts]
    made = pack_folder(folder, space, tmp_path, workers=1)
    assert [pack.fingerprint for pack in made] == [
        pack.fingerprint for pack in ready.packs.values()
    ]
    # Each value, and the number of missing ones of each position.
    n_bytes = [pack.values.nbytes + 2 * len(pack.values) for pack in made]
    assert sizes == [n_bytes[0] + n_bytes[1], n_bytes[2]]


def test_fold_data_has_the_windows_and_votes_of_label_rows(ready: Prepared) -> None:
    rows = ready.rows()
    data = fold_data(spaced().experiment, ready, 0, rows)
    first, table = label_rows_in(rows)
    assert data.labels is not None
    np.testing.assert_array_equal(data.labels.first, first)
    np.testing.assert_allclose(data.labels.targets, table[list(TARGET_COLUMNS)])
    np.testing.assert_array_equal(data.labels.total_votes, table["total_votes"])
    for name, columns in (
        ("kaggle", ["spectrogram_id", "spectrogram_start"]),
        ("eeg", ["eeg_id", "eeg_start"]),
    ):
        source = data.sources[name]
        assert source.labels is not None
        expected = source.pack.locate(*(table[column].to_numpy() for column in columns))
        np.testing.assert_array_equal(source.labels.starts, expected)
    assert fold_data(spaced("own").experiment, ready, 0, rows).labels is None


def test_trained_folds_predict_what_was_scored_on_the_rows_own_windows(
    ready: Prepared, tmp_path: Path
) -> None:
    runner, tables = InProcessRunner(device="cpu"), []
    for mode in ("own", "random_window", "random_row"):
        (task,) = plan_folds(spaced(mode).experiment, ready, tmp_path, runner.placement, [1])
        runner.run([task], lambda record: None)
        stored = FoldStore(tmp_path).read(task.key)
        tables.append(probabilities_of(stored.oof))
        np.testing.assert_array_equal(predict_task(task, stored), tables[-1])
    assert all(not np.array_equal(tables[a], tables[b]) for a, b in ((0, 1), (0, 2), (1, 2)))


@pytest.mark.parametrize("policy", ["error", "keep", "drop"])
def test_windows_without_signal_of_label_rows_follow_the_policy(
    policy: str, tmp_path: Path
) -> None:
    folder = write_competition_folder(tmp_path / "hms", n_patients=4, nan_gaps=False)
    labels = read_labels(folder)
    counts = labels.groupby("eeg_id").size()
    eeg_id = counts.idxmax()
    own = labels[labels["eeg_id"] == eeg_id]
    last = own.iloc[-1]
    # The centre of the last label row's window only.
    file = folder / "train_eegs" / f"{eeg_id}.parquet"
    values = pq.read_table(file).to_pandas().to_numpy(np.float32).copy()
    start = int(last["eeg_label_offset_seconds"]) * 200 + 5_000
    values[start - 200 : start + 200] = 0
    write_eeg(file, values)
    experiment = replace_values(
        spaced(unusable=policy).experiment, {"input.eeg.centre_s": 2, "input.views": ["eeg panels"]}
    )
    name = f"{eeg_id}-{last['eeg_sub_id']}"
    if policy == "error":
        rule = "every label row must have a usable signal in each source"
        with refusal(DataError, rule, got=f"1 label row without: {name}", fix="data.unusable"):
            prepare(folder, experiment, tmp_path / "r")
        return
    prepared = prepare(folder, experiment, tmp_path / "r")
    done = "zero-filled" if policy == "keep" else "dropped"
    assert any(
        f"1 label row without a usable signal, {done}: {name}" in note for note in prepared.notes
    )
    rows = prepared.rows()
    first, _ = label_rows_in(rows)
    place = rows.index[rows["eeg_id"] == eeg_id][0]
    assert np.diff(first)[place] == len(own) - (policy == "drop")
    assert len(rows) == labels["eeg_id"].nunique()


def test_held_out_patients_have_no_label_rows_in_packs_or_rows(
    folder: Path, tmp_path: Path
) -> None:
    experiment = spaced(holdout=0.3).experiment
    prepared = prepare(folder, experiment, tmp_path, pack_dir=tmp_path / "packs")
    assert prepared.holdout is not None
    held_out = set(prepared.holdout.rows()["eeg_id"])
    assert held_out
    _, table = label_rows_in(prepared.rows())
    for ids in (table["eeg_id"], *(open_pack(p.path).recordings.index for p in _windows(prepared))):
        assert not held_out & set(ids)


def _windows(prepared: Prepared) -> list[Any]:
    return [pack for key, pack in prepared.packs.items() if key.startswith("eeg")]
