import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from models.claims.fleet import TAG, Value

LONGEST_VALUE: Final = 60
LONGEST_LINE: Final = 200
_PLAIN: Final = re.compile(r"[\w.:/@+-]+", re.ASCII)
# A runner that takes tagged runs only rejects this one, whatever it offers.
TAGGED_ONLY: Final[tuple[Value, ...]] = ()
# Verbs for what one runner and several are not.
_VERBS: Final = {
    "hostname": ("is not", "are not"),
    "project_dir": ("is not in", "are not in"),
    "executor_profile": ("has not profile", "have not profile"),
    "executor_type": ("is not", "are not"),
}


def shown(value: str) -> str:
    """Return a value as it is if it is a plain word, else as Python writes it: no control characters reach a
    terminal.
    """
    cut = value if len(value) <= LONGEST_VALUE else value[:LONGEST_VALUE] + "…"
    return cut if _PLAIN.fullmatch(value) and cut == value else repr(cut)


def named(values: Iterable[Value]) -> str:
    """Return demanded values in words: ``hostname build-7 and tag gpu``."""
    return listed([f"{name} {shown(value)}" for name, value in values])


def missing(lacks: Sequence[Value]) -> str:
    """Return what runners lack as a text of its own: ``tag gpu missing``."""
    if not lacks:
        return "takes tagged runs only"
    return ", ".join(f"tag {shown(it)} missing" if name == TAG else f"{name} is not {shown(it)}" for name, it in lacks)


def lack(number: int, lacks: Sequence[Value]) -> str:
    """Return what a number of runners lacks: ``5 lack tag gpu``, ``1 is not build-7``."""
    several = number != 1
    if not lacks:
        return f"{number:,} {'take' if several else 'takes'} tagged runs only"
    tags = [shown(value) for name, value in lacks if name == TAG]
    parts = [f"{_VERBS[name][several]} {shown(value)}" for name, value in lacks if name != TAG]
    if tags:
        parts.append(f"{'lack' if several else 'lacks'} {'tag' if len(tags) == 1 else 'tags'} {listed(tags)}")
    return f"{number:,} {listed(parts)}"


def first_line(text: str) -> str:
    """Return the beginning of a text from elsewhere: its first line, at most ``LONGEST_LINE`` characters."""
    line = text.strip().partition("\n")[0]
    return line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…"


def listed(parts: Sequence[str], last: str = "and") -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def counted(number: int, noun: str, plural: str = "", *, exact: bool = True) -> str:
    """Return ``1 run``, ``41 runs`` or, where there are at least so many, ``more than 40 runs``."""
    more = "" if exact else "more than "
    number -= not exact
    return f"{more}{number:,} {noun if number == 1 else plural or noun + 's'}"


def are(number: int) -> str:
    return "is" if number == 1 else "are"


def duration(seconds: float) -> str:
    """Return a duration in its natural unit; a negative one as 0 s."""
    seconds = max(seconds, 0)
    for unit, size, most in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if seconds < most:
            return f"{round(seconds / size)} {unit}"
    return f"{round(seconds / 86_400)} d"


def ago(now: datetime, moment: datetime) -> str:
    return f"{duration((now - moment).total_seconds())} ago"


def ahead_of(now: datetime, moment: datetime) -> str:
    """Return how long it is until a moment: ``in 5 min``, or ``now`` if it has come."""
    seconds = (moment - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else "now"
