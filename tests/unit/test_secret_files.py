"""Check that secrets are read from files, and that no error or setting shows them."""

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from runtime.effective_settings import effective
from runtime.settings import SettingsError, load_settings

SECRET = "p@ss:w/rd%1"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("DATABASE_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


def test_urls_are_read_from_files(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Strip the line end."""
    database = write(tmp_path / "db", "postgresql://u:p@h/db\n")
    environment.setenv("COORDINATOR_DATABASE_URL_FILE", database)
    environment.setenv("COORDINATOR_REDIS_URL_FILE", write(tmp_path / "redis", "rediss://h:6379/0\n"))
    settings = load_settings()
    assert settings.database_url == "postgresql+psycopg://u:p@h/db"
    assert settings.redis_url == "rediss://h:6379/0"
    environment.setenv("COORDINATOR_DATABASE_URL", settings.database_url)
    assert load_settings() == settings


def test_passwords_are_put_into_urls_whatever_they_hold(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Show them in no output of the settings."""
    path = write(tmp_path / "password", f"{SECRET}\n")
    environment.setenv("DATABASE_URL", "postgresql://user@h:5432/db?sslmode=verify-full")
    environment.setenv("REDIS_URL", "redis://h:6379/0")
    environment.setenv("COORDINATOR_DATABASE_PASSWORD_FILE", path)
    environment.setenv("COORDINATOR_REDIS_PASSWORD_FILE", path)
    settings = load_settings()
    url = make_url(settings.database_url)
    assert (url.username, url.password, url.host, url.query["sslmode"]) == ("user", SECRET, "h", "verify-full")
    assert settings.redis_url == "redis://:p%40ss%3Aw%2Frd%251@h:6379/0"
    shown = " ".join(row.value for row in effective(settings)) + repr(settings)
    assert SECRET not in shown
    assert "p%40ss" not in shown


@pytest.mark.parametrize(
    ("url", "text", "reason"),
    [
        ("postgresql://u:other@h/db", SECRET, "has another password"),
        ("", SECRET, "names no server"),
        ("postgresql://u@h/db", " \n", "is empty"),
        ("postgresql://u@h/db", None, "cannot be read (FileNotFoundError)"),
    ],
)
def test_invalid_secret_file_is_refused_without_showing_it(
    environment: pytest.MonkeyPatch, tmp_path: Path, url: str, text: str | None, reason: str
) -> None:
    """Name the variable and the file."""
    path = tmp_path / "password"
    if text is not None:
        path.write_text(text)
    environment.setenv("DATABASE_URL", url)
    environment.setenv("COORDINATOR_DATABASE_PASSWORD_FILE", str(path))
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert reason in str(caught.value)
    assert "COORDINATOR_DATABASE_PASSWORD_FILE" in str(caught.value)
    assert SECRET not in str(caught.value)


def test_contradicting_url_and_file_are_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("REDIS_URL", "redis://one:6379/0")
    environment.setenv("COORDINATOR_REDIS_URL_FILE", write(tmp_path / "redis", "redis://other:6379/0"))
    with pytest.raises(SettingsError, match="different URLs"):
        load_settings()
