"""Print all output of commands: the terminal obeys no text of a coordinator or a job, and no text fails because the
encoding cannot show it.
"""

import os
import sys
import traceback
from contextlib import contextmanager, suppress
from functools import cache
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from runtime.printable import printable, printable_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console, RenderableType

__all__ = [
    "complain",
    "complain_of_fault",
    "fit_streams",
    "live",
    "printable",
    "printable_line",
    "say",
    "show",
    "stdin_text",
    "width",
]

# Wider than any row where the output is no terminal: a pipe wants whole ids and a line for each row.
_WIDTH_OF_A_PIPE = 100_000


def fit_streams() -> None:
    """Print characters missing in the output's encoding as escapes; print to nowhere when a stream is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 -- open until the process ends
        elif isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: object = "", *, flush: bool = False) -> None:
    print(printable(str(text)), flush=flush)


def complain(message: object) -> None:
    with suppress(OSError, ValueError):
        print(f"coordinator: {printable(str(message))}", file=sys.stderr, flush=True)


def complain_of_fault() -> None:
    with suppress(OSError, ValueError):
        print(printable(traceback.format_exc()), end="", file=sys.stderr, flush=True)


def show(*shown: "RenderableType", soft_wrap: bool = False) -> None:
    """Print rich renderables to stdout: coloured on a terminal; elsewhere plain, unfolded, without trailing spaces."""
    console = _console()
    if sys.stdout.isatty():
        console.print(*shown, soft_wrap=soft_wrap)
        return
    with console.capture() as captured:
        console.print(*shown, soft_wrap=soft_wrap)
    print("\n".join(line.rstrip(" ") for line in captured.get().split("\n")), end="", flush=True)


@contextmanager
def live() -> "Iterator[Callable[[RenderableType], None]]":
    """Show one frame after the other in place, on the terminal's other screen; yield what draws one."""
    from rich.live import Live

    with Live(console=_console(), screen=True, auto_refresh=False, vertical_overflow="crop") as shown:
        yield lambda frame: shown.update(frame, refresh=True)


def width() -> int:
    """Return the columns of the terminal; more than any row needs where stdout is none."""
    return _console().width


def stdin_text() -> str:
    return "" if sys.stdin is None else sys.stdin.buffer.read().decode("utf-8")


@cache
def _console() -> "Console":
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

    class SafeConsole(Console):
        """Console that makes all rendered text printable, whatever its source; control segments of rich pass."""

        def render(self, renderable: Any, options: ConsoleOptions | None = None) -> "Iterable[Segment]":
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    width = None if sys.stdout.isatty() else _WIDTH_OF_A_PIPE
    return SafeConsole(width=width, markup=False, highlight=False, emoji=False)
