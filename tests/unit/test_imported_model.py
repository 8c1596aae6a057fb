"""Models from elsewhere: their contract, source, checks, and who may run their code."""

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from hms_ray.blend.export import ExportOptions, export
from hms_ray.blend.holdout import HoldoutOptions, open_holdout
from hms_ray.blend.submit import submit
from hms_ray.config.experiment import Experiment, ModelConfig, canonical
from hms_ray.config.import_path import source_sha256
from hms_ray.config.loading import validate_space
from hms_ray.config.space import Space
from hms_ray.errors import ModelError, StudyError, TrainingError
from hms_ray.experiment.cache_key import cache_key_inputs, require_planned
from hms_ray.experiment.older_folds import not_reused
from hms_ray.experiment.placement import Placement
from hms_ray.experiment.preflight import preflight
from hms_ray.experiment.run import plan_folds
from hms_ray.predict.submit_trial import SubmitOptions
from hms_ray.predict.trial import TrialModels, read_models
from hms_ray.search.distributions import trial_key
from hms_ray.study.confirmation import ConfirmingRun, require_own_model
from hms_ray.study.identity import import_paths, space_identity
from hms_ray.train.imported_model import check_imported
from hms_ray.train.model import build_model
from tests.refused import refusal
from tests.trained_study import TrainedStudy, train_study, write_test_set

PAGE = Path(__file__).parents[2] / "search_spaces" / "README.md"
EXAMPLE = re.search(r"Save this as `my_nets.py`:\n\n```python\n(.*?)```", PAGE.read_text(), re.S)
NETS = """
import torch
from torch import nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, n=6):
        super().__init__()
        self.first, self.head = nn.Conv2d(1, 4, 3, stride=2), nn.Linear(4, n)
    def features(self, x):
        return F.relu(self.first(x)).mean((2, 3))
    def forward(self, x):
        return self.head(self.features(x))

def good(): return Net()
no_function = 3
def positional(size, /): return Net()
def strange(channels, depth): return Net()
def fails(): raise KeyError("gone")
def returns_none(): return None
def five(): return Net(5)

class Pair(Net):
    def forward(self, x): return self.features(x), super().forward(x)
class Flat(Net):
    def forward(self, x): return super().forward(x).flatten()
class Infinite(Net):
    def forward(self, x): return super().forward(x) / 0
class Constant(Net):
    def __init__(self):
        super().__init__()
        self.scale = torch.ones(6)
    def forward(self, x): return super().forward(x) * self.scale
class Root(Net):
    def forward(self, x): return self.head(torch.sqrt(self.features(x) * 0))
class Unused(Net):
    def __init__(self):
        super().__init__()
        self.other = nn.Linear(2, 2)
class Frozen(Unused):
    def __init__(self):
        super().__init__()
        self.other.requires_grad_(False)
class Detached(Net):
    def forward(self, x): return super().forward(x).detach()
class Hidden(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.randn(6), persistent=False)
    def forward(self, x): return super().forward(x) + self.shift
class Noisy(Net):
    def forward(self, x): return F.dropout(super().forward(x))
class Extra(Net):
    def get_extra_state(self): return {"a": 1}
    def set_extra_state(self, state): pass
class Closed(Net):
    def __deepcopy__(self, memo): raise TypeError("cannot copy")
class Branching(Net):
    def forward(self, x):
        logits = super().forward(x)
        return logits * 2 if logits.sum().item() > 1e9 else logits
drawn = [0]
class Numbered(Net):
    def __init__(self):
        super().__init__()
        drawn[0] += 1
        with torch.no_grad(): self.head.bias.fill_(drawn[0])
class Renamed(Net):
    def __init__(self):
        super().__init__()
        drawn[0] += 1
        self.register_buffer(f"more{drawn[0]}", torch.zeros(1))
class BySeed(Net):
    def __init__(self):
        super().__init__()
        self.register_buffer("more" if torch.rand(1) > 0.6 else "less", torch.zeros(1))
"""
PLACEMENT = Placement(world_size=1)
Write = Callable[[str, str], None]

