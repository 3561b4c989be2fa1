"""Check rules that ruff cannot express: one function a rule, whose docstring states the rule and its reason."""

import ast
import re
import sys
import tokenize
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

PACKAGES = (
    "app",
    "workers",
    "models",
    "runtime",
    "server",
    "devserver",
    "coordinator_client",
    "runner",
    "cli",
    "chaos",
    "benchmarks",
    "compat",
    "testkit",
    "scripts",
    "tests",
)
COMMITS = "runtime/postgres.py"
ENVIRONMENT = {"runtime/settings.py", "runtime/otel.py", "coordinator_client/trace_context.py"}
ASYNC_COMMITS = "app/writes/attempts.py"
SQL_OUTSIDE = {"runtime/postgres.py", "devserver/embedded_postgres.py"}
FREE = {"models", "chaos", "benchmarks", "compat", "testkit", "tests", "scripts"}
SQL_NAMES = {"text", "select", "insert", "update", "delete", "func", "literal_column", "TextClause"}
MOST_LINES, MOST_FUNCTION_LINES = 400, 60
LONGEST_SLEEP_SECONDS = 0.05
# Openers of first sentences that describe something else than an action.
OPENERS = re.compile(
    r"(?:What|Who|Whom|Whose|Whoever|Whatever|Whether|Which|It|They|He|She|Nobody|Somebody|Everybody|Anybody|There|That"
    r"|Those|These|One|Ones|None|How|Where|When|Why)\b"
)
# Metaphors of earlier versions, and words for persons where a process, a client or a runner is meant.
FORBIDDEN = re.compile(
    r"\b(?:bells?|rings?|rung|rang|ringing|mailbox(?:es)?|engine rooms?|the house|rooms?|farewells?|company|hush(?:ed)?"
    r"|purses?|riders?|whoever|whomever|whom|nobody|somebody|anybody|everybody|hungry|seekers?|strangers?)\b",
    re.IGNORECASE,
)

Finding = tuple[int, str]


@dataclass(frozen=True)
class File:
    path: str
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.path.split("/", 1)[0]

    @classmethod
    def parse(cls, path: str, text: str) -> "File":
        return cls(path, text, ast.parse(text, path))


def sql_stays_in_models(file: File) -> Iterator[Finding]:
    """Keep SQL in models/, so that every lock and every order of locks can be read in one package."""
    if file.package in FREE or file.path in SQL_OUTSIDE:
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
            for name in {alias.name for alias in node.names} & SQL_NAMES:
                yield node.lineno, f"`{name}` builds SQL"
        # A call without an argument is the pipeline of a Redis client.
        if isinstance(node, ast.Call) and node.args and _called(node) in {"execute", "exec_driver_sql", "scalars"}:
            yield node.lineno, f"`.{_called(node)}()` runs SQL"


def transactions_end_in_one_place(file: File) -> Iterator[Finding]:
    """Begin and commit transactions in runtime/postgres.py; those of the web are opened by app/writes/attempts.py only.

    The answer leaves after the commit, the wake-up after the answer: a commit elsewhere would break that order unseen.
    """
    if (
        file.path == COMMITS
        or file.package in {"chaos", "benchmarks", "compat", "testkit", "tests", "scripts"}
        or file.path.startswith("models/schema/migrat")
    ):
        return
    for node in ast.walk(file.tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in {"commit", "begin", "transaction"}
        ):
            yield node.lineno, f"`.{node.func.attr}()` outside {COMMITS}"
        if isinstance(node, ast.alias) and node.name == "transaction_async" and file.path != ASYNC_COMMITS:
            yield node.lineno, f"`transaction_async` outside {ASYNC_COMMITS}"


def files_are_short(file: File) -> Iterator[Finding]:
    """Limit files to 400 lines: a longer one holds two nouns, and is split by them."""
    count = len(file.text.splitlines())
    if count > MOST_LINES:
        yield MOST_LINES, f"{count} lines, at most {MOST_LINES}: split it by noun"


