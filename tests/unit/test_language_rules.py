"""Language rules: each kind of breach is reported, and sentences of the rule pass."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PATH = Path(__file__).resolve().parents[2] / "scripts" / "language_rules.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("language_rules", PATH)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = load()


def found(text: str) -> list[str]:
    return [breach.rule for breach in RULES.breaches_of("x.py", text)]


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ('"""What a run is."""\n', ["opener"]),
        ('def f():\n    """Who owns the run."""\n', ["opener"]),
        ('class A:\n    """It waits."""\n', ["opener"]),
        ('async def f():\n    """Return the run that nobody owns."""\n', ["word"]),
        ("x = 1  # Rings for the engine room.\n", ["word", "word"]),
        ("x = 1  # whoever comes first\n", ["word"]),
    ],
)
def test_breach_is_reported_with_its_rule(text: str, rules: list[str]) -> None:
    assert found(text) == rules


@pytest.mark.parametrize(
    "text",
    [
        '"""Return the runs that are ready."""\n',
        "def f():\n    return 'Nobody reads texts of the program.'\n",
        "x = 1  # Strings, bringing and mushrooms hold no word of the list as a whole.\n",
        '"""Itemise what is due."""\n',
    ],
)
def test_sentence_of_the_rule_passes(text: str) -> None:
    assert found(text) == []


def test_command_finds_no_breach_in_itself(capsys: pytest.CaptureFixture[str]) -> None:
    assert RULES.main([str(PATH)]) == 0
    assert capsys.readouterr().out == ""
