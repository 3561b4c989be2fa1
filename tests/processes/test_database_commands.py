"""Commands that connect to the database themselves: one sentence for each way in which it cannot serve them."""

import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from models.schema.revisions import newest_revision
from runtime.settings import Settings
from testkit.ports import own_port
from tests.support.command import Ended, coordinator
from tests.support.db_verbs import DbVerbs

COMMANDS = [
    ("migrate",),
    ("keys", "list"),
    ("keys", "create", "--role", "admin"),
    ("keys", "revoke", "crd_0123456789ab"),
    ("audit",),
    ("feed", "status"),
    ("feed", "rotate-epoch", "--yes"),
    ("export", "--sqlite", "out.db"),
]


def ids(command: tuple[str, ...]) -> str:
    return " ".join(command[:2])


def assert_sentence(done: Ended, code: int, *parts: str) -> None:
    """Assert one line for a person, without traceback and password."""
    assert done.returncode == code, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("coordinator: ")
    assert "s3cret" not in done.stderr
    for part in parts:
        assert part in line


def changed(url: str, *, password: str | None = None, port: int | None = None, database: str | None = None) -> str:
    parts = urlsplit(url)
    netloc = f"{parts.username}:{password or parts.password}@{parts.hostname}:{port or parts.port}"
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}" if database else parts.path))


@pytest.mark.parametrize("command", [("migrate",), ("feed", "status")], ids=ids)
def test_absent_database_is_reported_without_password(command: tuple[str, ...], tmp_path: Path) -> None:
    url = f"postgresql://u:s3cret@127.0.0.1:{own_port()}/none"
    assert_sentence(coordinator(*command, home=tmp_path, DATABASE_URL=url), 1, "does not answer")


def test_command_names_database_fault_in_one_sentence(settings: Settings, tmp_path: Path) -> None:
    """Try a wrong password, a missing database, an invalid option and an unknown host."""
    url = settings.database_url.replace("+psycopg", "")
    faults = {
        changed(url, password="s3cret"): "password authentication failed",
        changed(url, database="nowhere", password=None): 'database "nowhere" does not exist',
        f"{url}?sslrootcert=/nowhere/ca.pem&sslmode=verify-full": "/nowhere/ca.pem",
        f"{url}?nonsense=1": "nonsense",
        "postgresql://u:s3cret@nowhere.invalid/x": "does not answer",
    }
    for fault, part in faults.items():
        assert_sentence(coordinator("audit", home=tmp_path, DATABASE_URL=fault), 1, part)
    for fault in ("postgresql://u:s3cret@localhost:port/x", "mysql://u:s3cret@localhost/x"):
        done = coordinator("audit", home=tmp_path, DATABASE_URL=fault)
        assert_sentence(done, 2, "COORDINATOR_DATABASE_URL" if "port" in fault else "DATABASE_URL")


@pytest.mark.parametrize("command", COMMANDS[1:], ids=ids)
def test_command_without_schema_names_migrate(
    command: tuple[str, ...], empty_database_url: str, tmp_path: Path
) -> None:
    """Run before the first migration, without any table."""
    done = coordinator(*command, home=tmp_path, DATABASE_URL=empty_database_url)
    assert_sentence(done, 1, "run `coordinator migrate`")


@pytest.mark.parametrize("command", COMMANDS, ids=ids)
def test_command_finds_database_of_up_in_one_directory(command: tuple[str, ...], tmp_path: Path) -> None:
    """Read `--data`, else COORDINATOR_DATA_DIR, else ./.coordinator; report a missing or broken one."""
    here, named, given = tmp_path / ".coordinator", tmp_path / "named", tmp_path / "given"
    environment = {"COORDINATOR_DATA_DIR": str(named)}
    done = coordinator(*command, "--data", str(given), home=tmp_path, **environment)
    assert_sentence(done, 2, f"has served nothing in {given};", "DATABASE_URL is not set")
    if command != ("audit",):
        return
    for done, directory in (
        (coordinator(*command, home=tmp_path), here),
        (coordinator(*command, home=tmp_path, **environment), named),
    ):
        assert_sentence(done, 2, f"has served nothing in {directory};", "DATABASE_URL is not set")
    (given / "postgres").mkdir(parents=True)
    for content in ("", "[]", "{}"):
        (given / "postgres" / "access.json").write_text(content)
        done = coordinator(*command, "--data", str(given), home=tmp_path)
        assert_sentence(done, 2, f"in {given} cannot be found")


def test_migrate_needs_no_redis(empty_database_url: str, tmp_path: Path) -> None:
    done = coordinator("migrate", home=tmp_path, DATABASE_URL=empty_database_url)
    assert done.returncode == 0, done.stderr
    assert re.search(rf"schema migrated from nothing to {newest_revision()}", done.stdout)


def test_migrate_leaves_newer_schema_alone(db: DbVerbs, database_url: str, tmp_path: Path) -> None:
    """Report a schema newer than the code, as after a rollback, in a sentence, and change nothing."""
    with db.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    done = coordinator("migrate", home=tmp_path, DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("coordinator: the schema is at 9999, made by a newer version than this one")
