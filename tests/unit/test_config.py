from typing import Any

import pytest
from pydantic import ValidationError

from hms_ray.config.augmentation import AugmentConfig, CutMixConfig
from hms_ray.config.eeg_recipes import EegRecipe, RawRecipe
from hms_ray.config.experiment import Experiment, ModelConfig, canonical
from hms_ray.config.inputs import InputConfig, RawConfig, used_sources
from hms_ray.config.space import Parameter, Space
from hms_ray.config.training import StageConfig, TrainingConfig
from hms_ray.storage.hashing import digest


def key(**training: object) -> str:
    return digest(canonical(Experiment(training=TrainingConfig(**training))))


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Experiment().name = "other"


def test_names_and_unused_thresholds_change_no_key() -> None:
    assert key(stages=(StageConfig(name="a"),)) == key(stages=(StageConfig(name="b"),))
    assert key(stage_threshold=5) == key(stage_threshold=10)
    assert digest(canonical(Experiment(name="x"))) == digest(canonical(Experiment(name="y")))


def test_keys_of_the_defaults_have_no_later_fields() -> None:
    assert set(canonical(Experiment())["training"]) == {
        *("seed", "batch_size", "schedule", "weight_decay", "warmup", "div_factor", "stages"),
        *("final_div_factor", "normalise_weights", "deterministic", "precision"),
    }
    assert set(canonical(Experiment())["model"]) == {"name", "pretrained", "drop_path", "dropout"}


def test_used_threshold_changes_the_key() -> None:
    stages = (StageConfig(rows="below_threshold"), StageConfig(rows="at_least_threshold"))
    assert key(stages=stages, stage_threshold=5) != key(stages=stages, stage_threshold=10)


@pytest.mark.parametrize(
    "change",
    [
        *({"seed": 1}, {"batch_size": 16}, {"loss": "kl_log_votes"}, {"checkpoint": "best"}),
        *({"next_stage_from": "best"}, {"checkpoint": "best", "checkpoint_criterion": "kl_10"}),
    ],
)
def test_what_changes_results_changes_the_key(change: dict[str, object]) -> None:
    two = (StageConfig(rows="below_threshold"), StageConfig(rows="at_least_threshold"))
    assert key(stages=two, **change) != key(stages=two)


def test_unused_choices_of_checkpoints_change_no_key() -> None:
    two = (StageConfig(), StageConfig())
    assert key(stages=two, checkpoint_criterion="kl_10") == key(stages=two)
    assert key(next_stage_from="best") == key()
    best = {"checkpoint": "best", "next_stage_from": "best"}
    assert key(**best) == key(checkpoint="best")
    assert key(**best, checkpoint_criterion="kl_10") != key(**best)


@pytest.mark.parametrize("stages", [2, 1])
def test_first_stages_end_with_what_they_hand_to_the_next(stages: int) -> None:
    config = TrainingConfig(stages=(StageConfig(),) * 3, next_stage_from="best")
    assert config.first_stages(3) is config
    first = config.first_stages(stages)
    assert first.resolved_stages() == config.resolved_stages()[:stages]
    assert first.checkpoint == "best"


def test_stages_inherit_and_can_switch_augmentation_off() -> None:
    training = TrainingConfig(
        augment=AugmentConfig(cutmix=CutMixConfig()),
        stages=(StageConfig(), StageConfig(augment=AugmentConfig(), loss="kl_capped_votes")),
    )
    first, second = training.resolved_stages()
    assert first.augment.cutmix == CutMixConfig()
    assert second.augment == AugmentConfig()
    assert (first.loss, second.loss) == ("kl", "kl_capped_votes")