def functions_are_short(file: File) -> Iterator[Finding]:
    """Limit functions to 60 lines, their SQL included: a longer one does two things."""
    for node in ast.walk(file.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > MOST_FUNCTION_LINES:
                yield node.lineno, f"{node.name}() has {count} lines, at most {MOST_FUNCTION_LINES}"


def environment_is_read_once(file: File) -> Iterator[Finding]:
    """Read the environment in runtime/settings.py only: a setting has one name, one default and one check.

    A function called `child_environment` may read it to pass it on to a process that it starts; OpenTelemetry
    has variables of its own, and the client reads the trace that the process which started it passed on.
    """
    if file.path in ENVIRONMENT or file.package in {"testkit", "tests"}:
        return
    handed_on = {
        id(inner)
        for node in ast.walk(file.tree)
        if isinstance(node, ast.FunctionDef) and node.name == "child_environment"
        for inner in ast.walk(node)
    }
    for node in ast.walk(file.tree):
        if id(node) in handed_on:
            continue
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}:
            yield node.lineno, f"`.{node.attr}` reads the environment"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            for alias in node.names:
                if alias.name in {"environ", "environb", "getenv"}:
                    yield node.lineno, f"`{alias.name}` reads the environment"
        if isinstance(node, ast.keyword) and node.arg == "envvar":
            yield node.value.lineno, "`envvar=` reads the environment"


def no_base_http_middleware(file: File) -> Iterator[Finding]:
    """Forbid BaseHTTPMiddleware, and `@app.middleware("http")`, which is one.

    Behind it a long poll never learns that its client has gone, and takes a run with it.
    """
    for node in ast.walk(file.tree):
        if isinstance(node, ast.alias | ast.Attribute):
            name = node.name if isinstance(node, ast.alias) else node.attr
            if name == "BaseHTTPMiddleware":
                yield node.lineno, name
        if isinstance(node, ast.Call) and _called(node) == "middleware":
            yield node.lineno, '`.middleware("http")` makes a BaseHTTPMiddleware'


def models_stand_alone(file: File) -> Iterator[Finding]:
    """Limit imports of models/ to the standard library, SQLAlchemy, psycopg, orjson, cronsim (migrations: and alembic).

    Stored state must be readable and testable without the web, the workers or their libraries.
    """
    if file.package != "models":
        return
    allowed = {*sys.stdlib_module_names, "sqlalchemy", "psycopg", "orjson", "cronsim", "models"}
    if file.path.startswith("models/schema/migrat"):
        allowed.add("alembic")
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules = [node.module or ""]
        else:
            continue
        for module in modules:
            if module.split(".", 1)[0] not in allowed:
                yield node.lineno, f"imports {module}"


def tests_do_not_sleep(file: File) -> Iterator[Finding]:
    """Forbid fixed sleeps in tests: a test waits for a condition with a deadline (tests/support).

    A sleep is too short on a busy machine and too long on every other.
    """
    if file.package != "tests" or file.path.startswith("tests/support/"):
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and _called(node) == "sleep" and node.args:
            length = node.args[0]
            if (
                isinstance(length, ast.Constant)
                and isinstance(length.value, int | float)
                and length.value > LONGEST_SLEEP_SECONDS
            ):
                yield node.lineno, f"sleeps {length.value} s: use eventually()"


def no_test_is_skipped(file: File) -> Iterator[Finding]:
    """Forbid skip and xfail: a test that does not run checks nothing of what its name promises."""
    if file.package != "tests":
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"skip", "skipif", "skipIf", "xfail", "importorskip"}:
            yield node.lineno, f"`.{node.attr}`"


def silenced_tools_have_a_reason(file: File) -> Iterator[Finding]:
    """Require a code and a reason with `# type: ignore` and `# noqa`: without them no reader dares to remove one."""
    for token in tokenize.generate_tokens(StringIO(file.text).readline):
        if token.type != tokenize.COMMENT:
            continue
        for silencer in re.finditer(
            r"#\s*(type:\s*ignore|noqa)(?P<rest>[^#]*(?:#\s*(?!type:|noqa)[^#]*)?)", token.string
        ):
            if not re.match(r"(\[[\w, -]+\]|:\s*[A-Z]+\d+(,\s*[A-Z]+\d+)*)[\s#:-]+\w", silencer["rest"]):
                yield token.start[0], f"`{silencer[0].strip()}` without code and reason"


