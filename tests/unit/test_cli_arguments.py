"""Check the arguments of the client commands and the text that they print."""

import pytest
import typer

from cli import arguments, views
from runtime.printable import printable, printable_line


def test_prompt_and_parameters_become_one_object() -> None:
    """KEY=TEXT is text, KEY:=JSON is JSON."""
    assert arguments.parameters("do it", ["a=1", "b:=[1, null]", "c=x=y"]) == {
        "prompt": "do it",
        "a": "1",
        "b": [1, None],
        "c": "x=y",
    }


@pytest.mark.parametrize(("prompt", "params"), [("", []), ("x", ["a"]), ("x", ["=1"]), ("x", ["a:={"])])
def test_ambiguous_arguments_are_a_usage_error(prompt: str, params: list[str]) -> None:
    """Exit with code 2 before anything is sent."""
    with pytest.raises(typer.BadParameter):
        arguments.parameters(prompt, params)


def test_demands_hold_given_properties_only() -> None:
    assert arguments.demands("", "", "", []) is None
    assert arguments.demands("h", "", "p", ["a,b", "c"]) == {
        "hostname": "h",
        "executor_profile": "p",
        "tags": ["a", "b", "c"],
    }


def test_retry_is_attempts_and_pairs() -> None:
    """Take numbers in lists for exit codes; refuse other words before anything is sent."""
    assert arguments.retry("") is None
    assert arguments.retry("5") == {"max_attempts": 5}
    assert arguments.retry("max_attempts=3, initial=2,max=60,on=75|TimeoutError|-9,not_on=2") == {
        "max_attempts": 3,
        "backoff": {"initial": 2.0, "max": 60.0},
        "on": [75, "TimeoutError", -9],
        "not_on": [2],
    }
    for given in ("many", "5,soon", "5,initial=soon", "5,on", "-1"):
        with pytest.raises(typer.BadParameter):
            arguments.retry(given)


def test_control_codes_of_a_run_are_shown_as_replacement_characters() -> None:
    """Show escape sequences, BEL and lone surrogates as U+FFFD."""
    assert printable("a\x1b[2Jb\x07\r\n\tc\ud800ü") == "a\ufffd[2Jb\ufffd\ufffd\n\tc\ufffdü"


def test_printable_keeps_text_of_every_script_and_makes_one_line_on_demand() -> None:
    """Keep blanks of any width and joined emoji; replace overrides of the writing direction."""
    assert printable("a\xa0b\u3000c 👩\u200d👧 עברית e\u0301") == "a\xa0b\u3000c 👩\u200d👧 עברית e\u0301"
    assert printable("\u202eevil\u2066\u200e\ufeff\x7f\x85") == "\ufffdevil\ufffd\ufffd\ufffd\ufffd\ufffd"
    assert printable_line("a\r\nb\nc\td\re") == "a b c d\ufffde"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0.0 s"), (1.25, "1.2 s"), (59, "59 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_durations_are_shown_in_one_unit(seconds: float, text: str) -> None:
    assert views.span(seconds) == text
