"""Fit the repository's Markdown into the site of scripts/docs: its pages outside docs/, and links that leave docs/.

The files stay as GitHub shows them; mkdocs calls the functions below by their names.
"""

import posixpath
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
# Pages outside docs/, with their places in the site.
PAGES: Final = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "report-a-vulnerability.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
}
SOURCES: Final = {page: source for source, page in PAGES.items()}
DECISIONS: Final = "decisions/"
# Title that the OpenAPI plugin puts below the page's own: a page with two has no table of contents.
OPENAPI_TITLE: Final = re.compile(r"^# Coordinator .*\n", re.MULTILINE)
LINK: Final = re.compile(r"\[([^\]\[]*)\]\(([^)\s]+)\)")


def on_config(config: Any) -> Any:
    pages = [f"{DECISIONS}{path.name}" for path in decisions()]
    for section in config.nav:
        for entries in section.values():
            for entry in entries if isinstance(entries, list) else []:
                entry.update({title: [f"{DECISIONS}index.md", *pages] for title in entry if entry[title] == DECISIONS})
    return config


def on_files(files: Any, *, config: Any) -> Any:
    for source, page in PAGES.items():
        files.append(_file(config, page, abs_src_path=str(ROOT / source)))
    lines = [f"- [{path.read_text().partition(chr(10))[0].lstrip('# ')}]({path.name})" for path in decisions()]
    files.append(_file(config, f"{DECISIONS}index.md", content="\n".join(["# Decisions", "", *lines])))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    uri = page.file.src_uri
    source = SOURCES.get(uri, f"docs/{uri}")

    def replace(found: re.Match[str]) -> str:
        text, link = found.groups()
        place = place_of(link, source)
        if place is None:
            return text
        if place == link:
            return found[0]
        path, _, anchor = place.partition("#")
        if path.startswith("source/") and files.get_file_from_path(path) is None:
            original = ROOT / path.removeprefix("source/").removesuffix(".txt")
            files.append(_file(config, path, abs_src_path=str(original)))
        relative = posixpath.relpath(path, posixpath.dirname(uri) or ".")
        return f"[{text}]({relative}{'#' if anchor else ''}{anchor})"

    return LINK.sub(replace, OPENAPI_TITLE.sub("", markdown))


def place_of(link: str, source: str) -> str | None:
    """Return the target of a repository file's link in the site; None for a directory of source.

    A link to no file of the repository stays as it is, so that mkdocs reports it.
    """
    path, hash_sign, anchor = link.partition("#")
    if not path or ":" in path:
        return link
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if target in PAGES:
        return PAGES[target] + hash_sign + anchor
    if target == "docs/decisions":
        return f"{DECISIONS}index.md"
    if target.startswith("docs/"):
        return target.removeprefix("docs/") + hash_sign + anchor
    if (ROOT / target).is_dir():
        return None
    # Copied as text, which browsers show instead of saving it.
    return f"source/{target}.txt" if (ROOT / target).is_file() else link


def decisions() -> list[Path]:
    return sorted((ROOT / "docs" / "decisions").glob("*.md"))


def _file(config: Any, uri: str, **source: str) -> Any:
    from mkdocs.structure.files import File  # noqa: PLC0415 -- only the environment of scripts/docs has mkdocs

    return File.generated(config, uri, **source)
