from collections.abc import Mapping
from typing import Any, Final

LONGEST_ERROR: Final = 300


class Rejected(Exception):
    """The token proves nothing; the message is for the log, never for the sender."""


class ProviderAway(Exception):
    """The identity provider did not answer, or not as the protocol says; the message is for the log."""


class CodeRefused(Exception):
    """The identity provider refused the code of a sign-in; the message is its own words."""


class KeysMissing(Exception):
    """The issuer's keys were never fetched: tokens cannot be checked yet."""


def error_text(answer: Mapping[str, Any]) -> str:
    """Return the provider's error as one line: its code, and its description if there is one."""
    words = [answer.get("error"), answer.get("error_description")]
    text = ": ".join(word for word in words if isinstance(word, str) and word)
    return "".join(letter if letter.isprintable() else " " for letter in text)[:LONGEST_ERROR]
