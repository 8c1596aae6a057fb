"""What Optuna's own tools show of a study, and the copy of its journal that they open."""

import re
import shutil
import subprocess
from pathlib import Path

import optuna
import pytest

from hms_ray.cli.next_command import print_views
from hms_ray.search.journal import StudyTitle
from hms_ray.search.proposals import Proposals
from hms_ray.sweep.study_title import study_title
from tests.blend_data import add_trials, make_study
from tests.unit.test_gain_search import make_study as make_gain_study
from tests.unit.test_gain_search import optuna_studies, proposals_of, run
from tests.unit.test_proposals import (
    LEARNING_RATE,
    JournalFileBackend,
    JournalStorage,
    make_space,
    optuna_study,
    proposed,
    scores,
)

TITLE = StudyTitle(
    name="first",
    attributes={"command": "hms-ray sweep demo", "data": "/data/hms", "simulated": True},
)


def test_study_and_metric_carry_their_names(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    proposals = Proposals(make_space(LEARNING_RATE), journal, title=TITLE)
    proposals.complete(proposed(proposals).number, scores(0.5))
    study = optuna_study(journal)
    assert study.study_name == "first"
    assert study.metric_names == ["KL >=10"]
    assert study.user_attrs == {"objective": "KL >=10", **TITLE.attributes}
    assert study.best_value == 0.5


def test_resuming_updates_what_changed_and_writes_nothing_else(tmp_path: Path) -> None:
    journal, space = tmp_path / "journal", make_space(LEARNING_RATE, metric="kl_all")
    Proposals(space, journal, title=TITLE)
    assert journal.read_text().count("_attr") == 5
    Proposals(space, journal, title=TITLE)
    assert journal.read_text().count("_attr") == 5
    # The study's folder was renamed.
    renamed = StudyTitle(name="second", attributes={"command": "hms-ray sweep mine"})
    Proposals(space, journal, title=renamed)
    study = optuna_study(journal)
    assert study.study_name == "first"
    assert study.metric_names == ["KL all"]
    assert study.user_attrs["command"] == "hms-ray sweep mine"
    assert journal.read_text().count("_attr") == 6


def test_a_journal_of_an_earlier_version_is_resumed_and_described(tmp_path: Path) -> None:
    journal, space = tmp_path / "journal", make_space(LEARNING_RATE)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    former = optuna.create_study(storage=storage, study_name="study", direction="minimize")
    trial = former.ask()
    trial.suggest_float("training.learning_rate", 1e-4, 1e-2, log=True)
    for name, score in scores(0.5).items():
        trial.set_user_attr(name, score)
    trial.set_user_attr("origin", "sampler")
    former.tell(trial, 0.5)
    assert Proposals(space, journal, title=TITLE).n_finished == 1
    study = optuna_study(journal)
    assert (study.study_name, len(study.trials)) == ("study", 1)
    assert study.metric_names == ["KL >=10"]
    assert study.user_attrs["data"] == "/data/hms"


def test_every_reference_of_a_search_by_gain_is_described(tmp_path: Path) -> None:
    folder = make_gain_study(tmp_path)
    run(folder, proposals_of(folder), 4)
    studies = optuna_studies(folder)
    assert len(studies) == 2
    for study in studies.values():
        assert study.metric_names == ["gain of the blend, KL >=10"]
        assert study.user_attrs["objective"] == "gain of the blend, KL >=10"


def test_the_title_of_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/usr/bin/hms-ray", "sweep", "my space.yaml", "--data", "hms"]
    monkeypatch.setattr("sys.argv", words)
    folder = make_study(tmp_path, "one")
    title = study_title(folder, {"data": "/data/hms", "simulated": False})
    assert title.name == "one"
    assert title.attributes == {
        "study": "one",
        "command": "hms-ray sweep 'my space.yaml' --data hms",
        "rows": folder.identity["data"]["rows"],
        "data": "/data/hms",
        "simulated": False,
    }


def test_the_printed_command_opens_a_copy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_study(tmp_path, "my study")
    add_trials(study, range(2))
    Proposals(make_space(LEARNING_RATE), study.journal, title=TITLE)
    before = study.journal.read_bytes()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t m p"))
    (tmp_path / "t m p").mkdir()
    programs = tmp_path / "bin"
    programs.mkdir()
    dashboard = programs / "optuna-dashboard"
    # Stands for the program: it is no dependency.
    dashboard.write_text('#!/bin/sh\nprintf "%s" "$1" > "$OPENED"\n')
    dashboard.chmod(0o755)
    print_views(study.name, study.path.parent)
    curves, search = capsys.readouterr().out.splitlines()
    assert curves.startswith("curves: hms-ray board 'my study' --results ")
    found = re.fullmatch(r"search \(pip install optuna-dashboard\): (.*)", search)
    assert found is not None
    shell = shutil.which("sh") or "sh"
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "OPENED": str(tmp_path / "opened")}
    subprocess.run([shell, "-c", found[1]], check=True, env=environment)
    copy = Path((tmp_path / "opened").read_text())
    assert copy.parent == tmp_path / "t m p"
    shown = optuna_study(copy)
    assert shown.study_name == "first"
    # What a person does there stays there.
    shown.set_user_attr("dashboard:note", "good")
    shown.enqueue_trial({"training.learning_rate": 1e-3})
    assert study.journal.read_bytes() == before