def sql_is_never_formatted(file: File) -> Iterator[Finding]:
    """Require a literal or a named constant in text() and sql(), never an f-string, `%` or format().

    Values are bound, and statuses and columns have names in sql().
    """
    for node in ast.walk(file.tree):
        if not (isinstance(node, ast.Call) and _called(node) in {"text", "sql"} and node.args):
            continue
        argument = node.args[0]
        formatted = isinstance(argument, ast.JoinedStr) or (
            isinstance(argument, ast.BinOp) and isinstance(argument.op, ast.Mod)
        )
        if formatted or (isinstance(argument, ast.Call) and _called(argument) in {"format", "format_map"}):
            yield node.lineno, f"{_called(node)}() of a formatted string"


def commands_print_in_one_place(file: File) -> Iterator[Finding]:
    """Print from cli/ and devserver/ through runtime/terminal.py only.

    Texts from a coordinator or a job must never control the terminal.
    """
    if file.package not in {"cli", "devserver"}:
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Call) and _called(node) in {"print", "echo", "secho", "Console"}:
            is_ours = _called(node) == "Console" and "devserver.console" in file.text
            if not is_ours:
                yield node.lineno, f"`{_called(node)}()` outside runtime/terminal.py"
        if isinstance(node, ast.Attribute) and node.attr == "write" and _is_stream(node.value):
            yield node.lineno, "writes to a standard stream outside runtime/terminal.py"


def _is_stream(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in {"stdout", "stderr"}


def machine_clock_is_not_stored(file: File) -> Iterator[Finding]:
    """Forbid the machine's clock in models/ and workers/: stored times are compared with the database's.

    Ids (models/core/ids.py) carry the machine's clock, and order nothing but themselves.
    """
    if file.package not in {"models", "workers"} or file.path == "models/core/ids.py":
        return
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Attribute) and node.attr in {"now", "utcnow", "today", "time", "time_ns"}:
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in {"datetime", "date", "time"}:
                yield node.lineno, f"`{owner}.{node.attr}` reads the machine's clock"


def first_sentences_are_actions(file: File) -> Iterator[Finding]:
    """Begin a docstring with a verb and its object: a reader scans first sentences to learn what the code does."""
    for line, docstring in _docstrings(file):
        if OPENERS.match(docstring):
            yield line, docstring.splitlines()[0]


def words_are_those_of_the_field(file: File) -> Iterator[Finding]:
    """Use the terms of docs/glossary.md in docstrings and comments: a newcomer cannot look up a metaphor of ours."""
    for line, docstring in _docstrings(file):
        for word in FORBIDDEN.finditer(docstring):
            yield line, f"`{word[0]}` in a docstring"
    for token in tokenize.generate_tokens(StringIO(file.text).readline):
        if token.type == tokenize.COMMENT:
            for word in FORBIDDEN.finditer(token.string):
                yield token.start[0], f"`{word[0]}` in a comment"


def _docstrings(file: File) -> Iterator[Finding]:
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                yield node.body[0].lineno, docstring


Rule = Callable[[File], Iterable[Finding]]
RULES: tuple[Rule, ...] = (
    sql_stays_in_models,
    transactions_end_in_one_place,
    files_are_short,
    functions_are_short,
    environment_is_read_once,
    no_base_http_middleware,
    models_stand_alone,
    tests_do_not_sleep,
    no_test_is_skipped,
    silenced_tools_have_a_reason,
    sql_is_never_formatted,
    commands_print_in_one_place,
    machine_clock_is_not_stored,
    first_sentences_are_actions,
    words_are_those_of_the_field,
)


def _called(node: ast.Call) -> str:
    match node.func:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def sources(root: Path) -> Iterator[File]:
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            yield File.parse(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))


def main(root: Path) -> int:
    breaches = 0
    for file in sources(root):
        for rule in RULES:
            for line, what in rule(file):
                print(f"{file.path}:{line}: {rule.__name__}: {what}")
                breaches += 1
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
