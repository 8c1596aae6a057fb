"""Errors that a test expects, checked by kind, rule, value, place and remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from hms_ray.errors import HmsRayError


def refused(call: Callable[..., object], *arguments: object, **named: object) -> HmsRayError:
    """The error of a call, with its rule, value, place and remedy."""
    with pytest.raises(HmsRayError) as caught:
        call(*arguments, **named)
    return caught.value


@contextmanager
def refusal(
    kind: type[HmsRayError], rule: str = "", *, got: str = "", where: str = "", fix: str = ""
) -> Iterator[None]:
    """Fails unless the body raises an error of the kind whose parts contain these texts."""
    assert rule or got or where or fix, "an error is checked by more than its kind"
    with pytest.raises(kind) as caught:
        yield
    error = caught.value
    found = {"rule": error.rule, "got": error.got, "where": error.where, "fix": error.fix}
    expected = {"rule": rule, "got": got, "where": where, "fix": fix}
    missed = {name: text for name, text in expected.items() if text not in str(found[name] or "")}
    assert not missed, found
