"""Lines out of the bytes that a process prints, whatever bytes they are."""

import codecs
import json
from typing import Any

# A longer line is told in pieces.
LONGEST_PIECE = 64 * 1024
# A line that may be the run's result, a JSON object, is kept whole up to here.
LONGEST_OBJECT = 4 * 1024 * 1024


class LineSplitter:
    """Collects bytes into lines; holds at most one unfinished line.

    Bytes that are not UTF-8 become U+FFFD. A line longer than LONGEST_PIECE characters is cut into pieces, one that
    begins like a JSON object only beyond LONGEST_OBJECT.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest: list[str] = []
        self._length = 0

    def feed(self, data: bytes) -> list[str]:
        """The lines (or pieces) that these bytes complete, without their line ends."""
        return self._take(self._decoder.decode(data))

    def finish(self) -> list[str]:
        """What is left when no more bytes will come."""
        lines = self._take(self._decoder.decode(b"", final=True))
        if self._length:
            lines.append(self._join(""))
        return lines

    def _take(self, text: str) -> list[str]:
        *complete, rest = text.split("\n")
        lines: list[str] = []
        for piece in complete:
            lines += _cut(self._join(piece).removesuffix("\r"))
        if rest:
            self._rest.append(rest)
            self._length += len(rest)
        if self._length > LONGEST_PIECE and not (self._rest[0].startswith("{") and self._length <= LONGEST_OBJECT):
            lines += in_pieces(self._join(""))
        return lines

    def _join(self, last: str) -> str:
        line = "".join([*self._rest, last])
        self._rest = []
        self._length = 0
        return line


def _cut(line: str) -> list[str]:
    """The line in pieces of at most LONGEST_PIECE characters, but whole if it may be a result."""
    if len(line) <= LONGEST_PIECE or (may_be_result(line) and len(line) <= LONGEST_OBJECT):
        return [line]
    return in_pieces(line)


def in_pieces(line: str) -> list[str]:
    """The line in pieces of at most LONGEST_PIECE characters; an empty line is one piece."""
    return [line[at : at + LONGEST_PIECE] for at in range(0, len(line), LONGEST_PIECE)] or [line]


def may_be_result(line: str) -> bool:
    """Whether the line looks like a JSON object, without reading it."""
    return line.startswith("{") and line.rstrip().endswith("}")


def read_result(line: str) -> dict[str, Any] | None:
    """The JSON object that the line is, or None (NaN and infinities are no JSON)."""
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
