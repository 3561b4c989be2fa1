"""Remove a runner's token from its environment and arguments, where the commands that it executes could read it."""

import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

# Bytes that a pipe accepts at least before its other end reads.
LONGEST_TOKEN: Final = 4096
_VARIABLE: Final = "COORDINATOR_TOKEN"


def start_anew_without(token: str, command: Sequence[str]) -> NoReturn:
    """Replace this process by itself, with the same process id and the token in a pipe: `--token-fd N`.

    Removing a variable from `os.environ` leaves it in /proc/PID/environ, which every job of the same user can read; so
    does overwriting an argument. Raises ValueError for a token that is too long, OSError when there is no such program.
    """
    data = token.encode("utf-8", "surrogateescape")
    if len(data) > LONGEST_TOKEN:
        raise ValueError(f"a token has at most {LONGEST_TOKEN} bytes")
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    os.set_inheritable(reading, True)
    os.execve(sys.executable, _arguments(sys.orig_argv, len(command), reading), child_environment())  # noqa: S606 -- our own program


def read_token_fd(number: int) -> str:
    with os.fdopen(number, "rb") as pipe:
        return pipe.read().decode("utf-8", "surrogateescape")


def child_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.upper() != _VARIABLE}


def _arguments(given: Sequence[str], command: int, reading: int) -> list[str]:
    end = len(given) - command
    options, rest = list(given[:end]), list(given[end:])
    place = options.index("runner") + 1
    kept: list[str] = []
    words = iter(options[place:])
    for word in words:
        if word == "--token":
            next(words, None)
        elif not word.startswith("--token="):
            kept.append(word)
    return [*options[:place], "--token-fd", str(reading), *kept, *rest]
