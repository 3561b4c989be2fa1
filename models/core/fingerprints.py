"""Fingerprints of errors: the same for texts that differ in numbers, ids and paths only. No database."""

import hashlib
import re
from typing import Final

# Of a long text the first and the last line tell the failures apart; between them is output of the command.
LONGEST_LINE: Final = 300
_RULES: Final = tuple(
    (re.compile(pattern), f"<{name}>")
    for pattern, name in (
        (r"\bhttps?://[^\s'\"]+", "url"),
        (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "id"),
        (r"\b[a-z]{2,8}_[0-9a-f]{8,64}\b", "id"),
        (r"(?<![\w>])(?:[A-Za-z]:)?(?:[/\\][\w.@%+~-]+){2,}[/\\]?", "path"),
        (r"\b0x[0-9a-fA-F]+\b", "n"),
        (r"\b(?=[a-fA-F]*[0-9])[0-9a-fA-F]{8,}\b", "n"),
        (r"\d+(?:[.,:]\d+)*", "n"),
    )
)
# An exit code is what a failure is known by, not a number in it.
_EXIT_CODE: Final = re.compile(r"exit code (\d{1,10})")
_BLANKS: Final = re.compile(r"\s+")


def normalised(error: str | None) -> str:
    """Return the first and the last line of an error without what differs from run to run."""
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    shown = lines[:1] + lines[-1:] if len(lines) > 1 else lines
    return "\n".join(map(_normalised, shown)) or "no error given"


def fingerprint(error: str | None) -> str:
    return hashlib.sha256(normalised(error).encode(errors="replace")).hexdigest()[:16]


def _normalised(line: str) -> str:
    cut = line[:LONGEST_LINE]
    code = _EXIT_CODE.fullmatch(cut)
    if code is not None:
        return cut
    for pattern, name in _RULES:
        cut = pattern.sub(name, cut)
    return _BLANKS.sub(" ", cut)
