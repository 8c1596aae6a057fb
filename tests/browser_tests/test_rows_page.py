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
    page.wait_for_function(
        "name => [...document.querySelectorAll('#rows td:nth-child(2)')]"
        ".every((cell) => cell.textContent === name)",
        arg=many[0]["class"],
    )
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


SYNTHETIC = """uv => {
  const canvas = document.getElementById("eeg"), points = 2000;
  const values = new Float32Array(about.channels.length * points);
  for (let n = 400; n < 600; n++) values[n] = uv;  // of Fp1-F7, from 2 s to 3 s
  const eeg = { start_s: 10, seconds: 10, point_s: 1 / 200, points, values, gaps: [] };
  const row = { labels: [], window_s: [-10, 40] };
  drawEeg(canvas, eeg, row, about.channels, about.groups, 10);
  const ratio = canvas.width / canvas.clientWidth, pen = canvas.getContext("2d");
  const isInk = (x, y) => {
    const [r, g, b, a] = pen.getImageData(Math.round(x * ratio), Math.round(y * ratio), 1, 1).data;
    return a > 60 && r + g + b < 150;
  };
  const plot = canvas.clientWidth - 10 - 72;
  const heights = (second) => {
    const x = 72 + plot * second / 10 + 0.5 * plot / 2000;
    for (let y = 24; y < canvas.clientHeight; y += 0.5) if (isInk(x, y)) return y;
  };
  return [1.5, 1.98, 2.02, 2.5, 2.98, 3.02].map(heights);
}"""


def test_traces_are_calibrated_and_negative_is_up(page: "Page", address: str) -> None:
    opened(page, address)
    assert "Negative up. 10 \u00b5V/mm" in page.inner_text("#eeg-caption")
    flat = page.evaluate(SYNTHETIC, 0)
    assert max(flat) - min(flat) <= 1
    for uv in (-50, 20):
        found = page.evaluate(SYNTHETIC, uv)
        # A CSS millimetre has 96 / 25.4 pixels; positive microvolts go down, negative ones up.
        moved = uv * 96 / 25.4 / 10
        for height, expected in zip(found, [0, 0, moved, moved, moved, 0], strict=True):
            assert height - flat[0] == pytest.approx(expected, abs=1), (uv, found)


def test_missing_signal_is_shaded(page: "Page", address: str, browser_of_rows: RowBrowser) -> None:
    opened(page, address)
    rows = browser_of_rows.table.rows
    for has_gap in (True, False):
        # Missing are the samples 1,000 to 1,200 of some EEGs.
        ids = rows["row_id"][((rows["eeg_id"] % 3 == 0) & (rows["eeg_start"] < 1_000)) == has_gap]
        page.evaluate("row => go(row)", ids.iloc[-1])
        wait_drawn(page, ids.iloc[-1])
        if page.input_value("#span") != "50":
            page.keyboard.press("t")
            page.wait_for_function("drawn.eeg.seconds === 50")
        shaded = page.evaluate(
            """() => {
              const canvas = document.getElementById("eeg"), [r, g, b] = rgb(colour("gap"));
              const all = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              let count = 0;
              for (let n = 0; n < all.data.length; n += 4) {
                count += all.data[n] === r && all.data[n + 1] === g && all.data[n + 2] === b;
              }
              return count;
            }"""
        )
        assert (shaded > 200) == has_gap
