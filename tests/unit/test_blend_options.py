"""Options of ``hms-ray blend`` that belong to fitting, to ``--apply``, or to another option."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from hms_ray.cli.given_options import given_options
from hms_ray.cli.main import build_parser, main

FILE = "b.json"
APPLY = ["--apply", FILE, "--data", "d"]


def command() -> argparse.ArgumentParser:
    for action in build_parser()._actions:
        if isinstance(action, argparse._SubParsersAction):
            parser = action.choices["blend"]
            assert isinstance(parser, argparse.ArgumentParser)
            return parser
    raise AssertionError("the parser has no commands")


OPTIONS = [
    action
    for action in command()._actions
    if action.option_strings and action.dest not in ("help", "debug")
]


def example(action: argparse.Action, default: bool) -> list[str]:
    """The option with some value, or with its own default where a word can say that."""
    name = action.option_strings[0]
    if action.nargs == 0:
        return [name]
    if default and isinstance(action.default, (str, int, float, Path)):
        return [name, str(action.default)]
    return [name, str(action.choices[-1] if isinstance(action.choices, Sequence) else 7)]


class Read(argparse.Namespace):
    """Words that remember which of them were asked for."""

    def __init__(self, words: argparse.Namespace) -> None:
        super().__init__(**vars(words), read=set())

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "read":
            self.read.add(name)
        return super().__getattribute__(name)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> Read:
    """Runs blend on words, without any blend, and tells which of them were read."""
    for name in ("hms_ray.blend.apply_command.apply_to_file", "hms_ray.blend.fit_command.blend"):
        monkeypatch.setattr(name, lambda *_: "")
    parsed = build_parser().parse_args(words)
    parsed.said = words
    read = Read(parsed)
    call = read.call
    read.read.clear()
    assert call(read) == 0
    return read


@pytest.mark.parametrize("default", [True, False])
@pytest.mark.parametrize("action", OPTIONS, ids=lambda action: action.option_strings[0])
def test_an_option_is_used_by_apply_or_refused(
    action: argparse.Action,
    default: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And likewise used or refused where a blend is fitted: none is passed over."""
    given = example(action, default)
    option = action.option_strings[0]
    used = run(["blend", *APPLY], monkeypatch).read
    assert used >= {"apply", "data", "out", "results", "predictions"}
    if option not in ("--apply", "--data"):
        if action.dest in used:
            run(["blend", *APPLY, *given], monkeypatch)
        else:
            assert main(["blend", *APPLY, *given]) == 2
            assert capsys.readouterr().err == (
                "hms-ray blend: --apply takes a blend as it was fitted, without options of "
                f"fitting, got {option}. Leave them out, or fit another blend first, without "
                "--apply.\n"
            )
    company = ["x.csv", "--targets", "y.csv"] + (["--sets"] if option == "--tolerance" else [])
    used = run(["blend", *company], monkeypatch).read
    if option == "--apply":
        return
    if action.dest in used:
        value = ["--recipe", "31"] if option == "--recipe" else given
        value = [value[0], "row_id=a"] if option.endswith("columns") else value
        run(["blend", *company, *value], monkeypatch)
    else:
        assert main(["blend", *company, *given]) == 2
        assert capsys.readouterr().err == (
            f"hms-ray blend: options of applying a blend need one, got {option} without --apply. "
            "Name the blend: --apply FILE.\n"
        )


def test_only_what_is_given_counts() -> None:
    words = ["one", "--spl", "5", "--fix=a=1", "--debug", "--apply", FILE]
    assert given_options(command(), words) == {
        "splits": "--splits", "fix": "--fix", "debug": "--debug", "apply": "--apply",
    }  # fmt: skip
    assert given_options(command(), []) == {}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", *APPLY], "--apply takes the place of what is blended, got one"),
        (["--apply", FILE], "--apply needs recordings. Name a folder with --data DIR."),
        ([*APPLY], "a blend must exist to be applied, got none, in b.json. "),
        ([*APPLY, "--out", "o"], "a file of predictions must end in .csv or .parquet, got "),
        (
            ["--seed", "0", *APPLY, "--rows", "common", "--sets"],
            (
                "--apply takes a blend as it was fitted, without options of fitting, got --rows, "
                "--seed, --sets. Leave"
            ),
        ),
        (
            ["one", "--data", "d", "--threads", "1"],
            "options of applying a blend need one, got --data, --threads without --apply. Name",
        ),
        ([], "blend needs something to blend. Name INPUT, or --apply FILE."),
        (
            ["one", "--out", "there.csv"],
            "--out must be a folder where a blend is fitted, got",
        ),
        (["one", "--tolerance", "0.001"], "--tolerance needs --sets, got none"),
        (
            ["one", "--columns", "row_id=a", "--targets", "t.csv"],
            "--columns needs an INPUT that is a .csv or .parquet file, got none",
        ),
        (
            ["x.csv", "--target-columns", "row_id=a", "--targets", "one"],
            "--target-columns needs --targets FILE, a .csv or .parquet file, got none",
        ),
        (["one", "--row-unit", "eeg"], "--row-unit needs a .csv or .parquet file, got none"),
        (
            ["one", "--rows", "kl_4", "--fit-on", "kl_10"],
            "--rows kl_4 is the older spelling of --fit-on, got --fit-on kl_10 beside it. Give",
        ),
    ],
)
def test_words_that_do_not_fit_are_refused(
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").touch()
    assert main(["blend", *words]) == 2
    assert re.match(re.escape(f"hms-ray blend: {message}"), capsys.readouterr().err)
