"""Check that sections of the docs that the source cites, and files and folders that the docs name, exist."""

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

# Pages that tell what is; decisions tell what was.
DESCRIBING = (*sorted((ROOT / "docs").glob("*.md")), *(ROOT / name for name in ("CONTRIBUTING.md", "README.md")))
NAMED_PATH = re.compile(r"`([\w.-]+(?:/[\w.-]+)*(?:\.py|/))`")


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


def missing_paths(text: str) -> list[str]:
    """Return the paths named that exist neither from the root nor in a folder that the same paragraph names."""
    missing = []
    for paragraph in re.split(r"\n\n|\n(?=\|)", text):
        named = NAMED_PATH.findall(paragraph)
        folders = {ROOT, *(ROOT / name if name.endswith("/") else (ROOT / name).parent for name in named)}
        missing += [name for name in named if not any((folder / name).exists() for folder in folders)]
    return missing


@pytest.mark.parametrize("page", DESCRIBING, ids=lambda page: page.name)
def test_paths_that_docs_name_exist(page: Path) -> None:
    assert missing_paths(page.read_text(encoding="utf-8")) == []


def test_missing_path_is_found() -> None:
    text = "| `app/main.py` and `web.py` |\n| `web.py`, `app/gone/` |\n\n`models/` has `runs/`, not `main.py`."
    assert missing_paths(text) == ["web.py", "app/gone/", "main.py"]
