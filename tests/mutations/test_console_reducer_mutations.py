"""Break functions of the console on purpose, in a copy: its unit tests must notice."""

from pathlib import Path

import pytest

from tests.support.changed_console import changed_console, run_package

# File below console/src, what is broken in it, and the test that notices.
MUTATIONS = {
    "event that the snapshot has is applied again": (
        "live/cursor.ts",
        {"change.position > snapshot.position": "change.position >= snapshot.position"},
        "cursors are compared within one history",
    ),
    "older event overwrites a row": (
        "live/runs.ts",
        {"isLater(at, rowPositions.get(run) ?? snapshot)": "isLater(at, snapshot)"},
        "each event changes a row once",
    ),
    "older snapshot overwrites a row": (
        "live/runs.ts",
        {"shown && isLater(position, rowPositions.get(shown) ?? parseCursor(page.feed_cursor))": "shown"},
        "each event changes a row once",
    ),
    "gap before new rows is overlooked": (
        "live/runs.ts",
        {"newest.next_cursor !== undefined && !isEmpty": "false"},
        "a gap is noticed",
    ),
    "choice loses runs that are not loaded": (
        "pages/runs/chosen.ts",
        {"...chosen.ids, ...rows": "...rows"},
        "chosen runs stay chosen",
    ),
    "range forgets its anchor": (
        "pages/runs/chosen.ts",
        {"Math.min(from, to)": "to"},
        "a range gets the state",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_broken_function_of_console_is_noticed(tmp_path: Path, name: str) -> None:
    file, parts, test = MUTATIONS[name]
    tests = "tests/live.test.ts" if file.startswith("live/") else "tests/runs-page.test.ts"
    ended = run_package(changed_console(tmp_path, file, parts), "vitest/vitest.mjs", "run", "--no-color", tests)
    assert ended.returncode == 1, ended.stdout
    assert any(test in line for line in ended.stdout.splitlines() if "\u00d7" in line), ended.stdout
