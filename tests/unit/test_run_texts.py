"""Texts of a run, as TensorBoard shows their Markdown."""

from __future__ import annotations

import html
import re
import warnings

import pytest

from hms_ray.display.run_texts import (
    CONFIGURATION,
    STAGES,
    difference_text,
    environment_text,
    experiment_texts,
    plain,
)
from hms_ray.storage.structured_files import yaml_text
from tests.stage_sharing import GOOD, NOISY, staged


def shown(text: str) -> str:
    """The page's HTML of a text."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from tensorboard.plugin_util import markdown_to_safe_html
    return markdown_to_safe_html(text)


def cells(text: str) -> list[list[str]]:
    """Rows of the table of a text as it is shown."""
    rows = re.findall(r"<tr>(.*?)</tr>", shown(text), re.DOTALL)
    found = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return [[html.unescape(cell) for cell in row] for row in found]


@pytest.mark.parametrize(
    "text", ["a|b", "*x* _y_", "<script>alert(1)</script>", "[x](http://y)", "`c` # d", "a\n\nb"]
)
def test_plain_texts_are_shown_as_they_are(text: str) -> None:
    body = shown(plain(text)).removeprefix("<p>").removesuffix("</p>")
    assert "<" not in body
    assert html.unescape(body) == " ".join(text.split())


def test_difference_names_what_differs_alone() -> None:
    best = {"training.loss": "kl", "training.learning_rate": 0.001, "model": "a"}
    values = {"training.loss": "kl", "training.learning_rate": 1 / 3000, "weight": "<b>|x"}
    text = difference_text(values, best, "0007", "KL >=10 0.6026")
    assert "Best trial so far: 0007, KL &gt;=10 0.6026." in shown(text)
    assert cells(text) == [
        ["value", "best trial", "this trial"],
        ["training.learning_rate", "0.001", "0.000333333"],
        ["weight", "", "<b>|x"],
        ["model", "a", ""],
    ]
    assert difference_text(best, best, "0007", "KL all 1").endswith("It has the same values.")


def test_stages_name_their_steps() -> None:
    experiment = staged({**NOISY, "name": "a|b"}, GOOD)
    losses = [stage.loss for stage in experiment.training.resolved_stages()]
    assert cells(experiment_texts(experiment)[STAGES])[1:] == [
        ["0", "a|b", "below_threshold", losses[0], "1", "0 to 1000"],
        ["1", "good", "at_least_threshold", losses[1], "2", "1000 to 3000"],
    ]


def test_configuration_is_the_resolved_one_and_cannot_end_its_block() -> None:
    experiment = staged({**NOISY, "name": "```\n\n</code><b>x</b>"}, GOOD)
    page = shown(experiment_texts(experiment)[CONFIGURATION])
    assert page.count("<code>") == 1
    assert "<b>" not in page
    code = page.split("<code>")[1].split("</code>")[0]
    described = yaml_text({"experiment": experiment.model_dump(mode="json")})
    assert html.unescape(code).strip() == described.strip()


def test_environment_is_one_column_for_equal_machines() -> None:
    one = {"torch": "2.15.0+cu130", "cuda": "13.0", "device": "H200", "threads": 4}
    other = {"torch": "2.15.0", "cuda": None, "device": "x86_64", "threads": 4}
    assert cells(environment_text({0: one, 1: one}))[0] == ["", "fold 0, 1"]
    command = {
        "hms_ray": "1.0",
        "packages": {"torch": "2.15.0", "ray": "2.60"},
        "cluster": {"a": 1},
    }
    assert cells(environment_text({0: other}, command)) == [
        ["", "fold 0", "command"],
        ["torch", "2.15.0", "2.15.0"],
        ["device", "x86_64", ""],
        ["threads", "4", ""],
        ["hms_ray", "", "1.0"],
        ["ray", "", "2.60"],
    ]
    assert cells(environment_text({2: one, 0: one, 1: other})) == [
        ["", "fold 0, 2", "fold 1"],
        ["torch", "2.15.0+cu130", "2.15.0"],
        ["cuda", "13.0", ""],
        ["device", "H200", "x86_64"],
        ["threads", "4", "4"],
    ]