def test_canonical_form_excludes_the_weights_path() -> None:
    models = [ModelConfig(weights_file=name) for name in ("a.pt", "b.pt")]
    first, second = (canonical(Experiment(model=model)) for model in models)
    assert first == second


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({}, "either values, or min and max"),
        ({"values": [1], "min": 1, "max": 2}, "either values, or min and max"),
        ({"min": 1}, "either values, or min and max"),
        ({"values": []}, "values must not be empty"),
        ({"values": [1], "log": True}, "either values, or min and max"),
        ({"values": [1], "step": 1}, "either values, or min and max"),
        ({"values": [[1]]}, "need labels"),
        ({"min": 2.0, "max": 1.0}, "min must be smaller than max"),
        ({"min": 0, "max": 3, "log": True}, "log needs a min above 0"),
        ({"min": 1, "max": 3, "log": True, "step": 1}, "step and log exclude each other"),
        ({"min": 0, "max": 3, "step": 2}, "max - min must be a multiple of step"),
        ({"min": 0, "max": 3, "step": 0}, "step must be above 0"),
        ({"min": True, "max": 3}, "min"),
    ],
)
def test_invalid_parameters_are_refused(given: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        Parameter.model_validate(given)


def test_weights_file_needs_pretrained() -> None:
    with pytest.raises(ValidationError, match="weights_file needs pretrained: true"):
        ModelConfig(pretrained=False, weights_file="a.pt")


def test_space_alone_searches_nothing() -> None:
    space = Space.model_validate({"parameters": {"training.loss": {"values": ["kl"]}}})
    assert space.alone().parameters == {}
    assert space.alone().budget.trials == 1


def test_digest_refuses_nan_and_ignores_key_order() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        digest({"a": float("nan")})
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def canonical_of(**inputs: object) -> dict[str, object]:
    data = canonical(Experiment.model_validate({"input": inputs}))["input"]
    assert isinstance(data, dict)
    return data


def test_canonical_form_names_sources_and_drops_unused_ones() -> None:
    assert canonical_of(views=["panels"]) == {
        "views": ["kaggle panels"],
        "normalisation": "per_image",
        "downsample": [1, 1],
        "height": None,
        "size": None,
    }
    assert canonical_of(views=["panels"]) == canonical_of(
        views=["kaggle  panels"], eeg={"kind": "stft"}, pairs={"n_mels": 9}, raw={"rate_hz": 50}
    )
    eeg = canonical_of(views=["eeg panels"], normalisation="global", downsample=[4, 4])
    assert eeg == canonical_of(views=["eeg panels"])
    assert set(eeg) == {"views", "eeg", "height", "size"}
    both = canonical_of(views=["panels", "raw signals"], raw={"rate_hz": 50})
    assert set(both) == {"views", "normalisation", "downsample", "raw", "height", "size"}


@pytest.mark.parametrize(
    "change",
    [
        {"height": 300},
        {"eeg": {"kind": "stft"}},
        {"eeg": {"normalisation": "global"}},
        {"eeg": {"downsample": [2, 2]}},
        {"views": ["eeg panels", "panels"]},
    ],
)
def test_recipe_of_a_used_source_changes_the_canonical_form(change: dict[str, object]) -> None:
    before = {"views": ["panels", "eeg panels"]}
    assert canonical_of(**before) != canonical_of(**{**before, **change})


def test_used_sources_are_recipes_in_the_order_of_the_views() -> None:
    config = InputConfig.model_validate(
        {
            "views": ["eeg panels", "statistics", "eeg percentiles"],
            "eeg": {"kind": "stft", "downsample": [2, 2], "normalisation": "global"},
        }
    )
    used = used_sources(config)
    assert list(used) == ["eeg", "kaggle"]
    assert used == {"eeg": EegRecipe(kind="stft"), "kaggle": None}
    assert type(used["eeg"]) is EegRecipe
    raw = used_sources(InputConfig(views=("raw signals",), raw=RawConfig(rows=4, rate_hz=50)))
    assert raw == {"raw": RawRecipe(rate_hz=50)}
    assert type(raw["raw"]) is RawRecipe


@pytest.mark.parametrize(
    ("view", "rule"),
    [
        ("eog panels", r"kaggle, eeg, pairs, raw \(default: kaggle\)"),
        ("kaggle eeg panels", "a view must be SOURCE PICTURE"),
        ("", "a view must be SOURCE PICTURE"),
        ("panles", "a picture of kaggle must be one of panels, statistics, percentiles"),
        ("raw statistics", r"a picture of raw must be one of signals \(statistics belongs to kag"),
        ("raw percentiles", r"one of signals \(percentiles belongs to kaggle, eeg\)"),
        ("eeg signals", r"one of panels, statistics, percentiles \(signals belongs to raw\)"),
        ("pairs statistics", r"one of panels \(statistics belongs to kaggle, eeg\)"),
    ],
)
def test_unknown_views_are_refused(view: str, rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        InputConfig(views=("panels", view))


def test_default_numbers_written_out_have_the_same_key() -> None:
    def form(**eeg: object) -> dict[str, Any]:
        data = {"input": {"views": ["eeg panels"], "eeg": eeg}}
        return canonical(Experiment.model_validate(data))

    assert form() == form(window_samples=128, hop_samples=39)
    assert form() != form(hop_samples=40)
    # 256 frames of the recipe's own, 285 of every 7 samples of 2,000.
    assert form(centre_s=10) != form(centre_s=10, hop_samples=7)


def test_signals_must_fit_into_float16() -> None:
    with pytest.raises(ValueError, match=r"at most 65504, the largest float16, got 1\.024e\+06"):
        RawRecipe(scale_uv=0.001)
