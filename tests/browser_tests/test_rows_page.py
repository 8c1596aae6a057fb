"""The row browser in a browser: paging, sorting, filters, addresses, files."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hms_ray.report import rows_table
from hms_ray.report.loopback import running
from hms_ray.report.rows_app import RowApp, RowBrowser, row_address
from hms_ray.report.rows_files import write_row_files
from hms_ray.study.folder import StudyFolder
from tests.row_study import make_row_study, study_rows

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=alert(1)>"
PAGE_ROWS = 3


@pytest.fixture(scope="module")
def study(two_patients_with_eegs: Path, tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A study whose name and first row id are HTML."""
    rows = study_rows(two_patients_with_eegs)
    rows["row_id"] = [f"{EVIL}-0", *rows["row_id"][1:]]
    study = make_row_study(tmp_path_factory.mktemp("study"), two_patients_with_eegs, rows=rows)
    return StudyFolder(study.path.rename(study.path.with_name(EVIL)))


@pytest.fixture(scope="module")
def browser_of_rows(study: StudyFolder) -> RowBrowser:
    return RowBrowser(study)


@pytest.fixture(scope="module")
def address(browser_of_rows: RowBrowser) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, running(RowApp(browser_of_rows)) as found:
        patch.setattr(rows_table, "PAGE_ROWS", PAGE_ROWS)
        yield found


def opened(page: "Page", url: str) -> None:
    page.goto(url)
    page.wait_for_selector("body[data-drawn]")


def wait_drawn(page: "Page", row: str) -> None:
    page.wait_for_function(
        "row => document.body.dataset.drawn === row"
        " && new URLSearchParams(location.hash.slice(1)).get('row') === row",
        arg=row,
    )


def listed(page: "Page") -> list[str]:
    return page.locator("#rows tr td:first-child").all_inner_texts()


def picture(page: "Page", canvas: str = "#eeg") -> str:
    return str(page.locator(canvas).evaluate("canvas => canvas.toDataURL()"))


def test_rows_are_paged_by_keyboard(
    page: "Page", address: str, browser_of_rows: RowBrowser
) -> None:
    order = [row["id"] for row in _all(browser_of_rows)]
    opened(page, address)
    wait_drawn(page, order[0])
    seen = {picture(page)}
    for number, key in ((1, "j"), (2, "ArrowDown"), (3, "j"), (2, "k"), (1, "ArrowUp")):
        page.keyboard.press(key)
        wait_drawn(page, order[number])
        seen.add(picture(page))
        first = number - number % PAGE_ROWS
        assert listed(page) == order[first : first + PAGE_ROWS]
        current = page.locator("#rows tr[aria-current]")
        assert current.locator("td").first.inner_text() == order[number]
        assert page.locator("#title").inner_text() == f"Row {order[number]}"
    assert len(seen) == 4
    page.keyboard.press("]")
    wait_drawn(page, order[PAGE_ROWS])
    page.keyboard.press("[")
    wait_drawn(page, order[0])
    page.keyboard.press("k")  # there is no row before the first one
    assert page.locator("#place").inner_text().endswith(f"of {len(order)}")


def _all(browser: RowBrowser, **query: str) -> list[dict[str, object]]:
    """All rows in the order of a list."""
    pages = browser.page(query)["pages"]
    return [row for n in range(pages) for row in browser.page({**query, "page": str(n)})["rows"]]


def test_list_is_sorted_and_filtered(
    page: "Page", address: str, browser_of_rows: RowBrowser
) -> None:
    opened(page, address)
    for sort, first in (("votes", "1"), ("disagreement", "1"), ("class", "0"), ("loss", "1")):
        for descending in (first, "10"[int(first)]):
            page.click(f"#list th[data-sort={sort}] button")
            order = [
                str(row["id"]) for row in _all(browser_of_rows, sort=sort, descending=descending)
            ]
            wait_drawn(page, order[0])
            assert listed(page) == order[:PAGE_ROWS]
            word = "descending" if descending == "1" else "ascending"
            assert page.get_attribute(f"#list th[data-sort={sort}]", "aria-sort") == word
    page.select_option("#votes", ">=10")
    many = _all(browser_of_rows, votes=">=10", descending="0")
    wait_drawn(page, str(many[0]["id"]))
    assert page.locator("#place").inner_text().endswith(f"of {len(many)}")
    current = page.locator("#rows tr[aria-current]")
    assert current.locator("td").first.inner_text() == many[0]["id"]
    page.select_option("#class", str(many[0]["class"]))
    assert {row["class"] for row in _all(browser_of_rows)} > {many[0]["class"]}
    page.wait_for_function("n => document.querySelectorAll('#rows tr').length <= n", arg=len(many))
    assert set(page.locator("#rows td:nth-child(2)").all_inner_texts()) == {many[0]["class"]}
    # The row that is shown already is still the current one of the new list.
    assert current.locator("td").first.inner_text() == many[0]["id"]


