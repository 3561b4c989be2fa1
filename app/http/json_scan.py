"""Scan JSON text without parsing it: count its values, measure its depth, replace parts of it by their text.

Every function works on ``CHUNK`` bytes at a time: memory and the time between two steps of the interpreter are bounded
by the chunk, whatever the text holds, so that a thread that scans does not starve the event loop.
"""

import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, NamedTuple

import orjson

CHUNK: Final = 64 * 1024

# Map each bracket to a signed byte: 1 opens, -1 closes.
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_NO_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))
# Possessive, and applied with `match` from the end of the last match: no byte is looked at twice.
_NEXT_MARK: Final = re.compile(rb'(?:[^"\[\]{},]++|"[^"]*+")*+([\[\]{},])')


class TooManyValues(Exception):
    pass


class Unbalanced(Exception):
    pass


class Survey(NamedTuple):
    """Number of values (lists, objects and commas) of a text, or an upper bound; ``is_deep``: deeper than allowed."""

    values: int
    is_deep: bool


def survey(raw: bytes, deepest: int, most: int) -> Survey:
    openers = raw.count(b"[") + raw.count(b"{")
    values = openers + raw.count(b",")
    if openers <= deepest and values <= most:
        return Survey(values, is_deep=False)
    values, depth, is_deep = 0, 0, False
    for text in _outside_strings(raw):
        steps = _steps(text)
        opened = steps.count(1)
        values += text.count(b",") + opened
        if values > most:
            break
        if not is_deep and depth + opened > deepest:
            is_deep = depth + max(accumulate(steps, initial=0)) > deepest
        depth += 2 * opened - len(steps)
    return Survey(values, is_deep)


def contains(raw: bytes, pattern: re.Pattern[bytes], longest: int) -> bool:
    return any(
        pattern.search(raw, start, start + CHUNK + longest - 1) is not None for start in range(0, len(raw), CHUNK)
    )


def _steps(text: bytes) -> "array[int]":
    return array("b", text.translate(_STEPS, _NO_BRACKETS))


def _chunks(raw: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(raw):
        piece = raw[start : start + CHUNK]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece = raw[start : start + CHUNK + 1]
        yield start, piece
        start += len(piece)


def _outside_strings(raw: bytes) -> Iterator[bytes]:
    in_string = False
    for _, chunk in _chunks(raw):
        parts = chunk.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[in_string::2])
        in_string ^= len(parts) % 2 == 0


@dataclass(slots=True)
class _Field:
    start: int
    values_before: int
    written: int
    copied: int


class _Shortener:
    """Copier of a text that turns values too deep, or with too many values, into strings. The outermost value has depth
    1.
    """

    def __init__(self, raw: bytes, deepest: int, field_depth: int, most: int, most_above: int) -> None:
        self._raw = raw
        self._deepest = deepest
        self._field_depth = field_depth
        self._most = most
        self._most_above = most_above
        self._depth = 0
        self._values = 0
        self._above = 0
        self._out: list[bytes] = []
        self._copied = 0
        self._deep_since = 0
        self._field: _Field | None = None

    def copy(self) -> bytes:
        in_string = False
        for start, chunk in _chunks(self._raw):
            masked = chunk.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")
            parts = masked.split(b'"')
            if not self._skip(b"".join(parts[in_string::2])):
                self._read(masked, len(parts[0]) + 1 if in_string else 0, start)
            in_string ^= len(parts) % 2 == 0
        if self._depth:
            raise Unbalanced
        return b"".join((*self._out, self._raw[self._copied :]))

    def _skip(self, outside: bytes) -> bool:
        if self._field is None:
            return False
        steps = _steps(outside)
        opened = steps.count(1)
        closed = len(steps) - opened
        lowest, highest = self._depth - closed, self._depth + opened
        if lowest < self._field_depth:
            lowest = self._depth + min(accumulate(steps, initial=0))
        if lowest < self._field_depth:
            return False
        if self._values <= self._most and lowest <= self._deepest < highest:
            highest = self._depth + max(accumulate(steps, initial=0))
            if lowest <= self._deepest < highest:
                return False
        self._values += outside.count(b",") + opened
        self._depth += opened - closed
        return True

    def _read(self, masked: bytes, begin: int, offset: int) -> None:
        found = _NEXT_MARK.match(masked, begin)
        while found is not None:
            place = found.end() - 1
            match masked[place]:
                case 0x2C:  # ,
                    self._count()
                case 0x5B | 0x7B:  # [ {
                    self._open(offset + place)
                case _:
                    self._close(offset + place)
            found = _NEXT_MARK.match(masked, place + 1)

    def _count(self) -> None:
        if self._field is not None:
            self._values += 1
            return
        self._above += 1
        if self._above > self._most_above:
            raise TooManyValues

    def _open(self, place: int) -> None:
        self._depth += 1
        if self._depth == self._field_depth:
            self._field = _Field(place, self._values, len(self._out), self._copied)
        elif self._depth == self._deepest + 1:
            self._deep_since = place
        self._count()

    def _close(self, place: int) -> None:
        if self._depth == self._deepest + 1:
            self._replace(self._deep_since, place + 1)
        elif self._depth == self._field_depth and self._field is not None:
            self._end_field(self._field, place + 1)
            self._field = None
        self._depth -= 1
        if self._depth < 0:
            raise Unbalanced

    def _end_field(self, ended: _Field, end: int) -> None:
        if self._values <= self._most:
            return
        # The field becomes text, so its values no longer count.
        self._values = ended.values_before
        del self._out[ended.written :]
        self._copied = ended.copied
        self._replace(ended.start, end)

    def _replace(self, start: int, end: int) -> None:
        self._out += (self._raw[self._copied : start], _as_string(self._raw, start, end))
        self._copied = end


def shortened(raw: bytes, *, deepest: int, field_depth: int, most: int, most_above: int) -> bytes:
    """Return the text with every list and object deeper than ``deepest`` as a string that holds its text; likewise
    every one at ``field_depth`` that would bring the values above ``most``.

    Raises TooManyValues for more than ``most_above`` above that depth, Unbalanced when the text is no JSON.
    """
    return _Shortener(raw, deepest, field_depth, most, most_above).copy()


def _as_string(raw: bytes, start: int, end: int) -> bytes:
    return orjson.dumps(raw[start:end].decode("utf-8", errors="replace"))
