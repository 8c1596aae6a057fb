"""Images of several sources, and downsampled windows that are kept or made again."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from hms_ray.config.inputs import InputConfig
from hms_ray.train import downsampled as downsampled_module
from hms_ray.train.downsampled import DownsampledWindows, cache_budget
from hms_ray.train.loop import train_fold
from hms_ray.train.process import Process
from hms_ray.train.windows import Resident, open_sources
from hms_ray.transforms.downsample import downsample
from tests.fold_data import cut_windows, example_experiment, example_fold, open_images, two_sources
from tests.view_images import make_image

CPU = torch.device("cpu")
DATA = example_fold()
BOTH = two_sources()
VIEWS = ("panels", "eeg panels", "eeg percentiles")
N = len(DATA.targets)


def downsampled(capacity: int, kind: Any = "resident") -> DownsampledWindows:
    rows = DATA.sources["kaggle"]
    windows = open_sources({"": rows.pack}, CPU, kind)[""]
    return DownsampledWindows(windows, rows.starts, (4, 4), torch.float32, capacity)


@pytest.mark.parametrize("capacity", [1, 7, N - 1, N, 10 * N])
def test_cached_windows_equal_recomputed_ones_bit_for_bit(capacity: int) -> None:
    rng = np.random.default_rng(0)
    keeping, fresh = downsampled(capacity), downsampled(0)
    for _ in range(3):
        batches = np.array_split(rng.permutation(N).astype(np.int64), 5)
        batches.append(batches[0][[0, 0, 1]])
        for kept, made in zip(keeping.stream(batches), fresh.stream(batches), strict=True):
            assert torch.equal(kept.nan_to_num(99.0), made.nan_to_num(99.0))
    assert keeping.n_cached == min(capacity, N)
    assert fresh.n_cached == 0


def test_cached_window_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    downsample = downsampled_module.downsample

    def counted(windows: torch.Tensor, block: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
        made.append(len(windows))
        return downsample(windows, block, dtype)

    monkeypatch.setattr(downsampled_module, "downsample", counted)
    keeping = downsampled(N)
    for _ in range(3):
        list(keeping.stream([np.arange(0, 30), np.arange(20, N)]))
    assert made == [30, N - 30]


def test_changing_a_batch_does_not_change_the_cache() -> None:
    keeping, rows = downsampled(N), [np.arange(9)]
    (first,) = keeping.stream(rows)
    before = first.clone()
    for _ in range(2):
        next(iter(keeping.stream(rows))).zero_()
    (again,) = keeping.stream(rows)
    assert torch.equal(again.nan_to_num(99.0), before.nan_to_num(99.0))


def test_streamed_and_full_size_windows_are_not_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = downsampled(N, "streamed")
    list(streamed.stream([np.arange(5)]))
    assert streamed.n_cached == 0
    rows = DATA.sources["kaggle"]
    whole = DownsampledWindows(Resident(rows.pack, CPU), rows.starts, (1, 1), torch.float32, N)
    list(whole.stream([np.arange(5)]))
    assert whole.n_cached == 0
    assert cache_budget(torch.device("cuda")) == 0
    monkeypatch.setattr(downsampled_module, "_free_bytes", lambda: 100)
    assert cache_budget(CPU) == 25
    monkeypatch.setattr(downsampled_module, "_free_bytes", lambda: 2**40)
    assert cache_budget(CPU) == 2**30


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_images_show_the_same_row_of_each_source(kind: str) -> None:
    config = InputConfig(views=VIEWS)
    maker = open_images(BOTH, config, kind=kind)
    rows = np.array([4, 0, 57])
    (image,) = maker.for_rows([rows])
    windows = {name: cut_windows(source, rows) for name, source in BOTH.sources.items()}
    assert torch.equal(image, make_image(windows, config))
    assert tuple(image.shape[2:]) == maker.size
    assert maker.joined[1] == (64, 20, 20)


def test_constants_are_fitted_for_sources_that_need_them() -> None:
    eeg = {"normalisation": "global", "downsample": (2, 1)}
    config = InputConfig.model_validate({"views": ("panels", "eeg panels"), "eeg": eeg})
    maker = open_images(BOTH, config, cache_bytes=10**6)
    maker.fit(BOTH.train, 12, Process())
    means = downsample(cut_windows(BOTH.sources["eeg"], BOTH.train), (2, 1), torch.float64).numpy()
    assert set(maker.constants) == {"eeg"}
    assert maker.constants["eeg"].mean == pytest.approx(means.mean(), rel=1e-6)
    assert maker.constants["eeg"].std == pytest.approx(means.std(), rel=1e-6)


def test_sources_have_their_own_normalisation() -> None:
    config = InputConfig.model_validate(
        {
            "views": ("panels", "eeg percentiles"),
            "normalisation": "per_frequency",
            "downsample": (2, 4),
            "eeg": {"normalisation": "robust"},
        }
    )
    maker = open_images(BOTH, config, cache_bytes=10**6)
    maker.fit(BOTH.train, 12, Process())
    means = downsample(cut_windows(BOTH.sources["kaggle"], BOTH.train), (2, 4)).double().numpy()
    kaggle = maker.constants["kaggle"]
    np.testing.assert_allclose(kaggle.mean, np.nanmean(means, axis=(0, 1, 3)), rtol=1e-6)
    np.testing.assert_allclose(kaggle.std, np.nanstd(means, axis=(0, 1, 3)), rtol=1e-6)
    values = cut_windows(BOTH.sources["eeg"], BOTH.train).numpy()
    assert maker.constants["eeg"].mean == pytest.approx(np.median(values), abs=1e-3)
    record = json.loads(json.dumps(maker.normalisation()))
    assert record == maker.normalisation()
    assert record["kaggle"]["mode"] == "per_frequency"
    assert record["kaggle"]["mean"] == list(kaggle.mean)  # type: ignore[arg-type]
    assert set(record["eeg"]) == {"mode", "mean", "std"}
    (image,) = maker.for_rows([BOTH.valid])
    again = open_images(BOTH, config)
    again.load_normalisation(record)
    (same,) = again.for_rows([BOTH.valid])
    assert torch.equal(image, same)


def test_source_without_view_has_no_effect() -> None:
    experiment = example_experiment()
    alone = train_fold(experiment, DATA, 0, Process())
    both = train_fold(experiment, replace(DATA, sources=BOTH.sources), 0, Process())
    assert np.array_equal(alone.probabilities, both.probabilities)
    assert both.normalisation == {"kaggle": {"mode": "per_image"}}
