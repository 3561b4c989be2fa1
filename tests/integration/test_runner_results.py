"""What a run came to: its last line, or the file it wrote; never lost, never something else."""

import asyncio
import os

import pytest

from runner import results
from tests.support.local_execution import Recorder, asked, execution, perform, perform_shell
from tests.support.run_scenarios import result_before_a_pause
from tests.support.waiting import eventually_async

BIG = "print('{\"result_text\": \"' + 'x' * int(sys.argv[1]) + '\"}')"


async def test_last_line_that_is_a_json_object_becomes_the_result() -> None:
    """It is told once, as the result; its text is what it calls result_text."""
    recorder = await perform('print(\'{"a": 1}\'); print(\'{"result_text": "done", "n": [1]}\')')
    assert recorder.lines == ['{"a": 1}']
    (result,) = recorder.results
    assert result["result_data"] == {"result_text": "done", "n": [1]}
    assert result["result_text"] == "done"
    assert recorder.events[-1] is result


async def test_result_without_text_has_none_and_may_lack_its_line_end() -> None:
    """Only a text is a text."""
    recorder = await perform("import sys; sys.stdout.write('{\"result_text\": 1}')")
    assert recorder.results[0]["result_data"] == {"result_text": 1}
    assert recorder.results[0]["result_text"] is None
    assert recorder.lines == []


async def test_what_is_no_object_or_not_last_is_a_line() -> None:
    """A list, a number, an object with a line behind it, an object of a failed run."""
    assert (await perform("print('[1]')")).results == []
    assert (await perform("print('{\"a\": 1}'); print('bye')")).lines == ['{"a": 1}', "bye"]
    assert (await perform("print('{\"a\": NaN}')")).lines == ['{"a": NaN}']
    failed = await perform("print('{\"a\": 1}'); raise SystemExit(1)")
    assert (failed.lines, failed.results) == (['{"a": 1}'], [])


async def test_process_may_live_on_after_its_result() -> None:
    """Shown as a line while it lives, and the result at the exit all the same."""
    await result_before_a_pause()


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
async def test_what_does_not_show_beside_the_result_does_not_matter(script: str) -> None:
    """Blank lines, blanks, terminal codes, progress, pauses: it is the last line with something on it."""
    recorder = await perform_shell(script)
    assert [result["result_text"] for result in recorder.results] == ["x"]
    assert recorder.reports[0]["outcome"] == "completed"


async def test_blank_lines_behind_a_result_are_told_in_their_place() -> None:
    """Without the result the rest of the output is as it was."""
    recorder = await perform_shell("""echo before; echo '{"a":1}'; echo; echo ' '""")
    assert recorder.said() == "before\n\n \n"
    assert recorder.results[0]["result_data"] == {"a": 1}
    other = await perform_shell("""echo '{"a":1}'; echo; echo after""")
    assert (other.said(), other.results) == ('{"a":1}\n\nafter\n', [])


async def test_json_line_is_told_soon_though_it_might_be_the_result() -> None:
    """Programs that log JSON are followed live."""
    recorder = Recorder()
    task = asyncio.create_task(
        execution(recorder, 'import time; print(\'{"level": "info"}\'); time.sleep(60)').perform()
    )
    await eventually_async(asked(lambda: recorder.lines == ['{"level": "info"}']))
    task.cancel()
    await asyncio.wait([task])


async def test_result_file_wins_over_the_last_line() -> None:
    """Which is a line then."""
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
async def test_result_file_holds_an_object_or_any_text(written: str, text: str | None, data: object) -> None:
    """The object is the data, everything else the text; one line end at the end is none of it."""
    recorder = await perform(
        "import os, sys; open(os.environ['COORDINATOR_RUN_RESULT_FILE'], 'w').write(sys.argv[1])", written
    )
    (result,) = recorder.results
    assert (result["result_text"], result["result_data"]) == (text, data)


@pytest.mark.parametrize("script", ["", ': > "$COORDINATOR_RUN_RESULT_FILE"', 'echo > "$COORDINATOR_RUN_RESULT_FILE"'])
async def test_result_file_that_says_nothing_leaves_it_to_the_last_line(script: str) -> None:
    """Not written, empty, blank."""
    recorder = await perform_shell(script + """\necho '{"result_text":"line"}'""")
    assert recorder.results[0]["result_text"] == "line"


async def test_result_file_is_private_and_goes_with_the_run() -> None:
    """Whatever else the process left beside it; a failed run has no result."""
    recorder = await perform_shell(
        'd=$(dirname "$COORDINATOR_RUN_RESULT_FILE"); echo "$d"; stat -c %a "$d"; mkdir "$d/more"; '
        'echo x > "$d/more/file"; echo result > "$COORDINATOR_RUN_RESULT_FILE"; exit 1'
    )
    directory, mode = recorder.lines
    assert mode == "700"
    assert not os.path.lexists(directory)  # noqa: ASYNC240 -- nothing else runs here
    assert recorder.results == []
    assert recorder.reports[0]["outcome"] == "failed"


async def test_result_file_that_is_no_file_fails_the_run() -> None:
    """A pipe that nobody writes to does not hold the runner up."""
    for made in ("mkfifo", "mkdir"):
        recorder = await perform_shell(f'{made} "$COORDINATOR_RUN_RESULT_FILE"; echo bye')
        assert recorder.reports[0]["outcome"] == "failed"
        assert recorder.reports[0]["error"].startswith("Result file cannot be read: ")
        assert (recorder.lines, recorder.results) == (["bye"], [])


async def test_largest_result_is_told_whole() -> None:
    """Up to 4 MiB."""
    recorder = await perform(f"import sys; {BIG}", str(results.MOST_BYTES - 20))
    assert len(recorder.results[0]["result_text"] or "") == results.MOST_BYTES - 20
    assert recorder.lines == []


async def test_result_that_is_too_large_fails_the_run_and_says_so() -> None:
    """Never completed without one, whichever way it came."""
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


async def test_long_line_that_is_no_object_is_no_result() -> None:
    """Nor a reason to fail."""
    recorder = await perform("print('x' * 5_000_000)")
    assert recorder.reports[0]["outcome"] == "completed"
    assert recorder.said() == "x" * 5_000_000 + "\n"


async def test_environment_names_the_file_of_this_run() -> None:
    """Each run has its own."""
    names = [(await perform_shell('echo "$COORDINATOR_RUN_RESULT_FILE"')).lines[0] for _ in range(2)]
    assert len(set(names)) == 2
    assert all(os.path.isabs(name) for name in names)  # noqa: PTH117 -- a text, as the process gets it
