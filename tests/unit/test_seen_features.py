"""What experts see does not depend on how loud the scalp shows it."""

import numpy as np
import pytest

from hms_ray.simulate.background import Background
from hms_ray.simulate.patterns import Episode, Pattern
from hms_ray.simulate.plan import _features

POINTS = 600
PATTERN = Pattern(2.0, 2.0, 0.9, 0.8, -1, 0.1, 120.0, 0.25, 0.8, (0.75, 0.45), 0.5, 0.02)


@pytest.mark.parametrize(
    ("gain", "visibility"),
    [(0.5, 0.4833032639498394), (1.0, 0.691247418117823), (1.7, 0.8504358934364742)],
)
def test_fixed_features(gain: float, visibility: float) -> None:
    course = np.linspace(0, 1, POINTS)
    episode = Episode(
        PATTERN, 0, 2.0 * np.exp(0.3 * course), 0.6 + 0.5 * course, 0.8 - 0.2 * course
    )
    background = Background(gain, 1.5, 9.0, 3.0, 5.0, 1.0, 0.0)
    seen = _features(60.0, [episode], background, 1 - 0.4 * course)
    # Votes are calibrated on these: the signals may change, this may not.
    expected = [visibility, 0.1, 0.8431471805599453, 0.9, 0.7]
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-9)
