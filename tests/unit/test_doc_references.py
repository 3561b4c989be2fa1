"""Check that each section of the docs that the source cites exists under that name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"ARCHITECTURE": ROOT / "docs" / "architecture.md", "PROTOCOL": ROOT / "docs" / "protocol.md"}
# Text behind a colon says more about the section. A reference may go on in the next line, also in that of a comment.
REFERENCE = re.compile(r"\((ARCHITECTURE|PROTOCOL)\b(?:,([^):]*))?[^)]*\)")
NEXT_LINE = re.compile(r"\s*\n\s*(?:#\s*)?")
FOLDERS = (
    "app",
    "cli",
    "coordinator_client",
    "devserver",
    "models",
    "runner",
    "runtime",
    "server",
    "testkit",
    "tests",
    "workers",
)


def headings(page: Path) -> set[str]:
    return set(re.findall(r"^#{2,} (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE))


def unknown_sections(text: str) -> list[str]:
    cited = REFERENCE.findall(NEXT_LINE.sub(" ", text))
    return [f"{page}, {name.strip()}" for page, name in cited if name.strip() not in headings(PAGES[page])]


@pytest.mark.parametrize("folder", FOLDERS)
def test_source_cites_only_sections_that_exist(folder: str) -> None:
    unknown = {
        path.relative_to(ROOT).as_posix(): sections
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != Path(__file__) and (sections := unknown_sections(path.read_text(encoding="utf-8")))
    }
    assert unknown == {}


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("Claim runs (ARCHITECTURE,\n    Lock order).", []),
        ("# Do it first (ARCHITECTURE, Lock\n    # order); then wait", []),
        ("Reason (PROTOCOL, Feed: the reasons of ``reset``).", []),
        ("Parse (PROTOCOL).", ["PROTOCOL, "]),
        ("Drain (ARCHITECTURE, Living and dying).", ["ARCHITECTURE, Living and dying"]),
    ],
)
def test_unknown_section_is_found(text: str, unknown: list[str]) -> None:
    assert unknown_sections(text) == unknown
