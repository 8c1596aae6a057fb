"""Options of ``hms-ray blend`` and ``hms-ray submit``: each is passed on, or refused."""

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hms_ray.blend.settings import Settings
from hms_ray.cli.main import main
from hms_ray.predict.submit_trial import SubmitOptions

INPUTS = ["x.csv", "--targets", "y.csv"]
OPTIONS = {
    "--method": ("auto", "auto"),
    "--fit-on": ("kl_4", "kl_4"),
    "--rows": ("common", "common"),
    "--splits": ("7", 7),
    "--seed": ("1", 1),
    "--max-family-weight": ("a=0.5", ["a=0.5"]),
    "--fixed-weight": ("b=0.5", ["b=0.5"]),
    "--family": ("a=*", ["a=*"]),
    "--published": ("31", "31"),
    "--cost": ("auto", "auto"),
    "--targets": ("z.csv", "z.csv"),
    "--columns": ("row_id=a,lpd=b", {"row_id": "a", "lpd": "b"}),
    "--target-columns": ("fold=c", {"fold": "c"}),
    "--row-unit": ("eeg", "eeg"),
    "--out": ("folder", Path("folder")),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, where commands run."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def settings_of(words: list[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What ``blend`` is called with, without running it."""
    calls: list[Any] = []
    monkeypatch.setattr("hms_ray.blend.fit_command.blend", lambda *given: calls.append(given))
    stored = SimpleNamespace(without_models=list)
    monkeypatch.setattr("hms_ray.blend.stored.read_blend", lambda _: stored)
    assert main(["blend", *words]) == 0
    settings = calls[0][2]
    return {field.name: getattr(settings, field.name) for field in fields(Settings)}


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_changes_one_setting(
    option: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, value = OPTIONS[option]
    before = settings_of(INPUTS, monkeypatch)
    after = settings_of([*INPUTS, option, word], monkeypatch)
    changed = [name for name in before if before[name] != after[name]]
    assert [after[name] for name in changed] == [value]


def test_defaults_are_those_of_the_settings(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = Settings(targets="y.csv")
    found = settings_of(INPUTS, monkeypatch)
    assert {name: tuple(v) if isinstance(v, list) else v for name, v in found.items()} == {
        field.name: getattr(default, field.name) for field in fields(Settings)
    }
    assert (
        settings_of([*INPUTS, "--subsets", "--tolerance", "0.01"], monkeypatch)["subsets"] is True
    )


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["one", "--out", "there.csv"], ["--out must be a folder", "there.csv"]),
        (["one", "--tolerance", "0.001"], ["--tolerance needs --subsets"]),
        (["one", "--columns", "row_id=a", "--targets", "t.csv"], ["--columns needs an INPUT"]),
        (["x.csv", "--target-columns", "row_id=a", "--targets", "one"], ["needs --targets FILE"]),
        (["one", "--row-unit", "eeg"], ["--row-unit needs a .csv or .parquet file"]),
        (["one", "--rows", "kl_10"], ["--rows", "'kl_10'", "'same', 'common'"]),
        ([], ["INPUT"]),
        (["one", "--apply", "b.json"], ["--apply was renamed", "hms-ray submit"]),
        (["one", "--cap=a=1"], ["--cap was renamed", "--max-family-weight"]),
        (["one", "--fix", "a=1"], ["--fix was renamed", "--fixed-weight"]),
        (["one", "--recipe", "a"], ["--recipe was renamed", "--published"]),
        (["one", "--sets"], ["--sets was renamed", "--subsets"]),
    ],
)
def test_options_that_do_not_fit_are_refused(
    words: list[str], parts: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "there.csv").touch()
    assert main(["blend", *words]) == 2
    text = capsys.readouterr().err
    assert text.startswith("hms-ray blend: ")
    assert all(part in text for part in parts), text
    assert text.count("\n") == 1


def test_each_option_of_submit_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("hms_ray.blend.submit.submit", lambda *given: calls.append(given))
    words = ["submit", "one/3", "--data", "d", "--results", "r", "--out", "o.csv", "--train-rows"]
    words += ["--predictions", "a=b.csv", "--pack-dir", "p", "--device", "cpu", "--threads", "3"]
    assert main(words) == 0
    target, options = calls[0]
    assert target == "one/3"
    found = (Path("d"), Path("r"), Path("o.csv"), True, ["a=b.csv"], Path("p"), "cpu", 3)
    assert tuple(vars(options).values()) == found
    assert main(["submit", "one", "--data", "d"]) == 0
    assert calls[1] == ("one", SubmitOptions(data_dir=Path("d")))
