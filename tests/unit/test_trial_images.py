"""Images of a trained trial in its TensorBoard run: what its model saw, and what is missing."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hms_ray.competition.schema import TARGET_COLUMNS
from hms_ray.dataset.prepare import Prepared
from hms_ray.evaluate.metric import kl_rows
from hms_ray.evaluate.oof import probabilities_of
from hms_ray.experiment.fold_data import fold_data
from hms_ray.report import trial_images
from hms_ray.report.trial_images import FILE_NAME, rows_by_class, write_trial_images
from hms_ray.storage.fold_store import FoldStore
from hms_ray.study.folder import StudyFolder
from hms_ray.train.checkpoint import load_weights
from hms_ray.train.example_images import ExampleImages
from hms_ray.train.images import Images
from hms_ray.train.model import build_model
from tests.trained_study import TrainedStudy, train_study

AUGMENT = {"cutmix": {"probability": 1.0}, "hemisphere_flip": 0.5, "time_flip": 0.5}
STAGES = [
    {"name": "plain", "epochs": 1, "learning_rate": 0.01},
    {
        "name": "mixed",
        "epochs": 1,
        "learning_rate": 0.01,
        "augment": AUGMENT,
        "label_rows": "random_window",
    },
]
ALL = [
    "augmented batch",
    "confusion of vote shares",
    "reliability",
    "rows by class",
    "rows of largest loss",
]
Seen = dict[int, list[tuple[np.ndarray, np.ndarray]]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedStudy, Seen]:
    """A trained trial, and the batches that its training saw, fold by fold."""
    seen: Seen = {}
    make = Images.for_training

    def noting(images: Images, batches: list[Any]) -> Iterator[torch.Tensor]:
        fold = 0 if not seen or (0 in seen and len(seen[0]) < 4) else 1
        for batch, image in zip(batches, make(images, batches), strict=True):
            seen.setdefault(fold, []).append((image.squeeze(1).numpy().copy(), batch.targets))
            yield image

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hms_ray.pack.build.default_workers", lambda: 1)
        patch.setattr(Images, "for_training", noting)
        place = tmp_path_factory.mktemp("images")
        study = train_study(place, "kaggle", values={"training.stages": STAGES})
    return study, seen


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of one pixel: drawing takes longest."""
    content = io.BytesIO()
    Image.new("RGB", (1, 1)).save(content, "png")
    monkeypatch.setattr("hms_ray.display.trial_pictures._saved", lambda figure: content.getvalue())


def example_images(study: TrainedStudy, fold: int) -> tuple[ExampleImages, Any]:
    folder = study.folder
    experiment = folder.finished_trial().experiment
    data = fold_data(experiment, study.prepared, fold, folder.rows())
    record = FoldStore(study.results).record(folder.finished_trial().keys[fold])
    return ExampleImages(experiment, data, fold, record["normalisation"]), data


def test_images_of_rows_are_those_that_the_model_has_predicted(
    trained: tuple[TrainedStudy, Seen],
) -> None:
    study, _ = trained
    trial = study.folder.finished_trial()
    images, data = example_images(study, 1)
    made = torch.from_numpy(images.of_rows(data.valid))[:, None]
    model = build_model(trial.experiment.model, tuple(made.shape[2:]))
    weights = FoldStore(study.results).read(trial.keys[1]).weights
    model.load_state_dict(load_weights(weights))
    with torch.inference_mode():
        shares = torch.softmax(model.eval()(made).double(), dim=1).numpy()
    stored = probabilities_of(trial.oof(study.folder.rows()))[data.valid]
    np.testing.assert_allclose(shares, stored, atol=1e-5)


def test_the_augmented_batch_is_one_of_the_training(trained: tuple[TrainedStudy, Seen]) -> None:
    study, seen = trained
    batch = example_images(study, 0)[0].of_batch(5)
    assert (batch.stage, batch.augmented) == ("mixed", True)
    n_plain = len(seen[0]) // 2
    image, targets = seen[0][n_plain]
    np.testing.assert_array_equal(batch.images, image[:5])
    np.testing.assert_array_equal(batch.targets, targets[:5])
    assert not np.array_equal(seen[0][0][0][:5], image[:5])


def written(study: TrainedStudy, run: Path, **options: Any) -> tuple[dict[str, bytes], list[str]]:
    """Tag -> PNG as TensorBoard reads a run after its images were written; and notes."""
    folder = study.folder
    notes = write_trial_images(folder, folder.finished_trial(), run, study.results, **options)
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    return {
        tag: event.encoded_image_string
        for tag in events.Tags()["images"]
        for event in events.Images(tag)
    }, notes


def test_images_stand_in_the_run_of_the_trial(trained: tuple[TrainedStudy, Seen]) -> None:
    study, _ = trained
    run = study.folder.path / "board" / "0000"
    images, notes = written(study, run)
    assert notes == []
    assert sorted(images) == [f"images/{name}" for name in ALL]
    for content in images.values():
        with Image.open(io.BytesIO(content)) as image:
            assert image.width >= 900


