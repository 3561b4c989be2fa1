import re
import unicodedata
from typing import Final

REPLACEMENT: Final = "\ufffd"

# Keep blanks of any width and joiners of letters and emoji: str.isprintable() rejects both, no terminal obeys them.
_JOINERS: Final = "\u200c\u200d"
_NEWLINES: Final = re.compile(r"\r\n|[\n\t]")


def printable(text: str) -> str:
    """Return the text with U+FFFD for each control code, bidirectional override, line separator and lone surrogate.

    Newlines and tabs stay. Nothing else in the result moves a cursor, changes a colour or renames a window.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_line(text: str) -> str:
    return printable(_NEWLINES.sub(" ", text))


def _shown(char: str) -> str:
    is_shown = char.isprintable() or char in "\n\t" or char in _JOINERS or unicodedata.category(char) == "Zs"
    return char if is_shown else REPLACEMENT
