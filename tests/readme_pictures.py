"""The README's pictures, made from the demo's results: ``python -m tests.readme_pictures``.

Run ``make demo`` first. The pictures are committed in ``results/pictures``; they show simulated
data, which each of them says. Each records the demo's search space: if that changes, a test asks
for new pictures.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import yaml
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from hms_ray.competition.schema import CLASSES
from hms_ray.report.loopback import running
from hms_ray.report.rows_app import RowApp, RowBrowser, row_address
from hms_ray.report.rows_files import answers_of
from hms_ray.report.rows_page import page_file, script_json
from hms_ray.storage.folder_names import STORE_NAME
from hms_ray.storage.hashing import digest
from hms_ray.study.folder import StudyFolder
from tests.browser import checked_page, started_browser

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MAX_BYTES: Final = 1_500_000
"""Of all pictures together."""
PLACE: Final = Path(__file__).parents[1] / "results" / "pictures"
DEMO_SPACE: Final = Path(__file__).parents[1] / "search_spaces" / "demo.yaml"
DEMO_KEY: Final = "demo"
"""Key of ``demo_fingerprint`` in a picture's texts."""
COLOURS: Final = 256
_STUDY, _DATA = "demo", ".demo"
_CHARTS_MS: Final = 2_000
"""Charts are drawn when they come into view."""
_ENOUGH_VOTES: Final = ">=10"


@dataclass(frozen=True)
class Demo:
    """The demo's results, in a folder in which commands may write."""

    place: Path
    browser: Browser

    @property
    def results(self) -> Path:
        return self.place / "results"

    @property
    def study(self) -> StudyFolder:
        return StudyFolder.open(_STUDY, self.results)

    def run(self, *words: str) -> str:
        """What a command prints that runs in the folder."""
        with self.started(*words) as process:
            text = process.communicate()[0]
        assert process.returncode == 0, (words, text)
        return text

    def started(self, *words: str) -> subprocess.Popen[str]:
        """A command that was started in the folder."""
        return subprocess.Popen(
            [sys.executable, "-m", "hms_ray", *words],
            cwd=self.place,
            env={**os.environ, "COLUMNS": "100", "PYTHONPATH": str(Path.cwd())},
            stdout=subprocess.PIPE,
            text=True,
        )

    def rows(self) -> RowBrowser:
        return RowBrowser(self.study, self.results / _DATA)

    @contextmanager
    def page(self, width: int, height: int, scale: float = 1.5) -> Iterator[Page]:
        """A page of some CSS pixels, light."""
        size = {"width": width, "height": height}
        with checked_page(
            self.browser, viewport=size, device_scale_factor=scale, color_scheme="light"
        ) as page:
            yield page


def banner(demo: Demo) -> tuple[bytes, str]:
    """An EEG, the experts' votes and the best trial's shares."""
    rows = demo.rows()
    row = _typical_row(rows)
    content = {"about": rows.about(), "answers": answers_of(rows, row), "row": row}
    text = f"""<!doctype html><meta charset="utf-8">
<style>{page_file("rows.css")}{_BANNER_STYLE}</style>
<canvas id="eeg"></canvas><div><h2>How would experts vote?</h2><table id="votes"></table></div>
<script type="application/json" id="content">{script_json(content)}</script>
<script>{page_file("rows_draw.js")}{_BANNER_SCRIPT}</script>"""
    with demo.page(1200, 500) as page:
        page.set_content(text)
        return page.screenshot(), "An EEG, the votes of experts and a model's shares"


