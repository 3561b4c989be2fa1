"""Result of a run: its last line, or the file that it wrote; never lost, never something else."""

import asyncio
import os

import pytest

from runner import results
from testkit.waiting import eventually_async
from tests.support.local_execution import Recorder, as_coroutine, execution, perform, perform_shell


async def test_process_may_live_on_after_its_result() -> None:
    """Print a JSON object longer before the exit than a quiet line is kept back."""
    recorder = await perform_shell("""echo hello; echo '{"result_text":"x"}'; sleep 1.2""")
    assert [result["result_text"] for result in recorder.results] == ["x"], "the result was lost"
    assert recorder.lines == ["hello", '{"result_text":"x"}']
    assert recorder.events[-1] is recorder.results[0]


BIG = "print('{\"result_text\": \"' + 'x' * int(sys.argv[1]) + '\"}')"


async def test_last_line_with_json_object_becomes_result() -> None:
    """Send it once, as the result, with its result_text as the text."""
    recorder = await perform('print(\'{"a": 1}\'); print(\'{"result_text": "done", "n": [1]}\')')
    assert recorder.lines == ['{"a": 1}']
    (result,) = recorder.results
    assert result["result_data"] == {"result_text": "done", "n": [1]}
    assert result["result_text"] == "done"
    assert recorder.events[-1] is result


async def test_result_without_text_has_none_and_may_lack_line_end() -> None:
    """Accept only a string as the text."""
    recorder = await perform("import sys; sys.stdout.write('{\"result_text\": 1}')")
    assert recorder.results[0]["result_data"] == {"result_text": 1}
    assert recorder.results[0]["result_text"] is None
    assert recorder.lines == []


async def test_last_line_without_object_is_a_line() -> None:
    """Print a list, a number, an object before another line, and an object of a failed run."""
    assert (await perform("print('[1]')")).results == []
    assert (await perform("print('{\"a\": 1}'); print('bye')")).lines == ['{"a": 1}', "bye"]
    assert (await perform("print('{\"a\": NaN}')")).lines == ['{"a": NaN}']
    failed = await perform("print('{\"a\": 1}'); raise SystemExit(1)")
    assert (failed.lines, failed.results) == (['{"a": 1}'], [])


@pytest.mark.parametrize(
    "script",
    [
        """printf '{"result_text":"x"}\\n\\n  \\n\\t\\n'""",
        """printf '   {"result_text":"x"}   \\r\\n'""",
        """printf '\\033[32m{"result_text":"x"}\\033[0m\\n\\033[?25h'""",
        """printf '{"result_text":"x"}\\n\\033[0m\\n'""",
        """printf 'working...\\r{"result_text":"x"}\\n'""",
        """printf '{"result_text":"x"}\\ncleaning up\\r\\033[K'""",
        """printf '{"result_'; sleep 0.8; printf 'text":"x"}'; sleep 0.8; printf '\\n\\n'""",
        """printf '{"result_text":"x"}\\n'; for n in $(seq 300); do echo; done""",
        """echo '{"result_text":"x"}'; echo not the last word >&2""",
        """(sleep 0.2; echo '{"result_text":"x"}') & exit 0""",
    ],
    ids=["blank lines", "indented", "codes", "codes behind", "progress", "erased", "pauses", "many", "stderr", "left"],
)
async def test_invisible_output_after_result_does_not_matter(script: str) -> None:
    """Skip blank lines, blanks, terminal codes, progress and pauses."""
    recorder = await perform_shell(script)
    assert [result["result_text"] for result in recorder.results] == ["x"]
    assert recorder.reports[0]["outcome"] == "completed"


async def test_blank_lines_after_result_are_sent_in_place() -> None:
    """Keep the rest of the output as it was without the result."""
    recorder = await perform_shell("""echo before; echo '{"a":1}'; echo; echo ' '""")
    assert recorder.said() == "before\n\n \n"
    assert recorder.results[0]["result_data"] == {"a": 1}
    other = await perform_shell("""echo '{"a":1}'; echo; echo after""")
    assert (other.said(), other.results) == ('{"a":1}\n\nafter\n', [])


async def test_json_line_is_sent_soon_though_it_may_be_the_result() -> None:
    """Follow programs live that log JSON."""
    recorder = Recorder()
    task = asyncio.create_task(
        execution(recorder, 'import time; print(\'{"level": "info"}\'); time.sleep(60)').perform()
    )
    await eventually_async(as_coroutine(lambda: recorder.lines == ['{"level": "info"}']))
    task.cancel()
    await asyncio.wait([task])


async def test_result_file_wins_over_last_line() -> None:
    """Send the last line as a line."""
    recorder = await perform_shell(
        """echo '{"result_text":"line"}'; echo '{"result_text":"file","n":1}' > "$COORDINATOR_RUN_RESULT_FILE" """
    )
    assert recorder.lines == ['{"result_text":"line"}']
    (result,) = recorder.results
    assert (result["result_text"], result["result_data"]) == ("file", {"result_text": "file", "n": 1})


