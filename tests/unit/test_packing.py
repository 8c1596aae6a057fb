"""``hms-ray pack``: packs, summaries and errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.read import eeg_path, read_labels
from hms_ray.competition.rows import make_rows
from tests.competition_folder import write_competition_folder, write_eeg

EXPERIMENT = """
experiment:
  data: {unit: label}
  input:
    views: [kaggle panels, eeg panels]
    normalisation: per_image
    eeg: {normalisation: none}
    height: 64
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four EEGs and three spectrograms; only read."""
    return write_competition_folder(tmp_path_factory.mktemp("data") / "data", n_patients=2)


def test_spectrograms_are_packed_and_summarised(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", str(data), "--pack-dir", str(tmp_path), "--workers", "1", "--verify"]
    assert main(words) == 0
    first, gaps, fingerprint, _ = capsys.readouterr().out.splitlines()
    assert first.startswith(f"{tmp_path}/kaggle-")
    assert ": 3 recordings, " in first
    assert gaps == "1 recording with gaps, 0 without any signal"
    assert fingerprint.endswith(", contents verified")


def test_all_sources_of_an_experiment_are_packed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(data, tmp_path / "data"))
    write_eeg(eeg_path(folder, 500_000), np.zeros((60 * 200, 20), np.float32))
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT)
    words = ["pack", str(folder), "--space", str(file), "--set", "data.window=nearest"]
    assert main([*words, "--workers", "1"]) == 0
    rows = make_rows(read_labels(folder), "label", "nearest")
    windows = rows[["eeg_id", "eeg_start"]].drop_duplicates()
    output = capsys.readouterr().out
    assert f": {len(windows)} windows, " in output
    assert f", {(windows['eeg_id'] == 500_000).sum()} without any signal" in output
    assert sorted(path.name.split("-")[0] for path in (folder / "packed").iterdir()) == [
        *("eeg", "kaggle")
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "0"], "packing needs at least one worker, got 0"),
        (
            ["--set", "data.unit=eeg"],
            "--set needs an experiment, got data.unit=eeg. Name the experiment with ",
        ),
        (["--address", "127.0.0.1"], "a Ray cluster must answer at the address"),
    ],
)
def test_error_is_one_line(
    data: Path, words: list[str], message: str, error_line: Callable[..., str]
) -> None:
    if "--address" in words:
        pytest.importorskip("ray")
    assert error_line("pack", data, *words).startswith(f"hms-ray pack: {message}")
