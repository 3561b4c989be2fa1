"""Check the prompts that tell parents of their children, byte for byte (PROTOCOL, Parents and children)."""

import json
from typing import Any

import pytest

from models.callbacks.prompts import ChildResult, callback_prompt


def completed(session_id: str = "ses_a", **event: Any) -> ChildResult:
    """Return a completed child whose newest result event holds these fields."""
    return ChildResult(session_id, "completed", json.dumps({"data": event}))


def failed(session_id: str = "ses_b", error: str | None = "disk full") -> ChildResult:
    return ChildResult(session_id, "failed", json.dumps({"error": error}))


def stopped(session_id: str = "ses_c") -> ChildResult:
    return ChildResult(session_id, "stopped", '{"error": null}')


def result_of(child: ChildResult) -> str:
    """Return the text between the heading and the end of the tag."""
    return callback_prompt([child]).split("\n\n", 1)[1].rsplit("\n</agent-callback>", 1)[0]


def test_one_completed_child() -> None:
    assert callback_prompt([completed(result_text="42 files", result_data=None)]) == (
        '<agent-callback session="ses_a" status="completed">\n'
        "## Child Result\n"
        "\n"
        "42 files\n"
        "</agent-callback>\n"
        "\n"
        "Please continue with the orchestration based on this result."
    )


def test_one_failed_child() -> None:
    assert callback_prompt([failed()]) == (
        '<agent-callback session="ses_b" status="failed">\n'
        "## Error\n"
        "\n"
        "disk full\n"
        "</agent-callback>\n"
        "\n"
        "Please handle this failure and continue with the orchestration."
    )


def test_stopped_child_is_reported_as_failed() -> None:
    assert callback_prompt([stopped()]) == (
        '<agent-callback session="ses_c" status="failed">\n'
        "## Error\n"
        "\n"
        "Session was manually stopped\n"
        "</agent-callback>\n"
        "\n"
        "Please handle this failure and continue with the orchestration."
    )


def test_several_children_share_one_prompt() -> None:
    """Keep the given order, with a line between them."""
    assert callback_prompt([completed(result_data={"n": [1, 2]}), failed(), stopped()]) == (
        '<agent-callback type="aggregated" count="3">\n'
        "### Child: ses_a (status: completed)\n"
        "\n"
        "{\n"
        '  "n": [\n'
        "    1,\n"
        "    2\n"
        "  ]\n"
        "}\n"
        "\n"
        "---\n"
        "\n"
        "### Child: ses_b (status: failed)\n"
        "\n"
        "disk full\n"
        "\n"
        "---\n"
        "\n"
        "### Child: ses_c (status: failed)\n"
        "\n"
        "Session was manually stopped\n"
        "</agent-callback>\n"
        "\n"
        "Please continue with the orchestration based on these results."
    )


@pytest.mark.parametrize(
    ("event", "text"),
    [
        ({"result_text": "text", "result_data": {"a": 1}}, '{\n  "a": 1\n}'),
        ({"result_text": "text", "result_data": []}, "[]"),
        ({"result_text": "text", "result_data": False}, "false"),
        ({"result_text": "text", "result_data": "ü"}, '"\\u00fc"'),
        ({"result_text": "two\nlines"}, "two\nlines"),
        ({"result_text": ""}, "(No result available)"),
        ({"result_text": None}, "(No result available)"),
        ({"result_text": None, "truncated": ["result_text"]}, "(No result available)"),
        ({"result_text": {"not": "text"}}, '{\n  "not": "text"\n}'),
        ({}, "(No result available)"),
    ],
)
def test_result_data_is_preferred_to_text(event: dict[str, Any], text: str) -> None:
    """Format data as `json.dumps(indent=2)` does; `false` counts as data."""
    assert result_of(completed(**event)) == text


def test_child_without_result_event_says_so() -> None:
    assert result_of(ChildResult("ses_a", "completed", "{}")) == "(No result available)"


@pytest.mark.parametrize("error", [None, ""])
def test_failure_without_reason_is_unknown_error(error: str | None) -> None:
    """Deployed clients sometimes send no reason."""
    assert result_of(failed(error=error)) == "Unknown error"


def test_unstorable_characters_do_not_reach_the_runner() -> None:
    """Replace lone surrogates, which cannot be written to a process, and NUL, which cannot be an argument; escaped in
    data they stay.
    """
    assert result_of(completed(result_text="a\ud800b\0c")) == "a\ufffdb\ufffdc"
    assert result_of(completed(result_data="a\ud800b\0c")) == '"a\\ud800b\\u0000c"'
