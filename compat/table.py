"""Outcomes of the same calls at two coordinators: compared, judged by the list of known differences, and printed."""

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

KNOWN_FILE: Final = Path(__file__).with_name("known_differences.toml")
NOT_REACHED: Final = "not reached"
WIDTHS: Final = (58, 44, 44, 6)


class Same(StrEnum):
    YES = "yes"
    # Ours has all of theirs, and more fields in some objects.
    MORE = "more"
    KNOWN = "known"
    NO = "NO"


@dataclass(frozen=True, slots=True)
class Difference:
    """Known difference of the calls that its pattern names (`*` and `?`): in some fields, or with none in anything."""

    call: str
    reason: str
    fields: tuple[str, ...] = ()

    def excuses(self, call: str, theirs: Any, ours: Any) -> bool:
        if not fnmatchcase(call, self.call):
            return False
        return not self.fields or covers(_without(theirs, self.fields), _without(ours, self.fields))

    @property
    def title(self) -> str:
        """Return what docs/moving-in.md calls it."""
        return f"`{self.call}`" + (f": {', '.join(f'`{field}`' for field in self.fields)}" if self.fields else "")


@dataclass(frozen=True, slots=True)
class Row:
    call: str
    theirs: Any
    ours: Any
    same: Same
    reason: str = ""


def known_differences(path: Path = KNOWN_FILE) -> list[Difference]:
    given = tomllib.loads(path.read_text())["difference"]
    return [Difference(each["call"], " ".join(each["reason"].split()), tuple(each.get("fields", ()))) for each in given]


def compare(theirs: Mapping[str, Any], ours: Mapping[str, Any], known: Sequence[Difference]) -> list[Row]:
    """Return a row for each call of either, in the order of theirs."""
    rows = []
    for call in dict.fromkeys((*theirs, *ours)):
        one, other = theirs.get(call, NOT_REACHED), ours.get(call, NOT_REACHED)
        same = _same(one, other)
        found = next((each for each in known if each.excuses(call, one, other)), None) if same is Same.NO else None
        rows.append(Row(call, one, other, same) if found is None else Row(call, one, other, Same.KNOWN, found.reason))
    return rows


def unexpected(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.same is Same.NO]


def unseen(rows: Sequence[Row], known: Iterable[Difference]) -> list[Difference]:
    """Return the known differences whose calls were all made and did not differ."""
    return [
        each
        for each in known
        if (made := [row for row in rows if fnmatchcase(row.call, each.call)])
        and not any(row.same is Same.KNOWN for row in made)
    ]


def covers(theirs: Any, ours: Any) -> bool:
    """Return whether ours is theirs, but for further fields of objects."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return all(name in ours and covers(value, ours[name]) for name, value in theirs.items())
    if isinstance(theirs, list) and isinstance(ours, list):
        return len(theirs) == len(ours) and all(map(covers, theirs, ours))
    return bool(theirs == ours)


def written(rows: Sequence[Row]) -> str:
    """Return the table, and below it the whole outcomes of what differs."""
    lines = [_line("call", "theirs", "ours", "same?"), _line(*("-" * width for width in WIDTHS))]
    lines += [_line(row.call, _text(row.theirs), _text(row.ours), row.same) for row in rows]
    for row in rows:
        if row.same in {Same.NO, Same.KNOWN}:
            lines += ["", f"{row.same}: {row.call}", *([f"  because {row.reason}"] if row.reason else [])]
            lines += [f"  theirs {_text(row.theirs)}", f"  ours   {_text(row.ours)}"]
    counts = {same: sum(row.same is same for row in rows) for same in Same}
    lines += ["", ", ".join(f"{number} {same}" for same, number in counts.items())]
    return "\n".join(lines)


def _without(value: Any, fields: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {name: _without(inner, fields) for name, inner in value.items() if name not in fields}
    return [_without(inner, fields) for inner in value] if isinstance(value, list) else value


def _same(theirs: Any, ours: Any) -> Same:
    if theirs == ours:
        return Same.YES
    return Same.MORE if covers(theirs, ours) else Same.NO


def _line(*cells: str) -> str:
    shown = [
        (cell if len(cell) <= width else cell[: width - 1] + "…").ljust(width)
        for cell, width in zip(cells, WIDTHS, strict=True)
    ]
    return "  ".join(shown).rstrip()


def _text(outcome: Any) -> str:
    return outcome if isinstance(outcome, str) else json.dumps(outcome, ensure_ascii=False)
