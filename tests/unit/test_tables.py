"""Check tables of commands on terminals and in pipes."""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from io import StringIO

import pytest
from rich.text import Text

import runtime.terminal
from cli.tables import print_fields, print_table

ROWS = [
    ("crd_000000000001", "admin", None, datetime(2026, 11, 29, 17, 0, 0, 500, tzinfo=UTC), "good"),
    ("crd_000000000002", "user", "a\x1b[2Jb " * 60, None, Text("revoked", style="red")),
]
HEAD = ("key id", "role", "owner", "created at", "state")


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def consoles() -> Iterator[None]:
    """Make a console for this test's output, and another one for those after it."""
    runtime.terminal._console.cache_clear()
    yield
    runtime.terminal._console.cache_clear()


def on_terminal(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[str]:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": "60"} | environment).items():
        monkeypatch.setenv(name, value)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    print_table(HEAD, ROWS)
    return terminal.getvalue().splitlines()


def test_pipe_gets_a_plain_line_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ignore the width of the terminal; fold nothing, colour nothing, end no line with spaces."""
    monkeypatch.setenv("COLUMNS", "60")
    print_table(HEAD, ROWS)
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["key", "id", "role", "owner", "created", "at", "state"]
    assert [line.split()[0] for line in lines] == ["crd_000000000001", "crd_000000000002"]
    assert lines[0].split()[2:] == ["-", "2026-11-29", "17:00:00+00:00", "good"]
    assert lines[1].count("a\ufffd[2Jb") == 60
    assert not any(line.endswith(" ") or "\x1b" in line for line in (head, *lines))


@pytest.mark.parametrize("columns", [50, 60])
def test_terminal_shows_ids_whole_and_folds_the_rest(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Print a field a line where the columns do not fit."""
    lines = [re.sub(r"\x1b\[\d*m", "", line) for line in on_terminal(monkeypatch, COLUMNS=str(columns))]
    assert all(len(line) <= columns for line in lines)
    text = "\n".join(lines)
    assert re.findall("crd_[0-9]{12}", text) == ["crd_000000000001", "crd_000000000002"]
    assert text.count("revoked") == 1
    assert text.count("\ufffd") == 60
    assert (lines[0].split() == ["key", "id", "crd_000000000001"]) is (columns == 50)
    assert (lines[0].split()[-1] == "state") is (columns == 60)


@pytest.mark.parametrize(
    ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_terminal_is_coloured_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], *, coloured: bool
) -> None:
    text = "\n".join(on_terminal(monkeypatch, **environment))
    assert ("\x1b[31m" in text) is coloured
    assert "\x1b[2J" not in text


def test_fields_are_lines_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields([("run", "run_1"), ("result", "first\nsecond")])
    assert capsys.readouterr().out == "run     run_1\nresult  first\n        second\n"
