"""Views of an input, written as text: pictures of sources, joined or alone."""

from __future__ import annotations

from typing import Final, NamedTuple

PICTURES: Final[dict[str, tuple[str, ...]]] = {
    "kaggle": ("panels", "statistics", "percentiles"),
    "eeg": ("panels", "statistics", "percentiles"),
    "pairs": ("panels",),
    "raw": ("signals",),
}
"""Source -> its pictures (see ``transforms.views``). Statistics over the panels of the
chains describe a place on the head; over single pairs they would not."""


JOINS: Final = ("over", "in")
_JOINED_PICTURES: Final = ("panels", "signals")


class View(NamedTuple):
    """A picture of a source, or of several recipes of one, panel by panel.

    Attributes:
        sources: names such as ``eeg`` and ``pairs.centre``; one, if nothing is joined.
        join: ``over``: the parts of a panel lie under each other; ``in``: the first source
            takes the place of the second one's middle.
        picture: one of ``PICTURES``.
    """

    sources: tuple[str, ...]
    join: str
    picture: str

    def __str__(self) -> str:
        return f"{f' {self.join} '.join(self.sources)} {self.picture}"


def kind_of_source(source: str) -> str:
    """The source of a recipe's name: ``eeg`` of ``eeg`` and of ``eeg.centre``."""
    return source.partition(".")[0]


def parse_view(text: str) -> View:
    """A view from its text.

    ``SOURCE PICTURE``, ``PICTURE`` of the source kaggle, ``A over B PICTURE`` with two or more
    sources, or ``A in B PICTURE``.

    Raises:
        ValueError: if the source is unknown or does not have the picture, or sources cannot
            be joined.
    """
    *words, picture = text.split() or [""]
    sources, joins = tuple(words[::2]) or ("kaggle",), set(words[1::2])
    kinds = {kind_of_source(source) for source in sources}
    sound = picture and (not words or len(words) % 2 == 1)
    if not (sound and kinds <= PICTURES.keys() and joins <= set(JOINS)):
        raise ValueError(
            f"a view must be SOURCE PICTURE with the source {', '.join(PICTURES)} "
            "(default: kaggle); A over B PICTURE; or A in B PICTURE, A and B of one source"
        )
    for kind in sorted(kinds):
        if picture not in PICTURES[kind]:
            others = [name for name, pictures in PICTURES.items() if picture in pictures]
            raise ValueError(
                f"a picture of {kind} must be one of {', '.join(PICTURES[kind])}"
                + (f" ({picture} belongs to {', '.join(others)})" if others else "")
            )
    join = words[1] if joins else ""
    if joins:
        _check_join(sources, joins, picture)
    return View(sources, join, picture)


def _check_join(sources: tuple[str, ...], joins: set[str], picture: str) -> None:
    kinds = {kind_of_source(source) for source in sources}
    if len(kinds) > 1 or "kaggle" in kinds or len(set(sources)) < len(sources):
        raise ValueError("a view can only join different recipes of one source: eeg, pairs or raw")
    if picture not in _JOINED_PICTURES:
        raise ValueError(f"only {' and '.join(_JOINED_PICTURES)} can be joined, got {picture}")
    if len(joins) > 1 or (joins == {"in"} and len(sources) > 2):
        raise ValueError("a view must join any number of sources by over, or two by in")
