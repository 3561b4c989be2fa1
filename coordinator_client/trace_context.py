"""Trace of the job that started this program: the variable TRACEPARENT, as W3C Trace Context writes it."""

import os
import re
from typing import Final

VARIABLE: Final = "TRACEPARENT"
_FORM: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def inherited_traceparent() -> str | None:
    """Return the variable; None without one, and for a value that is no traceparent of version 00."""
    return checked_traceparent(os.environ.get(VARIABLE))


def checked_traceparent(value: str | None) -> str | None:
    return value if value is not None and _FORM.fullmatch(value) else None


def continue_trace(value: str | None) -> None:
    """Have this process and what it starts continue the trace; without one, none."""
    if (checked := checked_traceparent(value)) is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = checked