pytestmark = pytest.mark.usefixtures("one_process")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a file of a module that can be imported in this test only."""
    monkeypatch.syspath_prepend(tmp_path)
    made = set()

    def write(file: str, text: str) -> None:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
        made.add(file.split("/")[0].removesuffix(".py"))
        source_sha256.cache_clear()

    yield write
    for loaded in [one for one in sys.modules if one.split(".")[0] in made]:
        del sys.modules[loaded]
    source_sha256.cache_clear()


@pytest.fixture
def nets(module: Write) -> Write:
    module("nets_for_test.py", NETS)
    return module


def named(function: str, **model: Any) -> ModelConfig:
    return ModelConfig.model_validate({"name": f"nets_for_test:{function}", **model})


def checked(function: str, workers: int = 1, shape: tuple[int, int, int] = (1, 16, 12)) -> None:
    build = partial(build_model, named(function), shape[1:], shape[0])
    build()
    check_imported(build, f"nets_for_test:{function}", shape, workers)


def space_of(name: str, **training: Any) -> Space:
    experiment = {
        "data": {"n_folds": 2},
        "input": {"downsample": [10, 10]},
        "model": {"name": name},
        "training": training,
    }
    return validate_space({"experiment": experiment}, "test")


def test_the_example_of_the_page_passes_all_checks(module: Write) -> None:
    assert EXAMPLE is not None
    assert EXAMPLE[1].strip().count("\n") < 10
    module("my_nets.py", EXAMPLE[1])
    config = ModelConfig(name="my_nets:small_net", dropout=0.125)
    build = partial(build_model, config, (64, 48), 3)
    model = build()
    assert model.training
    assert [one.p for one in model.modules() if isinstance(one, torch.nn.Dropout)] == [0.125]
    assert model(torch.randn(2, 3, 64, 48)).shape == (2, 6)
    check_imported(build, config.name, (3, 64, 48), workers=2)


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("function", ["good", "Frozen", "Unused", "Branching"])
def test_sound_models_pass_and_the_generator_stays(function: str) -> None:
    build = partial(build_model, named(function), (16, 12))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check_imported(build, "n", (1, 16, 12), workers=1 if function == "Unused" else 2)
    assert torch.equal(torch.rand(3), expected)


REFUSED = {
    "no_function": ("must lead to a function", "int", "Define no_function"),
    "missing": ("must lead to a function", "no missing", "nets_for_test.py"),
    "positional": ("may require only image_size, channels", "size", "defaults"),
    "strange": ("may require only image_size, channels", "depth", "defaults"),
    "fails": ("must build a model", "KeyError: 'gone'", "with these arguments"),
    "returns_none": ("must return a torch.nn.Module", "NoneType", "Return the model"),
    "five": ("return (B, 6) logits", "(1, 5) for 1 images", "6 logits per image"),
    "Pair": ("return (B, 6) logits", "tuple of Tensor, Tensor", "Return one tensor"),
    "Flat": ("return (B, 6) logits", "(6,) for 1 images", "Return one tensor"),
    "Infinite": ("return finite logits", "others", "first weights"),
    "Constant": ("follow its images to another device", "device", "register_buffer"),
    "Root": ("have finite gradients", "first.weight", "roots"),
    "Detached": ("trained parameters that its logits depend on", "none", "detach"),
    "Hidden": ("predict from its state dict alone", "other logits", "buffers"),
    "Noisy": ("be deterministic in evaluation mode", "second pass", "self.training"),
    "Extra": ("have a state dict of tensors", "dict in _extra_state", "Register buffers"),
    "Closed": ("be copied by copy.deepcopy", "cannot copy", "plain data"),
    "Numbered": ("be the same for the same seed of torch", "head.bias", "global generator"),
    "Renamed": ("be the same for the same seed", "more", "global generator"),
    "BySeed": ("load the state dict of another one", "key(s) in state_dict", "the same layers"),
}


@pytest.mark.usefixtures("nets")
@pytest.mark.parametrize("function", list(REFUSED))
def test_an_unsound_model_is_refused_with_the_reason(function: str) -> None:
    rule, got, fix = REFUSED[function]
    with refusal(ModelError, rule, got=got, where=f"nets_for_test:{function}", fix=fix):
        checked(function)


@pytest.mark.usefixtures("nets")
def test_unfit_images_and_unused_parameters_in_groups_are_refused() -> None:
    with refusal(ModelError, "accept images of 3 x 16 x 12", got="channels", fix="the input"):
        checked("good", shape=(3, 16, 12))
    with refusal(
        ModelError, "use every trained parameter", got="other.weight, other.bias", fix="workers: 1"
    ):
        checked("Unused", workers=2)


def test_a_module_that_cannot_be_imported_is_refused(module: Write) -> None:
    module("broken_nets.py", "import nothing_of_this_name\n")
    place, fix = "broken_nets:f", "put its folder on PYTHONPATH, on every machine"
    with refusal(ModelError, "importable", got="nothing_of_this_name", where=place, fix=fix):
        build_model(ModelConfig(name=place), (8, 8))
    with refusal(ModelError, "importable", got="absent_nets", where="absent_nets.a:f", fix=fix):
        build_model(ModelConfig(name="absent_nets.a:f"), (8, 8))
    with refusal(ModelError, "a source file", got="no source of absent_nets", fix=fix):
        source_sha256("absent_nets.a:f")


@pytest.mark.usefixtures("nets")
def test_values_without_effect_are_refused() -> None:
    build_model(named("good"), (8, 8))
    for field in ("drop_path", "dropout"):
        rule, fix = f"model.{field} needs a function that accepts it", f"omit model.{field}"
        with refusal(ModelError, rule, got="0.5", where="nets_for_test:good", fix=fix):
            build_model(named("good", **{field: 0.5}), (8, 8))
    for field, value in (("weights_file", "a.pt"), ("pooling", "gem")):
        with pytest.raises(ValueError, match=f"{field} needs a model of timm, got nets_for_test"):
            named("good", **{field: value})


@pytest.mark.parametrize("name", ["a:", ":f", "a.:f", "a:b:c", "a-b:f", "a:f.g"])
def test_a_malformed_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"must be package.module:function, got {name}"):
        ModelConfig(name=name)


def test_the_source_of_a_package_is_all_of_its_python_files(module: Write) -> None:
    def changed_by(file: str, text: str) -> bool:
        before = source_sha256("net_package.nets:good")
        module(file, text)
        return source_sha256("net_package.nets:good") != before

    # Reading must not import it.
    module("net_package/__init__.py", "raise RuntimeError('imported')")
    module("net_package/nets.py", NETS)
    assert changed_by("net_package/other.py", "")
    assert changed_by("net_package/other.py", "x = 1")
    assert not changed_by("net_package/notes.txt", "")


def test_pretrained_has_no_effect_and_keys_of_timm_models_stay(nets: Write) -> None:
    made = [canonical(Experiment(model=named("good", pretrained=one))) for one in (False, True)]
    assert made[0] == made[1]
    assert "model_sources" not in space_identity(space_of("test_resnet"))
    names = ["test_resnet", "nets_for_test:good"]
    for path, values in (
        ("model.name", names),
        ("model", {"a": {"name": names[1]}, "b": {"dropout": 0.1}}),
    ):
        searched = {"experiment": {}, "parameters": {path: {"values": values}}}
        space = validate_space(searched, "test")
        assert import_paths(space) == ["nets_for_test:good"]
        assert list(space_identity(space)["model_sources"]) == ["nets_for_test:good"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(place)
        (place / "study_nets.py").write_text(NETS)
        source_sha256.cache_clear()
        yield place
    sys.modules.pop("study_nets", None)
    source_sha256.cache_clear()


@pytest.fixture(scope="module")
def study(place: Path) -> TrainedStudy:
    values = {"model.name": "study_nets:good", "data.holdout": 0.3}
    return train_study(place, values=values, name="own")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_set(tmp_path_factory.mktemp("test_set") / "data")


@pytest.fixture
def options(study: TrainedStudy, data: Path, tmp_path: Path) -> SubmitOptions:
    return SubmitOptions(data_dir=data, results=study.results, out=tmp_path / "a.csv")


@pytest.fixture
def source(place: Path) -> Iterator[Callable[[str | None], None]]:
    """Replaces the source, or removes it, until the test ends."""
    file = place / "study_nets.py"

    def change(text: str | None) -> None:
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        source_sha256.cache_clear()

    yield change
    change(NETS)


def test_code_of_a_stored_model_runs_only_if_trusted(
    study: TrainedStudy,
    options: SubmitOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opening, out = HoldoutOptions(results=study.results), tmp_path / "export"
    calls: dict[str, Callable[[], object]] = {
        "own 0000": lambda: submit("own", options),
        " own 0000": lambda: submit("own", replace(options, train_rows=True, data_dir=study.data)),
        "trial 0000": lambda: open_holdout(study.folder, opening),
        "own": lambda: submit(str(out), options),
    }
    with monkeypatch.context() as patch:
        patch.setattr("hms_ray.train.imported_model.importlib", None)
        # Copies weights only.
        export("own", ExportOptions(out=out, results=study.results, wheel=False))
        for where, call in calls.items():
            with refusal(
                StudyError,
                "code of a stored model runs only if you trust it",
                got="the model study_nets:good",
                where=where.strip(),
                fix="Read its source, then add --trust-code.",
            ):
                call()
    page = (out / "README.md").read_text()
    assert " --trust-code --pack-dir" in page
    assert "Code of a model from elsewhere, which is not in this folder: `study_nets:good`" in page
    trusting = replace(options, trust_code=True)
    submit("own", trusting)
    assert options.out is not None
    by_study = options.out.read_bytes()
    submit(str(out), trusting)
    assert options.out.read_bytes() == by_study
    assert open_holdout(study.folder, replace(opening, trust_code=True)).n_rows > 0


def test_another_or_no_source_is_refused(
    study: TrainedStudy,
    options: SubmitOptions,
    tmp_path: Path,
    source: Callable[[str | None], None],
) -> None:
    options, out = replace(options, trust_code=True), tmp_path / "export"
    source(NETS + "\n# changed\n")
    export("own", ExportOptions(out=out, results=study.results, wheel=False))
    got = f"SHA-256 {source_sha256('study_nets:good')[:12]} instead of "
    for target in ("own", str(out)):
        with refusal(
            StudyError,
            "with the source that it was trained with",
            got=got,
            where="own 0000, study_nets:good",
            fix="Restore that source, or train again.",
        ):
            submit(target, options)
    source(None)
    with refusal(
        StudyError,
        "the source of a stored model must be on this machine",
        got="no source of study_nets",
        where="own 0000, study_nets:good",
        fix="PYTHONPATH",
    ):
        submit("own", options)


def test_a_changed_source_is_another_experiment(
    study: TrainedStudy, source: Callable[[str | None], None]
) -> None:
    space, prepared = study.folder.space(), study.prepared
    task = plan_folds(space.experiment, prepared, study.results, PLACEMENT)[0]
    require_planned(task.experiment, task.key_inputs)
    before = trial_key(task.experiment), space_identity(space)
    source(NETS + "\nx = 1\n")
    now = cache_key_inputs(task.experiment, prepared, task.fold, PLACEMENT)
    assert [name for name in now if now[name] != task.key_inputs[name]] == ["model_source"]
    assert trial_key(task.experiment) != before[0]
    assert space_identity(space) != before[1]
    with refusal(
        TrainingError,
        "a fold must be trained with the source of its cache key",
        got=f"SHA-256 {now['model_source'][:12]} instead of ",
        where="study_nets:good",
        fix="Copy the same source to all machines",
    ):
        require_planned(task.experiment, task.key_inputs)
    note = not_reused([replace(task, key_inputs=now, key="0" * 64)])
    assert note is not None
    assert "1 stored fold is not reused: made with model source" in note
    source(None)
    with refusal(TrainingError, got="no source of study_nets", fix="PYTHONPATH"):
        require_planned(task.experiment, task.key_inputs)


def test_preflight_checks_the_real_images_and_workers(study: TrainedStudy) -> None:
    rows = study.prepared.rows()
    preflight(space_of("study_nets:good"), rows, "cpu", 2)
    with refusal(ModelError, "use every trained parameter", got="other.weight", fix="workers"):
        preflight(space_of("study_nets:Unused"), rows, "cpu", 2)
    with refusal(ModelError, "another device", where="study_nets:Constant"):
        preflight(space_of("study_nets:Constant"), rows)
    with refusal(ModelError, "training.layer_decay", got="not of timm", fix="null"):
        preflight(space_of("study_nets:good", layer_decay=0.5), rows)
    with refusal(ModelError, "training.head_rate", got="none", fix="head_rate: 1"):
        preflight(space_of("study_nets:good", head_rate=2), rows)


def test_confirming_runs_only_code_that_the_own_space_names(study: TrainedStudy) -> None:
    run = ConfirmingRun(0, {}, study.folder.space().experiment)
    require_own_model(study.folder.space(), run, study.folder)
    with refusal(
        StudyError,
        "a trial must have a model that the search space names",
        got="study_nets:good",
        where="0000",
        fix="Move that trial's folder away.",
    ):
        require_own_model(space_of("test_resnet"), run, study.folder)


def test_refit_needs_trust_in_the_experiment_that_it_trains(
    study: TrainedStudy, monkeypatch: pytest.MonkeyPatch, error_line: Callable[..., str]
) -> None:
    def of_timm(*arguments: Any, **named: Any) -> TrialModels:
        models = read_models(*arguments, **named)
        return replace(models, experiment=space_of("test_resnet").experiment)

    words = "refit", "own", "--data", study.data, "--results", study.results, "--local"
    monkeypatch.setattr("hms_ray.train.imported_model.importlib", None)
    assert "add --trust-code" in error_line(*words)
    # Stored folds of a model of timm must not hide that the trial's own file names another.
    monkeypatch.setattr("hms_ray.predict.trial.read_models", of_timm)
    assert "add --trust-code" in error_line(*words)
