import os
import ssl
from functools import cache
from typing import Any

import httpx
from httpx._transports import default as transports

_load = httpx.create_ssl_context


def share_default_authorities() -> None:
    """Let all clients of httpx in this process use one context for the same default authorities.

    Each client, and so each `httpx.get`, would parse all certificates again, for 40 ms of CPU, without TLS too.
    """
    for module in (httpx, transports):
        vars(module)["create_ssl_context"] = _context


def _context(verify: Any = True, cert: Any = None, trust_env: Any = True) -> ssl.SSLContext:  # noqa: FBT002  as httpx
    if verify is not True or cert:
        return _load(verify, cert, trust_env)
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    return _default(*(os.environ.get(name, "") if trust_env else "" for name in names))


@cache
def _default(file: str, directory: str) -> ssl.SSLContext:
    """Load what these variables name now."""
    return _load(trust_env=bool(file or directory))
