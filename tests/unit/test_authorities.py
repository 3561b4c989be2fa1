"""Check that test processes load the same authorities once."""

import ssl

import certifi
import httpx
import pytest
from httpx._transports import default as transports


def test_default_authorities_are_loaded_once() -> None:
    assert httpx.create_ssl_context() is httpx.create_ssl_context()
    default = vars(transports)["create_ssl_context"](trust_env=False)
    assert default is httpx.create_ssl_context(trust_env=False)
    assert default.verify_mode == ssl.CERT_REQUIRED


def test_named_file_and_no_verification_have_contexts_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    default = httpx.create_ssl_context(trust_env=False)
    assert httpx.create_ssl_context(verify=False).verify_mode == ssl.CERT_NONE
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    assert httpx.create_ssl_context() is not default
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(OSError, match="No such file"):
        httpx.create_ssl_context()