@pytest.mark.usefixtures("undrawn")
def test_images_that_are_made_again_replace_the_former_ones(
    trained: tuple[TrainedStudy, Seen],
) -> None:
    run = trained[0].folder.path / "board" / "0002"
    for _ in range(2):
        assert len(written(trained[0], run)[0]) == 5
    assert [file.name for file in run.iterdir()] == [FILE_NAME]


def test_rows_of_largest_loss_are_counted_by_the_objective(
    trained: tuple[TrainedStudy, Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = trained
    drawn: dict[str, list[Any]] = {}

    def draw(title: str, note: str, rows: list[Any], columns: int = 3) -> bytes:
        drawn[title] = rows
        return b""

    monkeypatch.setattr(trial_images, "rows_picture", draw)
    folder = study.folder
    trial_images.trial_pictures(folder, folder.finished_trial(), study.results)
    rows = folder.rows()
    loss = kl_rows(
        rows[list(TARGET_COLUMNS)].to_numpy(),
        probabilities_of(folder.finished_trial().oof(rows)),
    )
    many = np.flatnonzero(rows["total_votes"] >= 10)
    expected = many[np.argsort(-loss[many])][:12]
    shown = drawn["Rows of largest loss"]
    assert [row.title.split(",")[0] for row in shown] == rows["row_id"][expected].tolist()
    assert shown[0].title.endswith(f"KL {loss[expected[0]]:.2f}")
    np.testing.assert_array_equal(shown[0].true, rows[list(TARGET_COLUMNS)].to_numpy()[expected[0]])
    assert all(row.image is not None for row in shown)


@pytest.mark.usefixtures("undrawn")
def test_a_deleted_pack_is_named_and_the_other_images_are_made(
    trained: tuple[TrainedStudy, Seen], tmp_path: Path
) -> None:
    study, _ = trained
    images, notes = written(study, study.folder.path / "board" / "0001", pack_dir=tmp_path)
    assert sorted(images) == [f"images/{name}" for name in ALL if name != "augmented batch"]
    assert len(notes) == 1
    assert notes[0].startswith("no images of inputs: the study's packs must exist, got none of")
    assert f"in {tmp_path}. " in notes[0]
    assert "--pack-dir" in notes[0]


@pytest.mark.usefixtures("undrawn")
def test_a_pack_of_other_values_is_not_taken(
    trained: tuple[TrainedStudy, Seen], tmp_path: Path
) -> None:
    study, _ = trained
    packs = shutil.copytree(study.data / "packed", tmp_path / "packed")
    (manifest,) = packs.glob("kaggle-*/manifest.json")
    manifest.write_text(manifest.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    _, notes = written(study, study.folder.path / "board" / "0001", pack_dir=packs)
    assert len(notes) == 1
    assert "the study's packs must exist" in notes[0]


@pytest.mark.usefixtures("undrawn")
def test_a_fold_that_was_freed_is_named(trained: tuple[TrainedStudy, Seen], tmp_path: Path) -> None:
    study, _ = trained
    results = Path(shutil.copytree(study.results, tmp_path / "results"))
    folder = StudyFolder.open(study.name, results)
    shutil.rmtree(FoldStore(results).path(folder.finished_trial().keys[0]))
    pictures, notes = trial_images.trial_pictures(folder, folder.finished_trial(), results)
    assert sorted(pictures) == ALL
    assert len(notes) == 1
    assert notes[0].startswith("no images of inputs of fold 0: a fold must be in the store")


def test_rows_by_class_do_not_depend_on_their_order_by_chance() -> None:
    generator = np.random.default_rng(3)
    n = 300
    rows = pd.DataFrame(
        {
            "patient_id": generator.integers(0, 40, n),
            "total_votes": generator.integers(1, 20, n),
        }
    )
    targets = generator.dirichlet(np.full(6, 0.5), n)
    targets[targets.argmax(axis=1) == 5] = [0.9, 0.02, 0.02, 0.02, 0.02, 0.02]
    targets[:2] = [0, 0, 0, 0, 0, 1.0]
    rows[list(TARGET_COLUMNS)] = targets
    chosen = rows_by_class(rows).reshape(6, 3)
    for number, places in enumerate(chosen[:5]):
        own = [i for i in range(n) if targets[i].argmax() == number]
        own.sort(key=lambda i: (-rows["total_votes"][i], -targets[i, number], i))
        expected, patients = [], set()
        for i in own:
            if rows["patient_id"][i] not in patients:
                patients.add(rows["patient_id"][i])
                expected.append(i)
        assert places.tolist() == expected[:3]
    assert chosen[5].tolist()[2] == -1
    assert set(chosen[5].tolist()[:2]) == {0, 1}


def test_a_prepared_study_records_its_packs(trained: tuple[TrainedStudy, Seen]) -> None:
    study, _ = trained
    assert isinstance(study.prepared, Prepared)
    attributes = study.folder.rows().attrs
    assert Path(attributes["pack_dir"]) == (study.data / "packed").resolve()
    assert Path(attributes["data_dir"]) == study.data.resolve()
