"""Counts in words."""

import pytest

from hms_ray.text import counted


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 GPUs"), (1, "1 GPU"), (1.0, "1 GPU"), (0.5, "0.5 GPUs"), (1_200_000, "1,200,000 GPUs")],
)
def test_a_count_and_its_noun_agree(n: float, text: str) -> None:
    assert counted(n, "GPU") == text
