"""Check the language of docstrings and comments: first sentences, and words that this project does not use.

`python scripts/language_rules.py [PATH ...]` prints each breach as `path:line: rule: text`; all packages by default.
"""

import ast
import re
import sys
import tokenize
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple

PACKAGES: Final = (
    "app",
    "benchmarks",
    "chaos",
    "cli",
    "coordinator_client",
    "devserver",
    "models",
    "runner",
    "runtime",
    "scripts",
    "server",
    "tests",
    "workers",
)
# Openers of first sentences that describe something else than an action: a first sentence is a verb and its object.
OPENERS: Final = re.compile(
    r"(?:What|Who|Whom|Whose|Whoever|Whatever|Whether|Which|It|They|He|She|Nobody|Somebody|Everybody|Anybody|There|That"
    r"|Those|These|One|Ones|None|How|Where|When|Why)\b"
)
# Metaphors of earlier versions, and words for persons where a process, a client or a runner is meant.
FORBIDDEN: Final = re.compile(
    r"\b(?:bells?|rings?|rung|rang|ringing|mailbox(?:es)?|engine rooms?|the house|rooms?|farewells?|company|hush(?:ed)?"
    r"|purses?|riders?|whoever|whomever|whom|nobody|somebody|anybody|everybody|hungry|seekers?|strangers?)\b",
    re.IGNORECASE,
)


class Breach(NamedTuple):
    """Breach of one rule at one place."""

    path: str
    line: int
    rule: str
    text: str


def breaches_of(path: str, text: str) -> Iterator[Breach]:
    """Return the breaches of one source file."""
    for node in ast.walk(ast.parse(text, path)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        docstring = ast.get_docstring(node)
        if docstring is None:
            continue
        line = node.body[0].lineno
        if OPENERS.match(docstring):
            yield Breach(path, line, "opener", docstring.splitlines()[0])
        for word in FORBIDDEN.finditer(docstring):
            yield Breach(path, line, "word", word[0])
    for token in tokenize.generate_tokens(StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            for word in FORBIDDEN.finditer(token.string):
                yield Breach(path, token.start[0], "word", f"{word[0]}: {token.string}")


def main(paths: list[str]) -> int:
    """Print every breach; return 1 if there is any."""
    root = Path(__file__).resolve().parent.parent
    chosen = [Path(path) for path in paths] or [root / package for package in PACKAGES]
    files = sorted(file for path in chosen for file in ([path] if path.is_file() else path.rglob("*.py")))
    found = 0
    for file in files:
        shown = file.resolve().relative_to(root).as_posix()
        for breach in breaches_of(shown, file.read_text(encoding="utf-8")):
            print(f"{breach.path}:{breach.line}: {breach.rule}: {breach.text}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
