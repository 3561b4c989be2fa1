"""Which token a client shows, and what a file must be like that keeps one."""

from pathlib import Path

import pytest

from cli.tokens import TokenFileError, find_token, read_token
from runtime.settings import Settings

HERE, THERE = ["http://127.0.0.1:8765", "http://localhost:8766"], ["http://127.0.0.1:8765", "https://runs.example"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def keep(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_without_any_token_none_is_shown(home: Path) -> None:
    """As a client of an open coordinator."""
    assert not home.exists()
    assert find_token("", HERE, Settings()) is None


def test_the_nearest_one_is_shown(home: Path, tmp_path: Path) -> None:
    """What was typed, then the environment, then the file it names, then the user's, then this machine's."""
    keep(tmp_path / ".coordinator" / "admin.token", "machine\n")
    assert find_token("", HERE, Settings()) == "machine"
    keep(home / ".config" / "coordinator" / "token", "user\n")
    assert find_token("", HERE, Settings()) == "user"
    named = str(keep(tmp_path / "named", "named"))
    assert find_token("", HERE, Settings(token_file=named)) == "named"
    assert find_token("", HERE, Settings(token_file=named, token="environment")) == "environment"
    assert find_token("typed", HERE, Settings(token_file=named, token="environment")) == "typed"


def test_the_key_of_this_machine_goes_nowhere_else(home: Path, tmp_path: Path) -> None:
    """An admin key must not be sent to whatever address somebody was talked into."""
    keep(tmp_path / ".coordinator" / "admin.token", "machine")
    assert not home.exists()
    assert find_token("", THERE, Settings()) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    """With the command that makes it good."""
    path = keep(tmp_path / "token", "secret", mode)
    with pytest.raises(TokenFileError, match="chmod 600"):
        read_token(path)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "grüße", "nul\x00"])
def test_a_file_that_keeps_no_token_is_refused(tmp_path: Path, text: str) -> None:
    """Rather than that something else is sent."""
    with pytest.raises(TokenFileError, match="one line"):
        read_token(keep(tmp_path / "token", text))


def test_a_named_file_that_is_not_there_is_an_error(home: Path) -> None:
    """Who names one means it."""
    with pytest.raises(TokenFileError, match="cannot be read"):
        find_token("", HERE, Settings(token_file=str(home / "none")))
