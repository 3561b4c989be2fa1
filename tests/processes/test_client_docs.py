"""Run every Python and TypeScript example of docs/clients.md, in order, against a real coordinator."""

import ast
import contextlib
import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from devserver.supervisor import ROOT
from testkit.cluster import Cluster
from tests.support.coordination import Coordination
from tests.support.task_runners import start_program
from tests.support.typescript_client import run_program

PAGE = ROOT / "docs" / "clients.md"
BLOCK = re.compile(r'^```python(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$', re.MULTILINE | re.DOTALL)
TYPESCRIPT = re.compile(r"^```typescript\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")


def blocks() -> Iterator[tuple[str, str]]:
    """Yield title and code of each example; a title is the name of a program's file."""
    text = PAGE.read_text(encoding="utf-8")
    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        yield found["title"] or "", "\n" * line + found["code"]


def test_examples_of_the_page_run(cluster: Cluster, tmp_path: Path) -> None:
    """Share names between the examples, as a reader who types them in; start those that are programs.

    Those in TypeScript are compiled as one program of a package that has the client installed.
    """
    url = cluster.start_web().url
    cluster.start_worker()
    Coordination(cluster, url).start_runner("--name", "demo", "--", sys.executable, "-m", "runner.demo")
    names: dict[str, Any] = {"__name__": "examples"}
    said = io.StringIO()
    for title, code in blocks():
        shown = ADDRESS.sub(url, code)
        if title:
            (tmp_path / title).write_text(shown)
            start_program(cluster, str(tmp_path / title))
            continue
        with contextlib.redirect_stdout(said):
            exec(compile(ast.parse(shown, str(PAGE)), str(PAGE), "exec"), names)  # noqa: S102 - our own page
    names["coordinator"].close()
    lines = said.getvalue().splitlines()
    assert lines[0].startswith("You said: count the stars {")
    assert "You said: count the planets" in lines
    assert "assistant thinking it over" in lines
    assert lines[lines.index("{'width': 320}") :][:3] == ["{'width': 320}", "[285, 332833500]", "Hello Ada"]
    assert any(line.split()[1:2] == ["session_created"] for line in lines)
    assert lines[-1] == "completed"

    said_by_node = run_program(tmp_path, ADDRESS.sub(url, "\n".join(TYPESCRIPT.findall(PAGE.read_text())))).splitlines()
    assert said_by_node[0].startswith("You said: count the comets {")
    assert "assistant thinking it over" in said_by_node
    assert any(line.split()[1:2] == ["session_created"] for line in said_by_node)
    assert said_by_node[-2] == "404 Run not found"
