"""The command rows and the answers of its page, without a browser."""

import base64
import http.client
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from hms_ray.cli.main import main
from hms_ray.competition.read import read_eeg
from hms_ray.report.loopback import running
from hms_ray.report.rows_app import RowApp, RowBrowser, row_address
from hms_ray.report.rows_signal import CHANNELS, Filters, cut_eeg, reduce_signals
from hms_ray.study.folder import StudyFolder
from tests.row_study import make_row_study, study_rows

Ask = Callable[[str], Any]


@pytest.fixture(scope="module")
def study(two_patients_with_eegs: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return make_row_study(tmp_path_factory.mktemp("study"), two_patients_with_eegs)


@pytest.fixture(scope="module")
def ask(study: StudyFolder) -> Iterator[Ask]:
    """Asks the running server of ``study``."""
    with running(RowApp(RowBrowser(study))) as address:
        yield lambda path: answer(address, path)[1]


def answer(address: str, path: str, host: str | None = None) -> tuple[int, Any]:
    """Status and content of an answer."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=10)
    connection.request("GET", path, headers={} if host is None else {"Host": host})
    found = connection.getresponse()
    body = found.read()
    connection.close()
    is_json = found.getheader("Content-Type") == "application/json"
    return found.status, json.loads(body) if is_json else body.decode()


def run(*words: object) -> int:
    return main(["rows", *map(str, words)])


def test_signals_of_an_answer_are_those_of_the_recording(
    ask: Ask, study: StudyFolder, two_patients_with_eegs: Path
) -> None:
    row = study.rows().iloc[-1]
    eeg = read_eeg(two_patients_with_eegs / "train_eegs" / f"{row['eeg_id']}.parquet")
    for span, width, beside in ((10, 2_000, 4_000), (50, 500, 0)):
        query = f"row={row['row_id']}&span={span}&width={width}&high_pass=1&low_pass=30&notch=0"
        found = ask(f"/eeg?{query}")
        first = int(row["eeg_start"]) + beside
        cut = cut_eeg(eeg, first, span * 200, Filters(1, 30, 0))
        expected = reduce_signals(cut, width)
        values = np.frombuffer(base64.b64decode(found["values"]), "<f4")
        shape = (len(CHANNELS), found["points"])
        assert np.array_equal(values.reshape(shape), expected.values, equal_nan=True)
        assert found["start_s"] == first / 200
        assert found["point_s"] == expected.per_point / 200
        assert found["recording_s"] == len(eeg) / 200


def test_gaps_of_an_answer_are_in_seconds_of_the_recording(ask: Ask, study: StudyFolder) -> None:
    # Samples 1,000 to 1,200 of the EEG 500010 are missing at Fp1, F3 and C3.
    rows = study.rows()
    row = rows[rows["eeg_id"] % 3 == 0].iloc[0]
    found = ask(f"/eeg?row={row['row_id']}&span=50&width=10000")
    names = {CHANNELS[channel] for channel, _, _ in found["gaps"]}
    assert names == {name for name in CHANNELS if {"Fp1", "F3", "C3"} & set(name.split("-"))}
    assert {(first, last) for _, first, last in found["gaps"]} == {(5.0, 6.0)}


def test_row_answer_has_the_window_and_its_label_rows(ask: Ask, study: StudyFolder) -> None:
    for _, row in study.rows().iterrows():
        found = ask(f"/row?row={row['row_id']}")
        start = row["eeg_start"] / 200
        assert found["window_s"] == [start, start + 50]
        assert len(found["labels"]) == row["n_labels"]
        assert len(found["models"]) == 3


def test_answers_take_less_than_200_ms(ask: Ask, study: StudyFolder) -> None:
    """Medians over all rows, read from the disk; 50 s of EEG is the largest answer."""
    ids = study.rows()["row_id"].tolist()
    queries = {
        "list": "/list?page=0",
        "row": "/row?row={}",
        "EEG 10 s": "/eeg?row={}&span=10&width=1600",
        "EEG 50 s": "/eeg?row={}&span=50&width=1600",
        "spectrograms": "/spectrograms?row={}",
    }
    for name, query in queries.items():
        times = []
        for row_id in ids:
            start = time.perf_counter()
            ask(query.format(row_id))
            times.append(1_000 * (time.perf_counter() - start))
        print(f"{name}: median {np.median(times):.0f} ms, largest {max(times):.0f} ms")
        assert np.median(times) < 200


def test_a_question_without_an_answer_says_why(ask: Ask, study: StudyFolder) -> None:
    row_id = study.rows()["row_id"].iloc[0]
    for path, word in (
        ("/row?row=1-0", "the row must be one of the study's"),
        ("/eeg?row=1-0", "the row must be one of the study's"),
        (f"/eeg?row={row_id}&span=20", "10 or 50 s"),
        (f"/eeg?row={row_id}&notch=x", "notch must be a number"),
        (f"/eeg?row={row_id}&notch=nan", "notch must be a number"),
        (f"/eeg?row={row_id}&notch=55", "the notch filter must be one of"),
        (f"/eeg?row={row_id}&width=inf", "width must be a number"),
        ("/list?sort=size", "sort must be one of"),
        ("/list?page=x", "page must be a number"),
    ):
        assert word in ask(path)["problem"], path


def test_other_pages_and_hosts_are_refused(study: StudyFolder) -> None:
    with running(RowApp(RowBrowser(study))) as address:
        assert answer(address, "/")[0] == 200
        assert answer(address, "/../study.json")[0] == 404
        for path in ("/", "/list", "/eeg?row=1"):
            assert answer(address, path, host="evil.example")[0] == 403


def test_damaged_and_missing_recordings_leave_the_rest(
    study: StudyFolder, two_patients_with_eegs: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(two_patients_with_eegs, tmp_path / "data"))
    row = study.rows().iloc[0]
    eeg = data / "train_eegs" / f"{row['eeg_id']}.parquet"
    eeg.write_bytes(eeg.read_bytes()[:-100])
    (data / "train_spectrograms" / f"{row['spectrogram_id']}.parquet").unlink()
    browser = RowBrowser(study, data)
    with running(RowApp(browser)) as address:
        found = answer(address, f"/eeg?row={row['row_id']}")[1]["problem"]
        assert "complete parquet file" in found
        assert eeg.name in found
        images = answer(address, f"/spectrograms?row={row['row_id']}")[1]
        assert "a spectrogram file must exist" in images["kaggle"]["problem"]
        assert "complete parquet file" in images["eeg"]["problem"]
        shutil.rmtree(data)
        assert "--data DIR" in answer(address, f"/eeg?row={row['row_id']}")[1]["problem"]
        assert len(answer(address, f"/row?row={row['row_id']}")[1]["models"]) == 3
    gone = RowBrowser(study, data)
    assert "does not exist" in gone.notes[0]
    assert gone.row(row["row_id"])["labels"] == []


def test_command_writes_files_that_need_no_server(
    study: StudyFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, out = study.path.parent, tmp_path / "out"
    assert run("rows", "--results", results, "--out", out, "--worst", 2) == 0
    worst = [row["id"] for row in RowBrowser(study).page({})["rows"][:2]]
    assert sorted(file.stem for file in out.iterdir()) == sorted(worst)
    text = capsys.readouterr().out
    assert f"2 rows written to {out}" in text
    assert "next: hms-ray rows rows" in text
    page = (out / f"{worst[0]}.html").read_text("utf-8")
    assert len(page) < 1e6
    assert not re.search(r"(src|href)=\"?(http|//)|@import|url\(", page)
    named = study.rows()["row_id"].iloc[-1]
    assert run("rows", "--results", results, "--out", out, "--row", named) == 0
    assert (out / f"{named}.html").is_file()


def test_command_refuses_what_it_cannot_show(
    study: StudyFolder, tmp_path: Path, error_line: Callable[..., str]
) -> None:
    row, place = study.rows()["row_id"].iloc[0], ("--results", study.path.parent)
    for words, expected in (
        (["--worst", 3], "Name their folder: --out DIR"),
        (["--row", row, "--row", row], "Name their folder: --out DIR"),
        (["--row", row, "--worst", 3, "--out", tmp_path], "Leave one of them out"),
        (["--row", "1-0"], "the row must be one of the study's"),
        (["--row", "1-0", "--out", tmp_path / "x"], "the row must be one of the study's"),
        (["--trial", 9], "the trial must have finished"),
        (["--data", tmp_path / "gone"], "a competition folder must exist"),
    ):
        assert expected in error_line("rows", "rows", *place, *words)
    assert not (tmp_path / "x").exists()


def test_worst_rows_of_a_study_without_losses_are_refused(
    two_patients_with_eegs: Path, tmp_path: Path, error_line: Callable[..., str]
) -> None:
    make_row_study(tmp_path, two_patients_with_eegs, n_trials=0)
    words = ["--results", tmp_path / "results", "--out", tmp_path / "out"]
    text = error_line("rows", "rows", *words)
    assert "the worst rows need a finished trial" in text
    assert "--row ID" in text


def test_names_are_escaped_in_page_and_file(two_patients_with_eegs: Path, tmp_path: Path) -> None:
    evil = "</script><b>x{{title}}"
    rows: pd.DataFrame = study_rows(two_patients_with_eegs)
    study = make_row_study(tmp_path, two_patients_with_eegs, n_trials=0, rows=rows)
    place = study.path.rename(study.path.with_name(evil.replace("/", "")))
    browser = RowBrowser(StudyFolder(place))
    browser.notes.append(evil)
    page = RowApp(browser)._page.decode()
    assert "<b>x" not in page
    assert page.count("</script>") == 2
    content = json.loads(re.findall(r'id="content">(.*)</script>', page)[0])
    assert content["about"]["notes"][-1] == evil


def test_address_of_a_row() -> None:
    assert row_address("12-0") == "/#row=12-0"
    assert row_address("a b&c") == "/#row=a+b%26c"
