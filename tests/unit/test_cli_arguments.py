"""What people write on a client command's line, and what they read."""

import pytest
import typer

from cli import arguments, views
from runtime.printable import printable, printable_line


def test_a_prompt_and_parameters_become_one_object() -> None:
    """KEY=TEXT is text, KEY:=JSON is what it says."""
    assert arguments.parameters("do it", ["a=1", "b:=[1, null]", "c=x=y"]) == {
        "prompt": "do it",
        "a": "1",
        "b": [1, None],
        "c": "x=y",
    }


@pytest.mark.parametrize(("prompt", "params"), [("", []), ("x", ["a"]), ("x", ["=1"]), ("x", ["a:={"])])
def test_what_cannot_be_meant_is_a_usage_error(prompt: str, params: list[str]) -> None:
    """Exit code 2, before anything is sent."""
    with pytest.raises(typer.BadParameter):
        arguments.parameters(prompt, params)


def test_demands_name_only_what_is_asked_for() -> None:
    """Nothing asked for: nothing sent."""
    assert arguments.demands("", "", "", []) is None
    assert arguments.demands("h", "", "p", ["a,b", "c"]) == {
        "hostname": "h",
        "executor_profile": "p",
        "tags": ["a", "b", "c"],
    }


def test_nothing_a_run_printed_moves_the_cursor() -> None:
    """Escape sequences, bells and lone surrogates are shown as U+FFFD."""
    assert printable("a\x1b[2Jb\x07\r\n\tc\ud800ü") == "a\ufffd[2Jb\ufffd\ufffd\n\tc\ufffdü"


def test_printable_keeps_text_of_every_script_and_makes_one_line_on_demand() -> None:
    """Blanks of any width and joined emoji are no control codes; overrides of the writing direction are."""
    assert printable("a\xa0b\u3000c 👩\u200d👧 עברית e\u0301") == "a\xa0b\u3000c 👩\u200d👧 עברית e\u0301"
    assert printable("\u202eevil\u2066\u200e\ufeff\x7f\x85") == "\ufffdevil\ufffd\ufffd\ufffd\ufffd\ufffd"
    assert printable_line("a\r\nb\nc\td\re") == "a b c d\ufffde"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0.0 s"), (1.25, "1.2 s"), (59, "59 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_spans_are_told_in_one_unit(seconds: float, text: str) -> None:
    """As people would say it."""
    assert views.span(seconds) == text
