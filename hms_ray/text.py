"""Counts in words, as every command prints them."""

from __future__ import annotations


def counted(n: float, what: str) -> str:
    """A count with its noun, such as ``1 row``, ``1,200 rows`` and ``0.5 GPUs``.

    Args:
        n: how many.
        what: the noun for one of them; its plural ends in s.
    """
    number = f"{int(n):,}" if n == int(n) else f"{n:g}"
    return f"{number} {what}" + ("" if n == 1 else "s")
