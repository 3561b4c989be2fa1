"""Bytes into lines."""

from runner.lines import LONGEST_OBJECT, LONGEST_PIECE, LineSplitter, in_pieces, read_result


def split(*chunks: bytes) -> list[str]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    return lines + splitter.finish()


def test_lines_come_out_whole_however_the_bytes_arrive() -> None:
    """A line may arrive byte by byte, a UTF-8 character in two reads."""
    text = "first\nsecönd\r\n\nlast".encode()
    assert split(text) == ["first", "secönd", "", "last"]
    assert split(*(bytes([byte]) for byte in text)) == ["first", "secönd", "", "last"]


def test_a_line_end_at_the_end_adds_no_empty_line() -> None:
    """What ends in a line end is complete."""
    assert split(b"a\n") == ["a"]
    assert split(b"") == []


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    """A broken byte costs itself, not the line, nor does a character that is cut off at the end."""
    assert split(b"a\xffb\n\xe2\x82") == ["a\ufffdb", "\ufffd"]


def test_a_very_long_line_is_told_in_pieces_as_it_comes() -> None:
    """No more than a piece of an endless line is held back."""
    splitter = LineSplitter()
    pieces: list[str] = []
    for _ in range(100):
        pieces += splitter.feed(b"x" * 10_000)
    assert sum(map(len, pieces)) >= 1_000_000 - LONGEST_PIECE
    assert max(map(len, pieces)) <= LONGEST_PIECE
    assert "".join(pieces + splitter.finish()) == "x" * 1_000_000


def test_a_long_json_object_is_kept_whole_as_it_may_be_the_result() -> None:
    """Up to LONGEST_OBJECT; beyond, it is a long line like any other."""
    line = b'{"a": "' + b"x" * 1_000_000 + b'"}'
    assert split(line + b"\n") == [line.decode()]
    assert split(line) == [line.decode()]
    too_long = b'{"a": "' + b"x" * LONGEST_OBJECT + b'"}'
    pieces = split(too_long[:5000], too_long[5000:])
    assert len(pieces) > 1
    assert "".join(pieces) == too_long.decode()


def test_only_a_json_object_is_a_result() -> None:
    """Arrays, numbers, NaN, and what only looks like an object are lines like others."""
    assert read_result('{"a": [1, "\\ud800"]} ') == {"a": [1, "\ud800"]}
    for line in ("[1]", "1", "{}}", "{a}", '{"a": NaN}', "{" * 100_000 + "}", '{"a":' * 100_000 + "1" + "}" * 100_000):
        assert read_result(line) is None


def test_an_empty_line_is_a_piece() -> None:
    """Empty lines are part of what was printed."""
    assert in_pieces("") == [""]