_BANNER_STYLE: Final = """
body { display: grid; grid-template-columns: 1fr 330px; gap: 26px; padding: 8px 18px 4px 4px; }
#eeg { height: 488px; }
body > div { align-self: center; }
h2 { display: block; margin: 14px 0 10px; font-size: 18px; }
td, th { text-align: left; padding: 3px 8px 3px 0; font-size: 14px; }
td { width: 120px; }
thead th { color: var(--soft); font-weight: 400; font-size: 13px; }
"""
_BANNER_SCRIPT: Final = """
const { about, answers } = JSON.parse(document.getElementById("content").textContent);
const eeg = answers.eeg[10], model = answers.row.models[0];
eeg.values = new Float32Array(decoded(eeg.values).buffer);
answers.row.labels = [];
const scale = ownSensitivity(eeg.values.subarray(0, 18 * eeg.points), 40); // without the EKG
drawEeg(document.getElementById("eeg"), eeg, answers.row, about.channels, about.groups, scale);
const bar = (share, text, colour) => `<span class=share><i style="width:${100 * share}%;`
  + `background:var(--${colour})"></i><span>${text}</span></span>`;
document.getElementById("votes").innerHTML =
  `<thead><tr><th><th>${answers.row.votes} experts<th>model</thead>`
  + about.classes.map((name, n) => `<tr><th>${name}`
    + `<td>${bar(answers.row.truth[n], answers.row.vote_counts[n], "strong")}`
    + `<td>${bar(model.shares[n], model.shares[n].toFixed(2), "bar")}`).join("");
"""


def _typical_row(rows: RowBrowser) -> str:
    """A row of many votes, most of them for LPD, whose shares the model predicts best."""
    table = rows.table
    targets = np.stack([table.details(str(row))["truth"] for row in table.rows["row_id"]])
    periodic = table.classes == CLASSES.index("LPD")
    fits = periodic & (table.rows["total_votes"].to_numpy() >= 10)
    fits &= (targets.max(axis=1) >= 0.6) & (targets.max(axis=1) <= 0.9)
    loss = np.where(fits, table.models[0].loss, np.inf)
    return str(table.rows["row_id"].iloc[int(loss.argmin())])


def last_screen(demo: Demo) -> tuple[bytes, str]:
    """What the last two commands of the demo print."""
    lines = []
    for words in (("blend", _STUDY), ("oracle", f"results/{_DATA}", "--study", _STUDY)):
        lines += [f"<b>$ hms-ray {' '.join(words)}</b>", html.escape(demo.run(*words))]
    text = f"<meta charset=utf-8><style>{_TERMINAL_STYLE}</style><pre>{chr(10).join(lines)}</pre>"
    with demo.page(800, 400) as page:
        page.set_content(text)
        return page.screenshot(full_page=True), "The end of make demo"


_TERMINAL_STYLE: Final = """
body { margin: 0; background: #16181d; color: #d8dbe2; }
pre { margin: 14px 18px; font: 12.5px/1.28 "DejaVu Sans Mono", monospace; }
b { color: #8fd18f; font-weight: 400; }
"""


def row_browser(demo: Demo) -> tuple[bytes, str]:
    """The row browser with the largest loss among rows of many votes."""
    rows = demo.rows()
    worst = rows.page({"votes": _ENOUGH_VOTES})["rows"][0]["id"]
    with running(RowApp(rows)) as address, demo.page(1360, 1450, 1) as page:
        page.goto(address + row_address(worst))
        page.wait_for_selector("body[data-milliseconds]")
        page.select_option("#votes", _ENOUGH_VOTES)
        page.wait_for_function("document.querySelector('#rows tr[aria-current]')?.rowIndex === 1")
        page.evaluate("document.getElementById('eeg').style.height = '37rem'; draw()")
        return page.screenshot(), "hms-ray rows demo"


def report(demo: Demo) -> tuple[bytes, str]:
    """The report: its first view and the confusion of vote shares."""
    demo.run("report", _STUDY)
    with demo.page(_REPORT_WIDTH, 1000, 1) as page:
        page.goto((demo.study.path / "report.html").as_uri())
        parts = [_section(page, "Study", "Progress")]
        page.locator("nav").evaluate("contents => { contents.style.visibility = 'hidden'; }")
        parts.append(_section(page, "Confusion", "Reliability"))
    images = [Image.open(io.BytesIO(part)) for part in parts]
    joined = Image.new("RGB", (images[0].width, sum(image.height for image in images)), "white")
    joined.paste(images[0])
    joined.paste(images[1], (0, images[0].height))
    packed = io.BytesIO()
    joined.save(packed, "PNG")
    return packed.getvalue(), "hms-ray report demo: two of its views"


_REPORT_WIDTH: Final = 1440


