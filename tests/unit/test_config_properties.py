"""Properties of configurations that hold for any experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_ray.config.experiment import Experiment, canonical
from hms_ray.config.loading import apply_setting, validate_space
from hms_ray.config.training import StageConfig
from hms_ray.config.values import replace_values
from hms_ray.errors import ConfigError

EPOCHS = st.integers(1, 9)
RATES = st.floats(1e-6, 1.0)
LOSSES = st.sampled_from(["kl", "kl_log_votes", "kl_capped_votes", "kl_floored_votes"])
FRACTIONS = st.floats(0, 1)
AUGMENTS = st.fixed_dictionaries(
    {},
    optional={
        "cutmix": st.none() | st.fixed_dictionaries({"probability": FRACTIONS}),
        "mixup": st.none() | st.fixed_dictionaries({}, optional={"alpha": RATES}),
        "hemisphere_flip": FRACTIONS,
    },
)
STAGES = st.fixed_dictionaries(
    {"epochs": EPOCHS},
    optional={
        "name": st.sampled_from(["noisy", "good", "a: b"]),
        "rows": st.sampled_from(["all", "below_threshold", "at_least_threshold"]),
        "loss": st.none() | LOSSES,
        "learning_rate": st.none() | RATES,
        "augment": st.none() | AUGMENTS,
    },
)
VIEWS = st.sampled_from(["panels", "kaggle statistics", "eeg percentiles", "raw signals"])
BLOCKS = st.tuples(EPOCHS, EPOCHS).map(list)
EXPERIMENTS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=9),
        "data": st.fixed_dictionaries(
            {}, optional={"n_folds": st.integers(2, 9), "n_patients": st.none() | EPOCHS}
        ),
        "input": st.fixed_dictionaries(
            {},
            optional={
                "views": st.lists(VIEWS, min_size=1, max_size=3),
                "downsample": BLOCKS,
                "size": st.none() | BLOCKS,
                "eeg": st.fixed_dictionaries(
                    {}, optional={"kind": st.sampled_from(["mel", "stft"]), "downsample": BLOCKS}
                ),
            },
        ),
        "model": st.fixed_dictionaries({}, optional={"dropout": st.floats(0, 0.9)}),
        "training": st.fixed_dictionaries(
            {},
            optional={
                "seed": st.integers(0, 99),
                "loss": LOSSES,
                "learning_rate": RATES,
                "stage_threshold": st.integers(2, 20),
                "augment": AUGMENTS,
                "stages": st.lists(STAGES, min_size=1, max_size=3),
            },
        ),
    },
).map(Experiment.model_validate)


def leaves(data: Any, path: str = "") -> dict[str, Any]:
    """Dotted path -> value of all values that are not mappings."""
    if not isinstance(data, dict):
        return {path: data}
    return {
        name: value
        for key, below in data.items()
        for name, value in leaves(below, f"{path}.{key}" if path else key).items()
    }


def reordered(data: Any, random: Any) -> Any:
    if isinstance(data, list):
        return [reordered(item, random) for item in data]
    if not isinstance(data, dict):
        return data
    keys = list(data)
    random.shuffle(keys)
    return {key: reordered(data[key], random) for key in keys}


@settings(max_examples=20, deadline=None)
@given(experiment=EXPERIMENTS, random=st.randoms())
def test_settings_of_every_value_give_the_experiment(experiment: Experiment, random: Any) -> None:
    values = leaves(experiment.model_dump(mode="json"))
    paths = list(values)
    random.shuffle(paths)
    data: dict[str, Any] = {}
    for path in paths:
        apply_setting(data, f"{path}={json.dumps(values[path], ensure_ascii=False)}")
    assert validate_space(data, "test").experiment == experiment
    assert replace_values(Experiment(), {path: values[path] for path in paths}) == experiment


@given(experiment=EXPERIMENTS, random=st.randoms())
def test_canonical_form_ignores_spelling_and_order(experiment: Experiment, random: Any) -> None:
    data = reordered(experiment.model_dump(mode="json", exclude_defaults=True), random)
    short = Experiment.model_validate({**data, "name": "other"})
    assert canonical(short) == canonical(experiment)
    # Every value of a stage can be inherited, or written out.
    stages = experiment.training.resolved_stages()
    spelled = [
        {
            name: value
            for name, value in {**stage.model_dump(mode="json"), "name": str(n)}.items()
            if name in StageConfig.model_fields
        }
        for n, stage in enumerate(stages)
    ]
    assert canonical(replace_values(experiment, {"training.stages": spelled})) == canonical(
        experiment
    )


@given(experiment=EXPERIMENTS, data=st.data())
def test_unknown_key_is_named_with_its_place(experiment: Experiment, data: st.DataObject) -> None:
    values = experiment.model_dump(mode="json")
    path = data.draw(st.sampled_from(list(leaves(values))))
    *parents, last = path.split(".")
    here = values
    for name in parents:
        here = here[name]
    here[last + "s_"] = here.pop(last)
    with pytest.raises(ConfigError) as caught:
        validate_space({"experiment": values}, Path("space.yaml"))
    assert f"unknown key experiment.{path}s_ (did you mean {last}?)" in caught.value.rule
