"""Ray's token before a cluster is joined, and the rights of its file."""

import os
from pathlib import Path

import pytest
from ray.exceptions import AuthenticationError

from hms_ray.distributed import tokens
from hms_ray.errors import ResourceError
from tests.refused import refusal

FIX = "name its file in RAY_AUTH_TOKEN_PATH"


def refuse(*_: object, **__: object) -> None:
    os.write(2, b"a warning of Ray's C++ code")
    raise AuthenticationError("InvalidAuthToken")


def accept(*_: object, **__: object) -> None:
    pass


def test_a_missing_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "ensure_token_if_auth_enabled", refuse)
    with refusal(ResourceError, "token", got="no token", where="head:1", fix=FIX):
        tokens.require_token("head:1")


@pytest.mark.parametrize("address", ["head:1", "auto"])
def test_another_token_is_refused_without_a_word_of_ray(
    address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tokens, "ensure_token_if_auth_enabled", accept)
    monkeypatch.setattr(tokens, "canonicalize_bootstrap_address", lambda given: "10.0.0.1:1")
    monkeypatch.setattr(tokens, "GcsClient", refuse)
    with refusal(ResourceError, "token", got="another token", where=address, fix=FIX):
        tokens.require_token(address)
    assert capfd.readouterr().err == ""
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


@pytest.mark.parametrize("found", [None, "10.0.0.1:1"])
def test_a_cluster_that_does_not_answer_is_left_to_ray(
    found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(tokens, "ensure_token_if_auth_enabled", accept)
    monkeypatch.setattr(tokens, "canonicalize_bootstrap_address", lambda given: found)
    monkeypatch.setattr(tokens, "GcsClient", fail)
    tokens.require_token("auto")


def test_a_generated_token_is_closed_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    tokens.close_token_file()
    file = tmp_path / ".ray" / "auth_token"
    file.parent.mkdir()
    file.write_text("token")
    file.chmod(0o644)
    tokens.close_token_file()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o400)
    tokens.close_token_file()
    assert file.stat().st_mode & 0o777 == 0o400