def _section(page: Page, first: str, after: str) -> bytes:
    """The page from the heading that begins with a text to another one, charts drawn."""
    begin, end = (page.locator("h1, h2").filter(has_text=text).first for text in (first, after))
    begin.evaluate("heading => scrollTo(0, scrollY + heading.getBoundingClientRect().top - 16)")
    page.wait_for_timeout(_CHARTS_MS)
    sizes = [heading.bounding_box() for heading in (begin, end)]
    assert sizes[0] is not None
    assert sizes[1] is not None
    top = max(0.0, sizes[0]["y"] - 16)
    clip = {"x": 0, "y": top, "width": _REPORT_WIDTH, "height": sizes[1]["y"] - 20 - top}
    return page.screenshot(clip=clip)  # type: ignore[arg-type]


def tensorboard(demo: Demo) -> tuple[bytes, str]:
    """TensorBoard as ``hms-ray board`` opens it, without the settings."""
    with demo.started("board", _STUDY) as process, demo.page(1040, 1120, 1) as page:
        assert process.stdout is not None
        address = next(line.strip() for line in process.stdout if line.startswith("http://"))
        page.goto(address)
        page.locator("metrics-pinned-view card-view line-chart").first.wait_for()
        page.get_by_role("button", name="Settings").last.click()
        # The group of the pinned chart is folded away.
        page.locator("metrics-card-group-toolbar button").first.click()
        page.wait_for_timeout(2 * _CHARTS_MS)
        picture = page.screenshot()
        process.send_signal(signal.SIGINT)
    return picture, "hms-ray board demo"


PICTURES: Final[dict[str, Callable[[Demo], tuple[bytes, str]]]] = {
    "banner": banner,
    "last_screen": last_screen,
    "report": report,
    "tensorboard": tensorboard,
    "rows": row_browser,
}
"""Name of a picture -> makes it: PNG, and its caption."""


def demo_fingerprint() -> str:
    """Hash of the content of the demo's search space, without comments and defaults."""
    return digest(yaml.safe_load(DEMO_SPACE.read_text(encoding="utf-8")))


def finished(png: bytes, caption: str) -> bytes:
    """The picture with a frame and a caption, in few colours."""
    image = Image.open(io.BytesIO(png)).convert("RGB")
    size = round(image.width / 90)
    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
    framed = Image.new("RGB", (image.width + 2, image.height + 2 * size + 3), "#d5d9e0")
    framed.paste(image, (1, 1))
    drawing = ImageDraw.Draw(framed)
    bar = (1, image.height + 2, image.width, framed.height - 2)
    drawing.rectangle(bar, fill="#f5f6f8")
    place = (size // 2, image.height + 2 + size)
    drawing.text(place, f"{caption}; simulated data", fill="#5b6270", font=font, anchor="lm")
    few = framed.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    packed = io.BytesIO()
    record = PngInfo()
    record.add_text(DEMO_KEY, demo_fingerprint())
    few.save(packed, "PNG", optimize=True, pnginfo=record)
    return packed.getvalue()


@contextmanager
def demo_copy(results: Path) -> Iterator[Path]:
    """A folder with a copy of the demo's study and links to its data and the fold store."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        shutil.copytree(results / _STUDY, place / "results" / _STUDY)
        # Only read: a command that trains would write into the store.
        for name in (_DATA, STORE_NAME):
            (place / "results" / name).symlink_to((results / name).resolve())
        yield place


def make_pictures(results: Path, out: Path, names: list[str]) -> int:
    """Writes the named pictures and returns the bytes of all in the folder."""
    out.mkdir(parents=True, exist_ok=True)
    with demo_copy(results) as place, started_browser() as browser:
        for name in names:
            picture = finished(*PICTURES[name](Demo(place, browser)))
            (out / f"{name}.png").write_bytes(picture)
            print(f"{out / name}.png: {len(picture) / 1e3:.0f} kB")
    return sum(file.stat().st_size for file in out.glob("*.png"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *PICTURES], default=[])
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("--out", type=Path, default=PLACE)
    given: Any = parser.parse_args()
    total = make_pictures(given.results, given.out, given.names or list(PICTURES))
    print(json.dumps({"bytes": total, "most": MAX_BYTES}))
    return int(total > MAX_BYTES)


if __name__ == "__main__":
    sys.exit(main())