@pytest.mark.parametrize(
    ("written", "text", "data"),
    [
        ("just text\n", "just text", None),
        ("two\n\nlines\n\n", "two\n\nlines\n", None),
        ('{"a": {"b": 1}}', None, {"a": {"b": 1}}),
        ('{\n  "result_text": "pretty",\n  "n": 1\n}\n', "pretty", {"result_text": "pretty", "n": 1}),
        ('\ufeff{"a": 1}', None, {"a": 1}),
        ("[1, 2]", "[1, 2]", None),
        ("{broken", "{broken", None),
    ],
)
async def test_result_file_holds_object_or_text(written: str, text: str | None, data: object) -> None:
    """Take an object as the data and everything else as the text, without one line end at the end."""
    recorder = await perform(
        "import os, sys; open(os.environ['COORDINATOR_RUN_RESULT_FILE'], 'w').write(sys.argv[1])", written
    )
    (result,) = recorder.results
    assert (result["result_text"], result["result_data"]) == (text, data)


@pytest.mark.parametrize("script", ["", ': > "$COORDINATOR_RUN_RESULT_FILE"', 'echo > "$COORDINATOR_RUN_RESULT_FILE"'])
async def test_blank_result_file_leaves_result_to_last_line(script: str) -> None:
    """Leave it unwritten, empty or blank."""
    recorder = await perform_shell(script + """\necho '{"result_text":"line"}'""")
    assert recorder.results[0]["result_text"] == "line"


async def test_result_file_is_private_and_removed_with_the_run() -> None:
    """Remove other files of the process too; a failed run has no result."""
    recorder = await perform_shell(
        'd=$(dirname "$COORDINATOR_RUN_RESULT_FILE"); echo "$d"; stat -c %a "$d"; mkdir "$d/more"; '
        'echo x > "$d/more/file"; echo result > "$COORDINATOR_RUN_RESULT_FILE"; exit 1'
    )
    directory, mode = recorder.lines
    assert mode == "700"
    assert not os.path.lexists(directory)  # noqa: ASYNC240 -- nothing else runs here
    assert recorder.results == []
    assert recorder.reports[0]["outcome"] == "failed"


async def test_result_file_that_is_a_pipe_fails_the_run() -> None:
    """Read without blocking from a pipe without a writer."""
    for made in ("mkfifo", "mkdir"):
        recorder = await perform_shell(f'{made} "$COORDINATOR_RUN_RESULT_FILE"; echo bye')
        assert recorder.reports[0]["outcome"] == "failed"
        assert recorder.reports[0]["error"].startswith("Result file cannot be read: ")
        assert (recorder.lines, recorder.results) == (["bye"], [])


async def test_largest_result_is_sent_whole() -> None:
    """Allow up to 4 MiB."""
    recorder = await perform(f"import sys; {BIG}", str(results.MOST_BYTES - 20))
    assert len(recorder.results[0]["result_text"] or "") == results.MOST_BYTES - 20
    assert recorder.lines == []


async def test_oversized_result_fails_the_run_with_reason() -> None:
    """Never complete it without a result, whichever way it came."""
    most = results.MOST_BYTES
    too_long = await perform(f"import sys; {BIG}; print()", str(most))
    assert too_long.reports[0]["outcome"] == "failed"
    assert too_long.reports[0]["error"] == f"Result too large: {most + 19} bytes, at most {most}"
    assert too_long.results == []
    wide = await perform("import json; print(json.dumps({'a': 'ü' * 3_000_000}, ensure_ascii=False))")
    assert wide.reports[0]["error"] == f"Result too large: 6000009 bytes, at most {most}"
    file = await perform_shell('head -c 5000000 /dev/zero > "$COORDINATOR_RUN_RESULT_FILE"')
    assert file.reports[0]["error"] == f"Result too large: 5000000 bytes, at most {most}"
    grown = await perform_shell('head -c 4000000 /dev/zero > "$COORDINATOR_RUN_RESULT_FILE"')
    assert grown.reports[0]["outcome"] == "failed"
    assert str(grown.reports[0]["error"]).startswith("Result too large: 24000")


async def test_long_last_line_without_object_is_no_result_and_no_failure() -> None:
    recorder = await perform("print('x' * 5_000_000)")
    assert recorder.reports[0]["outcome"] == "completed"
    assert recorder.said() == "x" * 5_000_000 + "\n"


async def test_environment_names_result_file_of_this_run() -> None:
    names = [(await perform_shell('echo "$COORDINATOR_RUN_RESULT_FILE"')).lines[0] for _ in range(2)]
    assert len(set(names)) == 2
    assert all(os.path.isabs(name) for name in names)  # noqa: PTH117 -- a text, as the process gets it
