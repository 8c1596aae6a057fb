"""The gold ladder: every step changes one thing, at full size and small."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hms_ray.cli.main import main
from hms_ray.competition.schema import ELECTRODES
from hms_ray.config.inputs import used_sources
from hms_ray.config.shipped import LADDERS
from hms_ray.config.views import kind_of_source
from hms_ray.dataset.sources import pack_source
from hms_ray.experiment.preflight import image_sizes_of
from hms_ray.ladder.manifest import read_manifest
from hms_ray.ladder.plan import sources_of
from hms_ray.ladder.scale import read_scale
from hms_ray.ladder.select import select_ladder
from hms_ray.ladder.steps import Ladder, load_ladder
from hms_ray.search.distributions import trial_key
from hms_ray.signal.windows import make_windows
from hms_ray.train.model import build_model

MANIFEST = LADDERS["gold"]
FOLDER = MANIFEST.parent
SMALL = FOLDER / "small.yaml"
STEPS = {entry.name: entry for entry in read_manifest(MANIFEST).steps}
SHIPPED = {name: entry for name, entry in STEPS.items() if entry.chain == "gold"}


@pytest.fixture(scope="module")
def full() -> Ladder:
    return load_ladder(MANIFEST)


@pytest.fixture(scope="module")
def small() -> Ladder:
    return load_ladder(MANIFEST, SMALL)


def test_settings_of_a_model_reach_every_branch() -> None:
    ladder = load_ladder(MANIFEST, settings=["model.weights_file=folder", "seed=3"], only=["g7"])
    model = ladder.experiments()["g7"].model
    assert model.branches is not None
    assert model.weights_file is None
    assert [branch.weights_file for branch in model.branches] == ["folder"] * 3


def test_every_shipped_experiment_is_a_step_and_a_member_of_the_blends() -> None:
    files = {entry.file: name for name, entry in SHIPPED.items() if entry.file}
    assert sorted(files) == sorted(file.name for file in FOLDER.glob("[0-9]*.yaml"))
    blends = [entry.blend for entry in SHIPPED.values() if entry.blend]
    assert {blend.members for blend in blends} == {tuple(files.values())}
    fitted = {blend.method: blend.fit_on for blend in blends if blend.kind == "optimised"}
    assert fitted == {"log_linear": "kl_10", "auto": "kl_10"}


def test_ingredients_are_added_to_their_baselines() -> None:
    names = [name for name in STEPS if name not in SHIPPED]
    assert len(names) > 15
    for name in names[1:]:
        entry = STEPS[name]
        assert entry.of == entry.before
        assert entry.change
        sections = {path.partition(".")[0] for path in entry.set}
        assert len(sections) == 1 or "model.branches" in entry.set


@pytest.mark.parametrize("overlay", [None, SMALL])
def test_no_two_steps_are_one_experiment(overlay: Path | None) -> None:
    experiments = load_ladder(MANIFEST, overlay).experiments()
    assert len({trial_key(made) for made in experiments.values()}) == len(experiments)


def test_windows_of_all_recipes_are_small(full: Ladder, small: Ladder) -> None:
    largest = read_scale(SMALL).largest
    named = set()
    for experiment in small.experiments().values():
        for source, recipe in experiment.sources.items():
            made, block = pack_source(source, recipe), experiment.input.treatment(source).downsample
            high, long = largest[kind_of_source(source)]  # type: ignore[index]
            assert made.n_frequencies // block[0] <= high
            assert made.window // block[1] <= long
            named.add(source)
    assert {"kaggle", "eeg", "pairs", "raw", "pairs.wide", "pairs.centre", "pairs.zoom"} <= named
    assert len(sources_of(small)) <= len(sources_of(full))


def test_the_overlay_keeps_what_distinguishes_the_steps(full: Ladder, small: Ladder) -> None:
    for name, experiment in full.experiments().items():
        made = small.experiments()[name]
        assert made.joint_input.views == experiment.joint_input.views
        assert made.prediction == experiment.prediction
        kept = {"batch_size", "learning_rate", "schedule", "stages"}
        assert made.training.model_dump(exclude=kept) == experiment.training.model_dump(
            exclude=kept
        )
        for stage, whole in zip(made.training.stages, experiment.training.stages, strict=True):
            assert stage.epochs == whole.epochs
            if whole.learning_rate is not None:
                assert stage.learning_rate is not None
                ratio = whole.learning_rate / experiment.training.learning_rate
                assert stage.learning_rate / made.training.learning_rate == pytest.approx(ratio)


def test_small_models_can_be_built(small: Ladder) -> None:
    built = set()
    for experiment in small.experiments().values():
        key = experiment.model, image_sizes_of(experiment), experiment.input.channels
        if key not in built:
            build_model(*key)
            built.add(key)
    assert len(built) > 8


def test_pairs_by_themselves_average_to_the_chains(full: Ladder) -> None:
    """The first step changes the mean over a chain alone: the mean of its pairs in decibels."""
    eeg = torch.from_numpy(np.random.default_rng(0).normal(0, 20, (2, 10_000, len(ELECTRODES))))
    experiments = full.experiments()
    made = []
    for name, source in (("chain_means", "eeg"), ("pairs", "pairs")):
        recipe = used_sources(experiments[name].input)[source]
        assert recipe is not None
        made.append(make_windows(eeg.float(), recipe).float())
    chains, pairs = made
    assert pairs.shape[1] == 16
    means = pairs.unflatten(1, (4, 4)).mean(2)
    assert (means - chains).abs().max() < 0.01


def test_a_ladder_is_named_or_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen, name = select_ladder(MANIFEST, None, "small", [], [])
    assert name == "gold"
    assert list(chosen.experiments()) == [name for name, entry in STEPS.items() if not entry.blend]
    assert select_ladder(MANIFEST, None, None, [], ["pairs"])[1] == "gold-steps"
    assert main(["ladder", "gold", "--scale", "smal"]) == 2
    assert f"in {FOLDER}" in capsys.readouterr().err
    for words in (["--file", "golf"], ["golf"]):
        assert main(["ladder", *words]) == 2
        assert "got golf (did you mean gold?)" in capsys.readouterr().err
    assert main(["ladder", "none.yaml"]) == 2
    assert "a ladder must be a manifest's file, or published or gold, got none.yaml" in (
        capsys.readouterr().err
    )
    (tmp_path / "mine.yaml").write_text("steps: [{name: a, file: b.yaml}]")
    assert main(["ladder", "mine.yaml"]) == 2
    assert "file must exist, got b.yaml" in capsys.readouterr().err
