"""Search spaces are found by name, local files first."""

from itertools import takewhile
from pathlib import Path

import pytest

from hms_ray.config.loading import load_space
from hms_ray.config.shipped import FOLDER, find_space, shipped_files
from hms_ray.errors import ConfigError
from hms_ray.experiment.preflight import image_sizes_of
from hms_ray.signal.recipes import layout_of
from hms_ray.train.model_images import each_size


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("demo", "demo.yaml"),
        ("search_spaces/demo.yaml", "demo.yaml"),
        ("ladder/09_panels_4", "ladder/09_panels_4.yaml"),
        ("ladder/9_panels_4", "ladder/09_panels_4.yaml"),
        ("gold/01_raw_160x1000", "gold/01_raw_160x1000.yaml"),
    ],
)
def test_shipped_spaces_are_found_by_name(name: str, file: str) -> None:
    assert find_space(name) == FOLDER / file
    load_space(find_space(name))


@pytest.mark.parametrize("name", ["demo", "demo.yaml"])
def test_a_local_file_goes_before_a_shipped_one(name: str, empty: Path) -> None:
    (empty / name).touch()
    assert find_space("demo") == Path(name)


def test_a_folder_of_that_name_is_no_file(empty: Path) -> None:
    (empty / "demo").mkdir()
    assert find_space("demo") == FOLDER / "demo.yaml"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("dmeo", "demo"), ("ladder/9_panel_4", "ladder/9_panels_4"), ("xyz", "known: demo, ")],
)
def test_an_unknown_name_lists_the_nearest(name: str, nearest: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_space(name)
    assert name in str(caught.value)
    assert nearest in str(caught.value)


@pytest.mark.parametrize("name", ["ladder/ladder", "ladder/small", "ladder/3_ensemble_fixed"])
def test_what_is_no_experiment_is_not_found(name: str) -> None:
    with pytest.raises(ConfigError):
        find_space(name)


def test_full_size_spaces_keep_rows_without_a_usable_signal() -> None:
    """A few such rows must not stop a search of days."""
    full_size = [file for file in shipped_files() if file.stem != "demo"]
    assert len(full_size) > 30
    kept = {file.stem: load_space(file).experiment.data.unusable for file in full_size}
    assert set(kept.values()) == {"keep"}, kept


GOLD = sorted(FOLDER.glob("gold/[0-9]*.yaml"))


@pytest.mark.parametrize("file", GOLD, ids=lambda file: file.stem)
def test_heads_of_gold_files_say_what_the_files_do(file: Path) -> None:
    """Source, expected score, cost and memory; sizes and counts are those of the experiment."""
    head = " ".join(
        line.lstrip("# ")
        for line in takewhile(lambda line: line.startswith("#"), file.read_text().splitlines())
    )
    for part in ("Source: ", "Expected: KL >=10 ", "Differs: ", "Cost: ", "Memory: "):
        assert part in head, part
    assert f"hms-ray train gold/{file.stem} --data DIR" in head
    experiment = load_space(file).experiment
    assert experiment.name == f"gold_{file.stem.partition('_')[2]}"
    for height, width in each_size(image_sizes_of(experiment)):
        assert f"{height} x {width}" in head
    # The competition's rows: all of them, and those with at least ten votes.
    rows = {"all": 20_183, "at_least_threshold": 6_329, "below_threshold": 13_854}
    stages = experiment.training.resolved_stages()
    assert {stage.threshold for stage in stages} <= {None, 10}
    share = 1 / experiment.data.n_folds
    trained = (1 - share) * sum(stage.epochs * rows[stage.rows] for stage in stages)
    assert f"{trained / 1000:.0f},000 training images per fold" in head
    scored = 2 * share * rows["all"] * sum(stage.epochs for stage in stages)
    assert f"{scored / 1000:.0f},000 scored ones" in head
    values = 0.0
    for recipe in experiment.sources.values():
        if recipe is None:
            continue
        layout = layout_of(recipe)
        # With a margin, a window is stored twice: as it is, and with the margin at both ends.
        room = 2 * (1 + recipe.margin_s / recipe.centre_s) if recipe.margin_s else 1
        values += room * len(layout.panels) * layout.n_frequencies * layout.n_times
    # The windows of the rows, and of all label rows if these are drawn.
    windows = rows["all"] + (106_800 if experiment.training.draws_label_rows else 0)
    assert f"pack of {2 * values * windows / 1e9:.1f} GB" in head