def test_filters_window_and_sensitivity_change_the_traces(page: "Page", address: str) -> None:
    opened(page, address)
    seen = [picture(page)]

    def changed(act: object) -> None:
        act()  # type: ignore[operator]
        page.wait_for_function(
            "before => document.getElementById('eeg').toDataURL() !== before", arg=seen[-1]
        )
        seen.append(picture(page))

    changed(lambda: page.select_option("#low_pass", "15"))
    changed(lambda: page.select_option("#high_pass", "5"))
    changed(lambda: page.keyboard.press("+"))
    # Keys within a select choose there; after a choice with the mouse they are the page's.
    page.focus("#class")
    page.keyboard.press("t")
    assert page.input_value("#span") == "10"
    page.locator("#class").dispatch_event("pointerdown")
    page.locator("#class").dispatch_event("change")
    changed(lambda: page.keyboard.press("t"))
    assert page.input_value("#span") == "50"
    changed(lambda: page.keyboard.press("f"))
    assert page.input_value("#low_pass") == "0"
    changed(lambda: page.keyboard.press("f"))
    assert page.input_value("#low_pass") == "70"
    assert "from 0.5 Hz to 70 Hz without 60 Hz" in page.inner_text("#eeg-caption")


def test_address_names_the_row(page: "Page", address: str, browser_of_rows: RowBrowser) -> None:
    order = [str(row["id"]) for row in _all(browser_of_rows)]
    opened(page, address + row_address(order[4]))
    wait_drawn(page, order[4])
    assert order[4] in listed(page)
    details = browser_of_rows.row(order[4])
    cells = page.locator("#shares tr").nth(2).locator("td").all_inner_texts()
    assert cells[:-1] == [f"{share:.2f}" for share in details["models"][0]["shares"]]
    assert cells[-1] == f"{details['models'][0]['loss']:.3f}"
    page.goto(address + row_address("1-0"))
    page.wait_for_function("document.getElementById('problem').textContent")
    assert "the row must be one of the study's" in page.inner_text("#problem")
    assert not page.is_visible("#row")


def test_names_are_texts(page: "Page", address: str) -> None:
    opened(page, address + row_address(f"{EVIL}-0"))
    wait_drawn(page, f"{EVIL}-0")
    assert page.inner_text("#study") == EVIL
    assert page.inner_text("#title") == f"Row {EVIL}-0"
    assert page.locator("img").count() == 0


def test_next_row_is_drawn_in_half_a_second(
    page: "Page", address: str, browser_of_rows: RowBrowser
) -> None:
    order = [str(row["id"]) for row in _all(browser_of_rows)]
    opened(page, address)
    times = []
    for row in order[1:6]:
        page.keyboard.press("j")
        wait_drawn(page, row)
        times.append(int(page.get_attribute("body", "data-milliseconds") or "0"))
    print(f"milliseconds to the drawn row: {times}")
    assert sorted(times)[2] < 500


def test_missing_recordings_leave_votes_and_shares(
    page: "Page", study: StudyFolder, two_patients_with_eegs: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(two_patients_with_eegs, tmp_path / "data"))
    browser = RowBrowser(study, data)
    shutil.rmtree(data)
    with running(RowApp(browser)) as address:
        opened(page, address)
        assert "--data DIR" in page.inner_text("#eeg-problem")
        assert "--data DIR" in page.inner_text("#kaggle-problem")
        assert page.locator("#shares tr").count() == 5


def test_a_file_needs_no_server(page: "Page", browser_of_rows: RowBrowser, tmp_path: Path) -> None:
    row = str(_all(browser_of_rows)[1]["id"])
    (file,) = write_row_files(browser_of_rows, tmp_path, [row])
    opened(page, file.as_uri())
    assert page.inner_text("#title") == f"Row {row}"
    assert not page.is_visible("#list")
    assert not page.is_visible("#low_pass")
    short = picture(page)
    page.keyboard.press("t")
    page.wait_for_function("document.getElementById('span').value === '50'")
    assert picture(page) != short
    assert picture(page, "#kaggle") != picture(page, "#spectrum")
