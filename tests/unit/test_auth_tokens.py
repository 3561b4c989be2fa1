"""Check which token a client sends, and which token files it accepts."""

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


def test_client_without_token_sends_none(home: Path) -> None:
    assert not home.exists()
    assert find_token("", HERE, Settings()) is None


def test_nearest_token_is_sent(home: Path, tmp_path: Path) -> None:
    """Check the order: argument, environment, the file it names, the user's file, this machine's file."""
    keep(tmp_path / ".coordinator" / "admin.token", "machine\n")
    assert find_token("", HERE, Settings()) == "machine"
    keep(home / ".config" / "coordinator" / "token", "user\n")
    assert find_token("", HERE, Settings()) == "user"
    named = str(keep(tmp_path / "named", "named"))
    assert find_token("", HERE, Settings(token_file=named)) == "named"
    assert find_token("", HERE, Settings(token_file=named, token="environment")) == "environment"
    assert find_token("typed", HERE, Settings(token_file=named, token="environment")) == "typed"


def test_machine_key_is_sent_to_this_machine_only(home: Path, tmp_path: Path) -> None:
    """An admin key must not reach whatever address a user was tricked into."""
    keep(tmp_path / ".coordinator" / "admin.token", "machine")
    assert not home.exists()
    assert find_token("", THERE, Settings()) is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o777])
def test_token_file_readable_by_others_is_refused(tmp_path: Path, mode: int) -> None:
    """The error holds the chmod command that repairs it."""
    path = keep(tmp_path / "token", "secret", mode)
    with pytest.raises(TokenFileError, match="chmod 600"):
        read_token(path)


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "grüße", "nul\x00"])
def test_token_file_without_token_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(TokenFileError, match="one line"):
        read_token(keep(tmp_path / "token", text))


def test_missing_named_token_file_is_an_error(home: Path) -> None:
    with pytest.raises(TokenFileError, match="cannot be read"):
        find_token("", HERE, Settings(token_file=str(home / "none")))
