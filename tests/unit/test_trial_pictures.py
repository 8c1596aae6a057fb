"""Pictures of a trial, looked at pixel by pixel where they make a promise."""

import io

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image

from hms_ray.display.trial_pictures import (
    WIDTH,
    ShownRow,
    batch_picture,
    confusion_picture,
    reliability_picture,
    rows_picture,
)
from hms_ray.evaluate.confusion import share_confusion
from hms_ray.evaluate.reliability import reliability

TRUE = np.array(to_rgb("#1b4f8a"))
PREDICTED = np.array(to_rgb("#e08214"))


def pixels(content: bytes) -> np.ndarray:
    """(H, W, 3) from 0 to 1."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) / 255


def longest(line: np.ndarray, colour: np.ndarray) -> int:
    """Pixels of a colour beside each other in a line."""
    hits = np.abs(line - colour).max(axis=1) < 0.03
    runs = np.split(hits, np.flatnonzero(np.diff(hits.astype(int))) + 1)
    return max((len(run) for run in runs if run[0]), default=0)


def test_bars_have_the_lengths_of_the_shares_and_differ_without_colour() -> None:
    true = np.array([1.0, 0, 0, 0, 0, 0])
    predicted = np.array([0, 0.5, 0.25, 0.25, 0, 0])
    shown = pixels(rows_picture("Title", "note", [ShownRow("row", true, predicted, None)]))
    body = shown[80:]
    assert max(longest(line, TRUE) for line in body) in range(118, 123)
    edges = [longest(line, PREDICTED) for line in body]
    assert max(edges) in range(58, 64)
    # Hatched: white is seen through a predicted bar, but not through a true one.
    top, left = int(np.argmax(edges)), 16 + 188 + 8 + 58
    hatched = body[top + 1 : top + 8, left + 2 : left + 58].min(axis=2)
    assert 0.2 < (hatched > 0.97).mean() < 0.9
    first = int(np.argmax([longest(line, TRUE) for line in body]))
    assert longest(body[first + 4], TRUE) > 115


def test_an_image_is_drawn_as_the_model_has_it() -> None:
    image = np.zeros((4, 8))
    image[0, :4] = 1.0
    with_image = ShownRow("row", np.full(6, 1 / 6), None, image)
    shown = pixels(rows_picture("Title", "note", [with_image]))
    # Left, top, width and height of the first image.
    left, top, width, height = 16, 86, 188, 136
    part = shown[top : top + height, left : left + width]
    bright = part[..., 0] > 0.9
    assert bright[2, 2]
    assert bright[:32, : width // 2 - 4].all()
    assert not bright[40:].any()
    assert not bright[:, width // 2 + 4 :].any()
    without = pixels(
        rows_picture("Title", "note", [ShownRow("row", np.full(6, 1 / 6), None, None)])
    )
    frame = without[top, left : left + width]
    assert np.abs(frame - 0.6).max() < 0.02


def test_the_size_follows_from_the_number_of_rows_and_a_place_can_stay_free() -> None:
    row = ShownRow("row", np.full(6, 1 / 6), np.full(6, 1 / 6), np.zeros((2, 2)))
    one, four = (pixels(rows_picture("T", "n", [row] * n)).shape for n in (1, 4))
    assert one[1] == four[1] == WIDTH
    assert four[0] - one[0] == 172
    gap = pixels(rows_picture("T", "n", [row, None, row]))
    assert gap[90:200, 410:790].min() == 1.0


def test_augmented_images_have_their_largest_shares_as_titles() -> None:
    images = np.random.default_rng(0).normal(size=(5, 8, 8))
    shown = pixels(batch_picture("Augmented", "note", images, np.eye(6)[:5]))
    assert shown.shape == (64 + 2 * 172 + 16, WIDTH, 3)


def test_statistics_with_empty_classes_and_bins_are_drawn() -> None:
    targets = np.eye(6)[[0, 0, 1]]
    predicted = np.full((3, 6), 1 / 6)
    confusion, found = share_confusion(targets, predicted), reliability(targets, predicted)
    assert np.isnan(confusion.shares).any()
    shown = pixels(confusion_picture("Confusion", "note", confusion.shares, confusion.ideal))
    assert shown.shape == (760, 900, 3)
    parts = found.predicted, found.true, found.counts, found.ece
    assert pixels(reliability_picture("Reliability", "note", *parts)).shape == (760, 1200, 3)
