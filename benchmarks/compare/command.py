import argparse
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from benchmarks.compare.checkout import NotUsable, Version, checked_out, commit_of, here
from benchmarks.compare.comparison import Comparison, present, table, turn_order
from benchmarks.rows import ROWS

BY_NAME = {row.name: row for row in ROWS}


def main(arguments: Sequence[str]) -> int:
    asked = _arguments(arguments)
    # Exit as Ctrl-C does, so that no process and no worktree is left.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        with checked_out(commit_of(asked.revision)) as before:
            comparison = _compare(before, here(), asked.rows or list(BY_NAME), asked.turns, quick=asked.quick)
    except (NotUsable, subprocess.CalledProcessError) as error:
        _tell(str(error))
        return 1
    if asked.json:
        asked.json.write_bytes(orjson.dumps(comparison.as_json(), option=orjson.OPT_INDENT_2))
    print(table(comparison, BY_NAME))
    return 1 if comparison.failed or not comparison.taken else 0


def _compare(before: Version, after: Version, rows: Sequence[str], turns: int, *, quick: bool) -> Comparison:
    versions = before, after
    both, *lacking = present(rows, before.rows(), after.rows())
    missing = {version.name: names for version, names in zip(versions, lacking, strict=True)}
    comparison = Comparison(before.name, after.name, missing=missing)
    for version, names in missing.items():
        if names:
            _tell(f"not at {version}: {', '.join(names)}")
    for turn in range(1 if quick else turns):
        for row in both:
            taken = comparison.taken.setdefault(row, ([], []))
            for place in turn_order(turn):
                _tell(f"turn {turn + 1}, {row}, {versions[place].name}")
                taken[place].append(versions[place].measure(row, quick=quick))
    return comparison


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench compare",
        description="Measure rows at another revision and in this checkout in turns, and print one table: medians with"
        " the least and the most, and the ratio of this checkout to the revision. Each version is measured by its own"
        " benchmarks, so that a row must exist in both. The revision is checked out into a temporary worktree, with"
        " this environment if its lock is the same, and removed at the end.",
    )
    parser.add_argument("revision", metavar="REV", help="commit, branch or tag to compare this checkout with")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="row to measure (default: all)")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="measurements of each row and version (3)")
    parser.add_argument("--quick", action="store_true", help="measure smaller and shorter, one turn, to check it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures of every turn to FILE")
    asked = parser.parse_args(arguments)
    unknown = set(asked.rows) - BY_NAME.keys()
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))} (scripts/bench --list names them)")
    if asked.turns < 1:
        parser.error("--turns must be at least 1")
    return asked


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
