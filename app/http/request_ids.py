"""Name each request: by the client's `X-Request-Id` if it is a short token, else by a new id."""

import re
import secrets
from itertools import count
from typing import Final

from starlette.types import Scope

REQUEST_ID: Final = b"x-request-id"
_TOKEN: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
# A random id for each request would cost more than the rest of this module; this part differs in each process.
_PROCESS: Final = secrets.token_hex(8).encode()
_numbers = count(1)


def request_id_of(scope: Scope) -> bytes:
    for key, value in scope["headers"]:
        if key == REQUEST_ID:
            if _TOKEN.fullmatch(value):
                return bytes(value)
            break
    return b"%s-%x" % (_PROCESS, next(_numbers))
