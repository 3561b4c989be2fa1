"""Table of docs/guarantees.md: the promises and the tests that prove them."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = [
    line.split(" | ")
    for line in (TESTS.parent / "docs" / "guarantees.md").read_text().split("\n|---|---|---|\n")[1].splitlines()
    if line.startswith("| ")
]


def test_every_test_file_that_table_names_exists() -> None:
    for _, tests, _ in ROWS:
        folder = ""
        for name in re.findall(r"`([\w/]+)`", tests):
            folder, _, stem = name.rpartition("/") if "/" in name else (folder, "", name)
            assert (TESTS / folder / f"{stem}.py").is_file(), name


def test_every_mutation_file_stands_behind_a_promise() -> None:
    named = {name for *_, mutations in ROWS for name in re.findall(r"`(\w+)`", mutations)}
    files = {
        path.stem.removeprefix("test_").removesuffix("_mutations") for path in (TESTS / "mutations").glob("test_*.py")
    }
    assert named == files
