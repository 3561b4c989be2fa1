import codecs
import json
import re
from dataclasses import dataclass
from typing import Any, Final

# Characters; a longer line is yielded in pieces.
LONGEST_PIECE: Final = 64 * 1024
# Characters up to which a line that may be the run's result, a JSON object, is kept whole.
LONGEST_OBJECT: Final = 4 * 1024 * 1024
# Characters examined at the beginning and at the end of a line.
_EDGE: Final = 4096

# Control sequences, strings with their terminators, and two-character escapes (ECMA-48).
_CODES: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-Z\\^-~])"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of an unfinished line; a text that begins with a carriage return replaces the line's previous pieces."""

    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """Line that has ended, or at the end of all output (`is_open`) has only stopped.

    `rest` is the text not given as pieces; `whole` the final text of the line, None when it was too long to keep.
    """

    rest: str
    whole: str | None
    is_open: bool = False
    has_pieces: bool = False
    size: int = 0
    looks_like_object: bool = False

    @property
    def is_blank(self) -> bool:
        return self.whole is not None and not plain(self.whole)


class LineSplitter:
    """Splitter of bytes into lines; holds at most one unfinished line.

    Bytes that are not UTF-8 become U+FFFD. A line longer than LONGEST_PIECE characters is returned in pieces as it
    comes, one that begins like a JSON object only beyond LONGEST_OBJECT. Of texts divided by carriage returns only the
    last is returned, as a terminal shows it.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._begin()

    def _begin(self) -> None:
        # The line since its last carriage return, the length already returned, and the part no longer kept.
        self._parts: list[str] = []
        self._length = 0
        self._given = 0
        self._gone_bytes = 0
        self._gone_start = ""
        self._gone_end = ""
        self._is_object: bool | None = None
        # Flags: some of the line was returned; it is to be replaced; the text so far ends in a carriage return.
        self._has_pieces = False
        self._replaces = False
        self._returned = False

    @property
    def is_waiting(self) -> bool:
        return self._length > self._given

    def feed(self, data: bytes) -> list[Line | Piece]:
        return self._take(self._decoder.decode(data))

    def flush(self) -> list[Line | Piece]:
        if not self.is_waiting:
            return []
        text = self._unseen()
        self._given = self._length
        self._has_pieces = True
        return [Piece(piece) for piece in in_pieces(text)]

    def finish(self) -> list[Line | Piece]:
        found = self._take(self._decoder.decode(b"", final=True))
        if self._length or self._gone_bytes or self._has_pieces:
            found.append(self._end(is_open=True))
        return found

    def _take(self, text: str) -> list[Line | Piece]:
        *complete, rest = text.split("\n")
        found: list[Line | Piece] = []
        for last in complete:
            self._add(last)
            found += self._let_go()
            found.append(self._end())
        self._add(rest)
        return found + self._let_go()

    def _add(self, text: str) -> None:
        if not text or (self._returned and not text.strip("\r")):
            return
        if self._returned:
            self._restart()
        shown = text.rstrip("\r")
        _, is_divided, last = shown.rpartition("\r")
        if is_divided:
            self._restart()
        # Part of a line end, or the next text replaces the line: not known yet.
        self._returned = len(shown) < len(text)
        if last:
            self._parts.append(last)
            self._length += len(last)

    def _restart(self) -> None:
        replaces, has_pieces = self._replaces or self._has_pieces, self._has_pieces
        self._begin()
        self._replaces, self._has_pieces = replaces, has_pieces

    def _let_go(self) -> list[Line | Piece]:
        if self._length <= LONGEST_PIECE or (self._begins_object() and self._length <= LONGEST_OBJECT):
            return []
        found = self.flush()
        whole = "".join(self._parts)
        self._gone_start = self._gone_start or whole[:_EDGE]
        self._gone_end = whole[-_EDGE:]
        self._gone_bytes += len(whole.encode())
        self._parts, self._length, self._given = [], 0, 0
        return found

    def _begins_object(self) -> bool:
        if self._is_object is None:
            self._is_object = plain("".join(self._parts)[:_EDGE]).startswith("{")
        return self._is_object

    def _unseen(self) -> str:
        text = "".join(self._parts)[self._given :]
        if self._replaces:
            text, self._replaces = f"\r{text}", False
        return text

    def _end(self, *, is_open: bool = False) -> Line:
        whole = "".join(self._parts)
        gone = self._gone_bytes > 0
        line = Line(
            rest=self._unseen(),
            whole=None if gone else whole,
            is_open=is_open,
            has_pieces=self._has_pieces,
            size=self._gone_bytes + len(whole.encode()),
            looks_like_object=looks_like_object(self._gone_start + self._gone_end + whole if gone else whole),
        )
        self._begin()
        return line


def in_pieces(line: str) -> list[str]:
    return [line[at : at + LONGEST_PIECE] for at in range(0, len(line), LONGEST_PIECE)] or [line]


def plain(text: str) -> str:
    return (_CODES.sub("", text) if "\x1b" in text else text).strip()


def looks_like_object(line: str) -> bool:
    shown = plain(line)
    return shown.startswith("{") and shown.endswith("}")


def read_object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(plain(text), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
