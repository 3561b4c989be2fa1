"""Check how the runner splits bytes into lines."""

import random

from hypothesis import given
from hypothesis import strategies as st

from runner.lines import (
    LONGEST_OBJECT,
    LONGEST_PIECE,
    Line,
    LineSplitter,
    Piece,
    in_pieces,
    looks_like_object,
    plain,
    read_object,
)


def joined(found: list[Line | Piece]) -> str:
    """Return the output as every viewer can rebuild it from the texts of messages."""
    text = ""
    for one in found:
        if isinstance(one, Piece):
            text += one.text
        elif one.rest or not (one.is_open and one.has_pieces):
            text += one.rest + "\n" * (not one.is_open)
    return text


def split(*chunks: bytes) -> list[Line | Piece]:
    splitter = LineSplitter()
    found = [one for chunk in chunks for one in splitter.feed(chunk)]
    return found + splitter.finish()


def texts(found: list[Line | Piece]) -> list[str]:
    return [one.rest if isinstance(one, Line) else one.text for one in found]


def test_lines_are_whole_however_bytes_arrive() -> None:
    """Send a line byte by byte, and a UTF-8 character in two reads."""
    text = "first\nsecönd\r\n\nlast".encode()
    assert texts(split(text)) == ["first", "secönd", "", "last"]
    assert texts(split(*(bytes([byte]) for byte in text))) == ["first", "secönd", "", "last"]


def test_line_end_at_end_adds_no_empty_line() -> None:
    """Text that ends in a line end is complete; other text stays open."""
    assert texts(split(b"a\n")) == ["a"]
    assert split(b"") == []
    (last,) = split(b"a")
    assert isinstance(last, Line)
    assert last.is_open


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    """A broken byte costs itself, not the line; so does a character cut off at the end."""
    assert texts(split(b"a\xffb\n\xe2\x82")) == ["a\ufffdb", "\ufffd"]


def test_very_long_line_is_given_in_pieces_as_it_comes() -> None:
    """Hold back no more than one piece of an endless line."""
    splitter = LineSplitter()
    pieces: list[Line | Piece] = []
    for _ in range(100):
        pieces += splitter.feed(b"x" * 10_000)
    assert all(isinstance(one, Piece) and len(one.text) <= LONGEST_PIECE for one in pieces)
    assert len(joined(pieces)) >= 1_000_000 - LONGEST_PIECE
    (last,) = splitter.finish()
    assert joined([*pieces, last]) == "x" * 1_000_000
    assert isinstance(last, Line)
    assert (last.whole, last.size) == (None, 1_000_000)


def test_long_json_object_is_kept_whole_as_it_may_be_result() -> None:
    """Keep up to LONGEST_OBJECT; beyond, treat it as a long line of known size."""
    line = ' {"a": "' + "x" * 1_000_000 + '"} '
    for found in (split(line.encode() + b"\n"), split(line.encode()), split(line[:9].encode(), line[9:].encode())):
        (one,) = found
        assert isinstance(one, Line)
        assert (one.whole, one.looks_like_object, one.size) == (line, True, len(line))
    too_long = '{"a": "' + "ü" * LONGEST_OBJECT + '"}'
    found = split(too_long[:5000].encode(), too_long[5000:].encode(), b"\n")
    assert joined(found) == too_long + "\n"
    last = found[-1]
    assert isinstance(last, Line)
    assert (last.whole, last.looks_like_object, last.size) == (None, True, len(too_long.encode()))


def test_flush_gives_unfinished_line_and_rest_follows() -> None:
    """Know the whole line at its end all the same."""
    splitter = LineSplitter()
    assert splitter.feed(b'{"a":') == []
    assert splitter.flush() == [Piece('{"a":')]
    assert splitter.flush() == []
    (line,) = splitter.feed(b" 1}\n")
    assert isinstance(line, Line)
    assert (line.rest, line.whole, line.has_pieces) == (" 1}", '{"a": 1}', True)


def test_progress_collapses_to_its_last_state() -> None:
    """Keep only the last text between carriage returns; one at the end replaces nothing yet."""
    assert texts(split(b"10%\r20%\r30%\nnext\n")) == ["30%", "next"]
    assert texts(split(b"10%\r", b"20%\r", b"30%\r", b"\n")) == ["30%"]
    assert texts(split(b"30%\r", b"\r", b"\r\n")) == ["30%"]
    assert texts(split(b"a\r\nb\r\n")) == ["a", "b"]


def test_flushed_progress_is_replaced_by_what_follows() -> None:
    """A text that begins with a carriage return replaces the line from its beginning."""
    splitter = LineSplitter()
    splitter.feed(b"10%\r")
    assert splitter.flush() == [Piece("10%")]
    splitter.feed(b"20%\r30%\r")
    assert splitter.flush() == [Piece("\r30%")]
    assert splitter.flush() == []
    (line,) = splitter.feed(b"done\n")
    assert isinstance(line, Line)
    assert (line.rest, line.whole) == ("\rdone", "done")


def test_endless_progress_is_held_in_little_memory() -> None:
    splitter = LineSplitter()
    for number in range(100_000):
        assert splitter.feed(b"\rstep %d" % number) == []
    assert splitter.flush() == [Piece("step 99999")]


@given(st.lists(st.sampled_from(["a", "ü", "\n", " ", "x" * 40_000, "{", "}", "\x1b[0m"]), max_size=30), st.integers())
def test_joined_texts_are_the_output(parts: list[str], seed: int) -> None:
    """Hold for any reads and flushes; without carriage returns byte for byte."""
    chance = random.Random(seed)
    text = "".join(parts)
    data = text.encode()
    splitter = LineSplitter()
    found: list[Line | Piece] = []
    while data:
        size = chance.choice([1, 7, 65_536])
        found += splitter.feed(data[:size])
        data = data[size:]
        if chance.random() < 0.3:
            found += splitter.flush()
    assert joined(found + splitter.finish()) == text


def test_only_json_object_is_result() -> None:
    """Treat arrays, numbers, NaN and almost-objects as plain lines; ignore blanks and terminal codes around
    an object.
    """
    assert read_object('{"a": [1, "\\ud800"]} ') == {"a": [1, "\ud800"]}
    assert read_object('\x1b[32m  {"a": 1}\x1b[0m\x1b]0;title\x07 ') == {"a": 1}
    assert read_object('{"a": \x1b[1m"b"\x1b[0m}') == {"a": "b"}
    for line in ("[1]", "1", "{}}", "{a}", '{"a": NaN}', "{" * 100_000 + "}", '{"a":' * 100_000 + "1" + "}" * 100_000):
        assert read_object(line) is None


def test_terminal_codes_and_blanks_are_a_blank_line() -> None:
    assert plain("\x1b[0m \t\x1b[?25h\x1b(B\x1b=\x1bPdata\x1b\\") == ""
    assert not looks_like_object("\x1b[0m")
    assert looks_like_object('\x1b[1m {"a": 1}\x1b[m ')


def test_empty_lines_are_kept() -> None:
    assert in_pieces("") == [""]
