"""The error that a call must raise, so that tests can check its parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from hms_ray.errors import HmsRayError


def refused(call: Callable[..., object], *arguments: object, **named: object) -> HmsRayError:
    """The error of a call, with its rule, value, place and remedy."""
    with pytest.raises(HmsRayError) as caught:
        call(*arguments, **named)
    return caught.value
