"""The report in a headless Chromium: offline, sorted, brushed, dark, printed, escaped."""

import json
import re
from typing import TYPE_CHECKING

import pytest

from hms_ray.cli.main import main
from hms_ray.report.write import write_report
from hms_ray.study.folder import StudyFolder
from tests.browser import checked_page
from tests.large_study import Ends, write_large_study

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.browser

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
N_TRIALS = 10


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    results = tmp_path_factory.mktemp("results")
    ends = Ends(pruned=6, diverged=0, failed=7)
    made = write_large_study(results, n_trials=N_TRIALS, n_folds=3, n_rows=200, ends=ends)
    number = made.trial_numbers()[6]
    assert made.trial(number).reason.startswith("RuntimeError")  # type: ignore[union-attr]
    file = made.trial_path(number) / "result.json"
    content = json.loads(file.read_text())
    content["reason"] = EVIL
    file.write_text(json.dumps(content))
    (made.path / "blend").mkdir()
    blend = {
        "method": "simplex",
        "members": [{"name": EVIL}],
        "weights": {EVIL: 1.0},
        "nested": {"kl_10": 0.5},
        "in_sample": {"kl_10": 0.4},
        "fit_rows": "kl_10",
    }
    (made.path / "blend" / "blend.json").write_text(json.dumps(blend))
    return made


@pytest.fixture(scope="module")
def report(study: StudyFolder) -> str:
    """Address of the report of ``study``."""
    return write_report(study.path, study.path.parent).as_uri()


@pytest.fixture
def opened(page: "Page", report: str) -> "Page":
    page.goto(report)
    return page


def column(page: "Page", number: int) -> list[str]:
    """Cells of the leaderboard, from 1."""
    cells = page.locator(f"[aria-label='All trials, best first'] tbody td:nth-child({number})")
    return cells.all_text_contents()


def test_the_leaderboard_has_the_numbers_of_the_command_and_is_sorted_by_click_and_keyboard(
    opened: "Page", study: StudyFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["leaderboard", study.name, "--results", str(study.path.parent), "--json"])
    trials = json.loads(capsys.readouterr().out)["trials"]
    assert column(opened, 2) == [trial["trial"] for trial in trials]
    expected = ["-" if t["kl_10"] is None else f"{t['kl_10']:.4f}" for t in trials]
    assert column(opened, 3) == expected
    board = opened.locator("[aria-label='All trials, best first']")
    board.get_by_role("button", name="trial", exact=True).click()
    assert column(opened, 2) == sorted(trial["trial"] for trial in trials)
    assert board.locator("th[aria-sort='ascending']").inner_text().startswith("trial")
    board.get_by_role("button", name="learning_rate").focus()
    opened.keyboard.press("Enter")
    rates = [float(text) for text in column(opened, 11)]
    assert rates == sorted(rates)
    opened.keyboard.press("Space")
    assert [float(text) for text in column(opened, 11)] == rates[::-1]
    assert board.locator("th[aria-sort]").count() == 1
    # Trials without a score stay last in both directions.
    for _ in range(2):
        board.get_by_role("button", name="KL >=10", exact=True).click()
        assert [text == "-" for text in column(opened, 3)] == [False] * 8 + [True] * 2


def test_figures_are_drawn_when_they_come_into_view_and_texts_stay_texts(opened: "Page") -> None:
    dialogs: list[str] = []
    opened.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    plots = opened.locator(".plot")
    assert plots.count() >= 12
    assert plots.last.locator(".main-svg").count() == 0
    for number in range(plots.count()):
        plot = plots.nth(number)
        plot.scroll_into_view_if_needed()
        plot.locator(".main-svg").first.wait_for()
        assert plot.get_attribute("aria-label")
    # The name of the blend's member and the reason of a failure are HTML.
    assert EVIL in opened.locator("[aria-label='Faults met']").inner_text()
    weights = opened.locator(".plot[aria-label^='Weights of the blend']")
    assert weights.locator(".ytick text").first.text_content() == EVIL
    assert not dialogs
    assert opened.locator("img").count() == 0


def test_dragging_selects_and_zooms_and_a_list_shows_another_trial(opened: "Page") -> None:
    plot = opened.locator(".plot[aria-label^='Parallel coordinates']")
    plot.scroll_into_view_if_needed()
    axis = plot.locator(".axis-brush").nth(1)
    axis.wait_for()
    box = axis.bounding_box()
    assert box is not None
    middle = box["x"] + box["width"] / 2
    opened.mouse.move(middle, box["y"] + box["height"] * 0.7)
    opened.mouse.down()
    opened.mouse.move(middle, box["y"] + box["height"] * 0.5, steps=4)
    opened.mouse.move(middle, box["y"] + box["height"] * 0.3, steps=4)
    opened.mouse.up()
    kept = plot.evaluate("plot => plot.data[0].dimensions[1].constraintrange")
    low, high = plot.evaluate("plot => plot.data[0].dimensions[1].range")
    assert kept is not None
    assert low < kept[0] < kept[1] < high
    plot = opened.locator(".plot[aria-label*='of each fold of one trial']")
    plot.scroll_into_view_if_needed()
    plot.locator(".nsewdrag").first.wait_for()
    box = plot.locator(".nsewdrag").first.bounding_box()
    assert box is not None
    opened.mouse.move(box["x"] + 50, box["y"] + 50)
    opened.mouse.down()
    opened.mouse.move(box["x"] + 250, box["y"] + 150, steps=4)
    opened.mouse.up()
    opened.wait_for_function("plot => plot.layout.xaxis.range[1] < 8", arg=plot.element_handle())
    first = plot.evaluate("plot => [...plot.data[0].y]")
    choice = opened.get_by_label("show")
    choice.focus()
    opened.keyboard.press("ArrowDown")
    opened.wait_for_function(
        "([plot, first]) => plot.data[0].y[0] !== first",
        arg=[plot.element_handle(), first[0]],
    )
    assert "trial" in str(plot.get_attribute("aria-label")).rpartition(":")[2]


def test_dark_mode_and_print_reach_page_and_figures(browser: "Browser", report: str) -> None:
    with checked_page(browser, color_scheme="dark") as page:
        page.goto(report)
        plot = page.locator(".plot").first
        plot.scroll_into_view_if_needed()
        tick = plot.locator(".xtick text").first
        tick.wait_for()
        ground = "e => getComputedStyle(e).backgroundColor"
        colour = "e => getComputedStyle(e).fill"
        assert _brightness(page.locator("body").evaluate(ground)) < 50
        assert _brightness(tick.evaluate(colour)) > 200
        page.emulate_media(color_scheme="light")
        page.wait_for_function(
            "e => getComputedStyle(e.querySelector('.xtick text')).fill === 'rgb(27, 31, 36)'",
            arg=plot.element_handle(),
        )
        assert _brightness(page.locator("body").evaluate(ground)) > 250
        page.emulate_media(media="print", color_scheme="dark")
        page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every(p => p.querySelector('.main-svg'))"
        )
        assert not page.locator("nav").is_visible()
        assert _brightness(page.locator(".xtick text").first.evaluate(colour)) < 50


def _brightness(colour: str) -> float:
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3
