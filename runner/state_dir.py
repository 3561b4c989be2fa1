import os
import platform
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Names tried in the directory for temporary files, where another user may have taken some.
MOST_NAMES = 20


def state_directory(name: str) -> Path:
    """Return a directory of this user only, created if missing: in its state directory (XDG), else among its runtime or
    temporary files.

    Raises OSError when none can be created.
    """
    refused: OSError | None = None
    for parent in _parents():
        try:
            ensure_own(parent)
            ensure_own(parent / name)
        except OSError as error:
            refused = error
        else:
            return parent / name
    raise OSError(f"no directory for notes of runners: {refused}")


def notes_name(kind: str) -> str:
    """Return the kind with host and process namespace: process ids of machines or containers that share a home may be
    equal.
    """
    space = 0
    with suppress(OSError):
        space = Path("/proc/self/ns/pid").stat().st_ino
    return f"{kind}-{platform.node() or 'host'}-{space}"


def _parents() -> Iterator[Path]:
    state = _variable("XDG_STATE_HOME")
    with suppress(RuntimeError):
        yield (Path(state) if state else Path.home() / ".local" / "state") / "coordinator-runner"
    if runtime := _variable("XDG_RUNTIME_DIR"):
        yield Path(runtime, "coordinator-runner")
    for number in range(MOST_NAMES):
        yield Path(tempfile.gettempdir()) / f"coordinator-runner-{os.getuid()}{f'-{number}' if number else ''}"


def _variable(name: str) -> str:
    value = os.path.expandvars(f"${name}")
    return value if Path(value).is_absolute() else ""


def ensure_own(directory: Path) -> None:
    directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(f"{directory} belongs to another user")
    if stat.S_IMODE(found.st_mode) != 0o700:
        directory.chmod(0o700)
