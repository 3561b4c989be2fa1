"""Prompts in parameters: parameters that are exactly one, and the first characters of a prompt for lists."""

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Text, case, cast, func, literal_column

from models.schema.tables import runs

PROMPT_SHOWN: Final = 200
# Parameters are read up to so many stored bytes, and so many characters of them.
_MOST_BYTES: Final = 16_384
_READ: Final = 2_000
# Value of the first member `prompt`, as far as it was read; an escape is taken whole.
_PROMPT: Final = re.compile(r'"prompt"\s*:\s*"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)')

BEGIN_OF_PARAMETERS: Final = case(
    (
        # The stored size is read without the value.
        func.pg_column_size(runs.c.parameters) <= literal_column(str(_MOST_BYTES)),
        func.left(cast(runs.c.parameters, Text), literal_column(str(_READ))),
    )
).label("prompt")


def is_prompt(parameters: Mapping[str, Any]) -> bool:
    """Return whether the parameters are exactly ``{"prompt": non-empty string}``."""
    prompt = parameters.get("prompt")
    return len(parameters) == 1 and isinstance(prompt, str) and prompt != ""


def prompt_of(begin: str | None) -> str | None:
    """Return the first characters of the text `prompt` of parameters, whose JSON may be cut; None if there is none."""
    if begin is None:
        return None
    try:
        whole = json.loads(begin)
        prompt = whole.get("prompt") if isinstance(whole, dict) else None
    except (ValueError, RecursionError):
        found = _PROMPT.search(begin)
        prompt = None if found is None else json.loads(f'"{found[1]}"', strict=False)
    if not isinstance(prompt, str):
        return None
    # Half of a surrogate pair cannot be sent.
    return prompt[:PROMPT_SHOWN].encode(errors="replace").decode()
