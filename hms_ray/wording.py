"""Counts in words, as every command prints them."""

from __future__ import annotations


def counted(n: int, what: str) -> str:
    """A count with its noun, such as ``1 row`` and ``1,200 rows``.

    Args:
        n: how many.
        what: the noun for one of them; its plural ends in s.
    """
    return f"{n:,} {what}" + ("" if n == 1 else "s")
