"""Tables for terminals of any width, and in Markdown."""

from __future__ import annotations

import pytest

from hms_ray.display.tables import (
    NO_BREAK,
    PIPE_WIDTH,
    Column,
    Table,
    output_width,
    to_markdown,
    to_text,
)

NAME = "eeg_statistics_of_all_panels_with_global_norms_5u"
DIFFERENCE = f"-0.0146 [-0.0198,{NO_BREAK}-0.0093] better"
TABLE = Table(
    "Differences",
    (
        Column("step", [NAME, "b"], right=False),
        Column("KL all", [DIFFERENCE, "-"]),
        Column("baseline", ["0_panels", "a"], right=False, optional=True),
        Column("minutes", ["1234.5", "2.0"], optional=True),
    ),
    ("tie: the interval contains 0.",),
)


def test_wide_table_has_one_line_per_row() -> None:
    lines = to_text(TABLE, width=130).splitlines()
    assert lines[0] == "Differences"
    assert lines[1].split() == ["step", "KL", "all", "baseline", "minutes"]
    assert lines[3].split("  ") == [NAME, DIFFERENCE.replace(NO_BREAK, " "), "0_panels", " 1234.5"]
    assert lines[-1] == "tie: the interval contains 0."


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_narrow_table_wraps_cells_and_keeps_every_character(width: int) -> None:
    text = to_text(TABLE, width=width)
    assert max(map(len, text.splitlines())) <= width
    folded = "".join(line.split(" ")[0] for line in text.splitlines()[3:])
    assert NAME in folded
    assert "[-0.0198, -0.0093]" in text
    assert ("Not shown at this width" in text) == ("1234.5" not in text)


def test_last_optional_columns_are_omitted_first() -> None:
    text = to_text(TABLE, width=50)
    assert "0_panels" in text
    assert text.endswith("Not shown at this width: minutes.")
    assert to_text(TABLE, width=36).endswith("Not shown at this width: baseline,\nminutes.")


def test_spare_columns_are_shown_where_no_cell_is_wrapped_for_them() -> None:
    columns = (
        Column("KL", ["0.5000"]),
        Column("KL recalibrated", ["0.4000"], optional=True, spare=True),
        Column("state", ["pruned, estimate 0.4690"], right=False),
    )
    shown = Table("", columns)
    whole = len("0.5000  recalibrated  pruned, estimate 0.4690")
    wide = to_text(shown, width=whole)
    assert wide.splitlines()[-1] == "0.5000        0.4000  pruned, estimate 0.4690"
    narrow = to_text(shown, width=whole - 1)
    assert "pruned, estimate 0.4690" in narrow
    assert "Not shown at this width: KL recalibrated." in narrow


def test_markup_of_rich_is_plain_text() -> None:
    cell = Table("[red]", (Column("[bold]a[/bold]", ["[1, 2]"]),))
    assert to_text("[green]b[/green]", cell, width=80).splitlines()[0] == "[green]b[/green]"
    assert "[bold]a[/bold]" in to_text(cell, width=80)
    assert "[1, 2]" in to_text(cell, width=80)


def test_empty_paragraphs_are_skipped() -> None:
    assert to_text("a", "", "b", width=80) == "a\n\nb"


def test_pipe_has_a_wide_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert output_width() == PIPE_WIDTH
    monkeypatch.setenv("COLUMNS", "60")
    assert output_width() == 60


def test_markdown_escapes_markup() -> None:
    table = Table(
        "t", (Column("a|b", ["x_y\n`c` [d]"], right=False), Column("n", ["1*"])), ("<n>",)
    )
    assert to_markdown(table) == [
        *("## t", "", "| a\\|b | n |", "| --- | ---: |"),
        *("| x\\_y \\`c\\` \\[d\\] | 1\\* |", "", "\\<n\\>"),
    ]
