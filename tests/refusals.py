"""What errors about packs say."""

import pytest

from hms_ray.errors import DataError, PackError

AGAIN = "Build it again with: hms-ray pack DIR [--space FILE] --rebuild"


def refusal(call: object, *arguments: object, **named: object) -> str:
    """The text of the error that a call must end with."""
    with pytest.raises((PackError, DataError)) as caught:
        call(*arguments, **named)  # type: ignore[operator]
    return str(caught.value)
