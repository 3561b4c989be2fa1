"""Check that each house rule reports what it forbids and ignores what merely looks like it."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house_rules", ROOT / "scripts" / "house_rules.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house_rules"] = module
    spec.loader.exec_module(module)
    return module


house_rules = _load()
LONG_FUNCTION = "def verb():\n" + "    x = 1\n" * 60
SHORT_FUNCTION = "def verb():\n" + "    x = 1\n" * 59
# Assemble the names at run time, so that this file itself breaks no rule.
IGNORE, NOQA = "# type: " + "ignore", "# no" + "qa"

BREACHES = [
    ("sql_stays_in_models", "app/x.py", "from sqlalchemy import text"),
    ("sql_stays_in_models", "workers/x.py", "from sqlalchemy.dialects.postgresql import insert"),
    ("sql_stays_in_models", "cli/x.py", "connection.execute(statement)"),
    ("sql_stays_in_models", "runtime/x.py", "connection.exec_driver_sql('SELECT 1')"),
    ("transactions_end_in_one_place", "app/x.py", "connection.commit()"),
    ("transactions_end_in_one_place", "workers/x.py", "with engine.begin() as c: pass"),
    ("transactions_end_in_one_place", "models/x.py", "conn.commit()"),
    ("transactions_end_in_one_place", "app/writes/group_commit.py", "connection.commit()"),
    ("transactions_end_in_one_place", "app/x.py", "async with driver.transaction(): pass"),
    ("transactions_end_in_one_place", "app/x.py", "from runtime.postgres import transaction_async"),
    ("files_are_short", "app/x.py", "x = 1\n" * 401),
    ("functions_are_short", "app/x.py", LONG_FUNCTION),
    ("functions_are_short", "app/x.py", "async " + LONG_FUNCTION),
    ("environment_is_read_once", "app/x.py", "import os\nos.environ['A']"),
    ("environment_is_read_once", "runner/x.py", "import os\nos.getenv('A')"),
    ("environment_is_read_once", "cli/x.py", "from os import environ"),
    ("environment_is_read_once", "cli/x.py", "typer.Option('--url', envvar='X')"),
    ("no_base_http_middleware", "app/x.py", "from starlette.middleware.base import BaseHTTPMiddleware"),
    ("no_base_http_middleware", "app/x.py", "class A(base.BaseHTTPMiddleware): pass"),
    ("no_base_http_middleware", "app/x.py", "@app.middleware('http')\nasync def f(): pass"),
    ("models_stand_alone", "models/x.py", "import pydantic"),
    ("models_stand_alone", "models/x.py", "from runtime.settings import Settings"),
    ("models_stand_alone", "models/x.py", "from alembic import op"),
    ("tests_do_not_sleep", "tests/unit/x.py", "time.sleep(1)"),
    ("tests_do_not_sleep", "tests/unit/x.py", "await asyncio.sleep(0.1)"),
    ("no_test_is_skipped", "tests/unit/x.py", "@pytest.mark.skipif(True)\ndef test_a(): 'x'"),
    ("no_test_is_skipped", "tests/unit/x.py", "pytest.skip('later')"),
    ("no_test_is_skipped", "tests/unit/x.py", "@pytest.mark.xfail\ndef test_a(): 'x'"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = 1  {IGNORE}"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = 1  {IGNORE}[arg-type]"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = 1  {NOQA}"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = 1  {NOQA}: S101"),
    ("commands_print_in_one_place", "cli/x.py", "print(1)"),
    ("machine_clock_is_not_stored", "models/x.py", "datetime.now(UTC)"),
    ("machine_clock_is_not_stored", "workers/x.py", "datetime.datetime.utcnow()"),
    ("machine_clock_is_not_stored", "models/x.py", "time.time()"),
    ("commands_print_in_one_place", "cli/x.py", "typer.echo(1)"),
    ("commands_print_in_one_place", "cli/x.py", "rich.Console().print(1)"),
    ("commands_print_in_one_place", "cli/x.py", "sys.stderr.write(1)"),
    ("sql_is_never_formatted", "models/x.py", "text(f'SELECT {x}')"),
    ("sql_is_never_formatted", "models/x.py", "sqlalchemy.text('SELECT %s' % x)"),
    ("sql_is_never_formatted", "models/x.py", "text('SELECT {}'.format(x))"),
    ("sql_is_never_formatted", "models/x.py", "sql(f'SELECT {x}')"),
    ("first_sentences_are_actions", "app/x.py", '"""What a run is."""'),
    ("first_sentences_are_actions", "app/x.py", 'def f():\n    """Who owns the run."""'),
    ("first_sentences_are_actions", "app/x.py", 'class A:\n    """It waits."""'),
    ("words_are_those_of_the_field", "app/x.py", 'async def f():\n    """Return the run that nobody owns."""'),
    ("words_are_those_of_the_field", "app/x.py", "x = 1  # whoever comes first"),
    ("words_are_those_of_the_field", "app/x.py", "x = 1  # Rings for the engine room."),
]
ALLOWED = [
    ("sql_stays_in_models", "models/x.py", "from sqlalchemy import text\nconn.execute(text('SELECT 1'))"),
    ("sql_stays_in_models", "app/x.py", "from sqlalchemy import Connection\nawait connection.run_sync(get_run)"),
    ("sql_stays_in_models", "workers/x.py", "pipeline.execute()"),
    ("transactions_end_in_one_place", "app/writes/attempts.py", "from runtime.postgres import transaction_async"),
    ("transactions_end_in_one_place", "workers/x.py", "with transaction(engine) as connection: pass"),
    ("transactions_end_in_one_place", "runtime/postgres.py", "engine.begin()"),
    ("transactions_end_in_one_place", "models/x.py", "conn.begin_nested()"),
    ("files_are_short", "app/x.py", "x = 1\n" * 400),
    ("functions_are_short", "app/x.py", SHORT_FUNCTION),
    ("environment_is_read_once", "runtime/settings.py", "import os\nos.environ['A']"),
    ("environment_is_read_once", "runner/x.py", "def child_environment():\n    return {**os.environ, 'A': '1'}"),
    ("no_base_http_middleware", "app/x.py", "app.add_middleware(CORSMiddleware)"),
    ("models_stand_alone", "models/x.py", "import json\nfrom psycopg import sql\nfrom models.core.ids import ADMIN"),
    ("models_stand_alone", "models/schema/migrations/versions/x.py", "from alembic import op"),
    ("tests_do_not_sleep", "tests/unit/x.py", "time.sleep(0.01)\nawait asyncio.sleep(0)"),
    ("tests_do_not_sleep", "tests/support/x.py", "time.sleep(1)"),
    ("no_test_is_skipped", "tests/unit/x.py", "itertools.islice(x, 1)"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = 1  {IGNORE}[arg-type]  # its stub is wrong"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = 1  {NOQA}: S101 -- it cannot be None here"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = 1  {IGNORE}[misc]  {NOQA}: S101 one reason for both"),
    ("silenced_tools_have_a_reason", "app/x.py", f"x = '{NOQA}'"),
    ("sql_is_never_formatted", "models/x.py", "text('SELECT :x')\ntext(CLAIM)\nsql('SELECT $PENDING')"),
    ("commands_print_in_one_place", "runtime/terminal.py", "print(printable(text))"),
    ("commands_print_in_one_place", "cli/x.py", "say(text)\nsys.stdout.flush()"),
    ("commands_print_in_one_place", "scripts/x.py", "print(1)"),
    ("machine_clock_is_not_stored", "models/core/ids.py", "time.time_ns()"),
    ("machine_clock_is_not_stored", "workers/x.py", "time.monotonic()\nredis.time()"),
    ("first_sentences_are_actions", "app/x.py", '"""Return the runs that are ready."""'),
    ("first_sentences_are_actions", "app/x.py", '"""Itemise what is due."""'),
    ("first_sentences_are_actions", "app/x.py", "def f():\n    return 'Nobody reads texts of the program.'"),
    ("words_are_those_of_the_field", "app/x.py", "def f():\n    return 'Nobody reads texts of the program.'"),
    ("words_are_those_of_the_field", "app/x.py", "x = 1  # Strings, bringing and mushrooms hold no word as a whole."),
    ("machine_clock_is_not_stored", "runner/x.py", "datetime.now(UTC)"),
]


def findings(rule: str, path: str, source: str) -> list[object]:
    return list(getattr(house_rules, rule)(house_rules.File.parse(path, source)))


@pytest.mark.parametrize(("rule", "path", "source"), BREACHES, ids=[str(n) for n in range(len(BREACHES))])
def test_breach_is_found(rule: str, path: str, source: str) -> None:
    assert findings(rule, path, source)


@pytest.mark.parametrize(("rule", "path", "source"), ALLOWED, ids=[str(n) for n in range(len(ALLOWED))])
def test_allowed_code_is_not_reported(rule: str, path: str, source: str) -> None:
    assert findings(rule, path, source) == []


def test_every_word_of_a_line_is_reported() -> None:
    assert len(findings("words_are_those_of_the_field", "app/x.py", "x = 1  # Rings for the engine room.\n")) == 2


def test_every_rule_has_a_reason_and_both_kinds_of_examples() -> None:
    names = {rule.__name__ for rule in house_rules.RULES}
    assert names == {rule for rule, _, _ in BREACHES} == {rule for rule, _, _ in ALLOWED}
    assert all(len(rule.__doc__) > 60 for rule in house_rules.RULES)


def test_breach_is_printed_with_its_place_and_fails_the_check(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "x.py").write_text("import os\n\nkey = os.environ['KEY']\n")
    assert house_rules.main(tmp_path) == 1
    expected = "app/x.py:3: environment_is_read_once: `.environ` reads the environment\n"
    assert capsys.readouterr().out == expected
    (tmp_path / "app" / "x.py").write_text("key = 1\n")
    assert house_rules.main(tmp_path) == 0
