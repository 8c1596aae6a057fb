"""Predictions that average flipped and shifted variants of each row."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hms_ray.augment.test_time import check_flips
from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.prediction import AS_THEY_ARE, RowVariant
from hms_ray.config.validation import validated
from hms_ray.errors import ConfigError
from hms_ray.evaluate.metric import kl_divergence
from hms_ray.experiment.bench import Variant
from hms_ray.train.batches import FoldData
from hms_ray.train.loop import train_fold
from hms_ray.train.model import build_model
from hms_ray.train.process import Process
from hms_ray.train.score import predict_rows
from tests.fold_data import example_experiment, example_fold, open_images
from tests.refused import refusal

DATA = example_fold()
FLIPS = ("hemisphere_flip", "time_flip")
ALL = RowVariant(FLIPS), RowVariant(("time_flip",)), RowVariant(("hemisphere_flip",)), AS_THEY_ARE


def experiment(**prediction: Any) -> Experiment:
    plain = example_experiment(epochs=1)
    return validated(Experiment, {**plain.model_dump(), "prediction": prediction}, "here")


def of_eeg(shifts_s: list[float], **eeg: float) -> Experiment:
    inputs = {"views": ["eeg panels"], "eeg": {"kind": "stft", **eeg}}
    return validated(Experiment, {"input": inputs, "prediction": {"shifts_s": shifts_s}}, "here")


def test_every_combination_of_flips_and_shifts_is_averaged() -> None:
    assert experiment().prediction.variants == (AS_THEY_ARE,)
    found = experiment(flips=["time_flip", "hemisphere_flip"]).prediction.variants
    assert found[0] == AS_THEY_ARE
    assert set(found) == set(ALL)
    shifted = of_eeg([2, -2], centre_s=40, margin_s=2).prediction
    assert shifted.variants == (AS_THEY_ARE, RowVariant((), -2.0), RowVariant((), 2.0))


def test_the_key_has_what_changes_predictions() -> None:
    plain = canonical(experiment())
    assert "prediction" not in plain
    flips = canonical(experiment(flips=["time_flip", "hemisphere_flip"]))
    assert flips["prediction"] == {"flips": list(FLIPS)}
    assert canonical(experiment(flips=FLIPS)) == flips
    assert {**plain, "prediction": flips["prediction"]} == flips
    with_zero = canonical(of_eeg([2, 0, -2], centre_s=40, margin_s=2))["prediction"]
    assert with_zero == {"shifts_s": [-2.0, 2.0]}
    assert canonical(of_eeg([0]))["input"] == canonical(of_eeg([]))["input"]
    assert "prediction" not in canonical(of_eeg([0]))
    keys = {Variant("", "", made).speed_key for made in (experiment(), experiment(flips=FLIPS))}
    assert len(keys) == 2


@pytest.mark.parametrize(
    ("shift_s", "eeg", "rule"),
    [
        (2, {"centre_s": 40}, "input.eeg.margin_s must be at least the largest of"),
        (2, {"margin_s": 2}, "prediction.shifts_s must stay within the 50 s of a test EEG: at mos"),
        (-4, {"centre_s": 43, "margin_s": 9}, "at most 3.5 s with input.eeg.centre_s 43, got -4 s"),
        (0.05, {"centre_s": 40, "margin_s": 9}, "move the windows of eeg by at least one position"),
    ],
)
def test_shifts_that_test_recordings_do_not_allow_are_refused(
    shift_s: float, eeg: dict[str, float], rule: str
) -> None:
    with pytest.raises(ConfigError, match=rule):
        of_eeg([shift_s], **eeg)
    assert of_eeg([3.4], centre_s=43, margin_s=4).prediction.shifts_s == (3.4,)


def test_shifts_of_ten_minute_spectrograms_are_refused() -> None:
    rule = "prediction.shifts_s needs sources that are made from the EEG, since test recordings"
    with refusal(ConfigError, rule, where="here"):
        experiment(shifts_s=[2])


def test_flips_that_an_input_cannot_do_are_refused() -> None:
    with refusal(ConfigError, "prediction.flips: sign_flip needs a view of raw", where="here"):
        experiment(flips=["sign_flip"])
    with pytest.raises(ConfigError, match="each value must be given once, got time_flip twice"):
        experiment(flips=["time_flip", "time_flip"])
    one_side = {"views": ["pairs panels"], "pairs": {"order": ["Fp1-F7", "F7-T3"]}}
    flips = {"flips": ["hemisphere_flip"]}
    rule = "prediction.flips: hemisphere_flip needs panels of both sides"
    with refusal(ConfigError, rule, where="here"):
        validated(Experiment, {"input": one_side, "prediction": flips}, "here")
    made = experiment(**flips).prediction
    with refusal(
        ConfigError, rule, got="LL LP", where="the pack of eeg", fix="Remove it from predicti"
    ):
        check_flips(made, {"eeg": ("LL", "LP")})


def test_variants_of_images_are_flipped_and_shifted_windows() -> None:
    config = example_experiment(inputs={"normalisation": "none"}).input
    images = open_images(DATA, config)
    (plain,) = images.for_rows([DATA.valid])
    (turned,) = images.for_rows([DATA.valid], RowVariant(("time_flip",)))
    np.testing.assert_array_equal(turned.numpy(), plain.flip(3).numpy())
    (mirrored,) = images.for_rows([DATA.valid], RowVariant(("hemisphere_flip",)))
    # The panels LL, RL, LP, RP lie below each other.
    there = torch.cat([plain.chunk(4, dim=2)[k] for k in (1, 0, 3, 2)], dim=2)
    np.testing.assert_array_equal(mirrored.numpy(), there.numpy())
    (later,) = images.for_rows([DATA.valid], RowVariant((), 4.0))
    kaggle = DATA.sources["kaggle"]
    room = kaggle.room
    assert room is not None
    starts = kaggle.starts + np.minimum(2, room[:, 1])  # Positions are 2 s apart.
    moved = replace(DATA, sources={"kaggle": replace(kaggle, starts=starts)})
    (expected,) = open_images(moved, config).for_rows([DATA.valid])
    np.testing.assert_array_equal(later.numpy(), expected.numpy())


def test_predictions_are_the_mean_of_the_variants_probabilities() -> None:
    model = build_model(example_experiment().model, (64, 64))
    images = open_images(DATA, example_experiment().input)

    def predicted(*variants: RowVariant) -> np.ndarray:
        settings: Any = (5, "float32", Process(), variants)
        return predict_rows(model, images, DATA.valid, *settings)

    single = [predicted(variant) for variant in ALL]
    np.testing.assert_allclose(predicted(*ALL), np.mean(single, axis=0), rtol=1e-12)
    assert np.abs(single[0] - single[-1]).max() > 1e-6


def test_symmetric_windows_are_predicted_as_without_variants() -> None:
    model = build_model(example_experiment().model, (64, 64))
    kaggle = DATA.sources["kaggle"]
    values = kaggle.pack.values.copy()
    for start in kaggle.starts[DATA.valid]:
        window = values[start : start + 64].reshape(64, 4, 16)
        window[:, 1], window[:, 3] = window[:, 0], window[:, 2]
        window[32:] = window[31::-1]
    pack = replace(kaggle.pack, values=values)  # type: ignore[type-var]
    data = replace(DATA, sources={"kaggle": replace(kaggle, pack=pack)})
    images = open_images(data, example_experiment().input)
    settings: Any = (12, "float32", Process())
    plain = predict_rows(model, images, data.valid, *settings)
    averaged = predict_rows(model, images, data.valid, *settings, ALL)
    np.testing.assert_allclose(averaged, plain, rtol=1e-12)


def test_every_evaluation_of_training_averages_variants() -> None:
    settings = {"checkpoint": "best", "learning_rate": 0.01}
    plain = example_experiment(epochs=2, **settings)
    averaging = plain.model_copy(update={"prediction": experiment(flips=FLIPS).prediction})

    def result(made: Experiment, data: FoldData = DATA) -> Any:
        return train_fold(made, data, 0, Process())

    one, four = result(plain), result(averaging)
    kept = min(four.history, key=lambda record: record["criterion"])
    targets = DATA.targets[DATA.valid]
    assert kept["kl_all"] == pytest.approx(kl_divergence(targets, four.probabilities), rel=1e-12)
    model = build_model(plain.model, (64, 64))
    model.load_state_dict(four.weights)
    images = open_images(DATA, plain.input)
    again = predict_rows(model, images, DATA.valid, 12, "float32", Process(), ALL)
    np.testing.assert_allclose(again, four.probabilities, rtol=1e-4, atol=1e-6)
    # Training is the same; only what is predicted differs.
    losses = [[record["train_loss"] for record in made.history] for made in (one, four)]
    assert losses[0] == losses[1]
    assert one.history[-1]["kl_all"] != four.history[-1]["kl_all"]
