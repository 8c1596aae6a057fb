"""Ray's token: required by a Ray that is started here, checked before a cluster is joined."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._private.services import canonicalize_bootstrap_address
from ray._raylet import GcsClient  # type: ignore[attr-defined]
from ray.exceptions import AuthenticationError

from hms_ray.errors import ResourceError

logger = logging.getLogger(__name__)

_FIX: Final = (
    "Copy the cluster's token to ~/.ray/auth_token, or name its file in RAY_AUTH_TOKEN_PATH; for a "
    "cluster without tokens set RAY_AUTH_MODE=disabled."
)


def require_token(address: str) -> None:
    """Checks within a second that a cluster accepts the token of this process.

    Ray itself would try again for 20 s. A cluster that does not answer is left to Ray.

    Args:
        address: ``host:port`` or ``auto``.

    Raises:
        ResourceError: if there is no token, or the cluster has another one.
    """
    try:
        ensure_token_if_auth_enabled(None, create_token_if_missing=False)
    except AuthenticationError:
        raise _refused("no token", address) from None
    try:
        found = canonicalize_bootstrap_address(address)
        if found is not None:
            with _quiet():
                GcsClient(address=found)
    except AuthenticationError:
        raise _refused("another token", address) from None
    except Exception:
        logger.debug("the token was not checked", exc_info=True)


def _refused(got: str, address: str) -> ResourceError:
    return ResourceError(
        "a command must have the token of its cluster", got=got, where=address, fix=_FIX
    )


def close_token_file() -> None:
    """Makes the token that Ray has generated readable by its owner alone.

    Ray writes it with the rights that are usual for a file, so others can often read it.
    """
    with suppress(OSError, RuntimeError):
        file = Path.home() / ".ray" / "auth_token"
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Ray's C++ code from writing to standard error, which an error follows anyway."""
    standard_error = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        os.close(nowhere)
