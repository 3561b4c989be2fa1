"""A runner, its runs and the client commands behind a proxy that answers in the coordinator's place."""

import json
from collections.abc import Iterator

import pytest

from coordinator_client.runner_loop.event_requests import MOST_REQUEST_BYTES
from testkit.answering_proxy import AnsweringProxy, answering_proxy
from testkit.cluster import Cluster
from testkit.waiting import eventually
from tests.support.coordination import Coordination

KiB = 1024
# Prints lines until a file tells it to go on, then its last line.
UNTIL_GO = (
    "import os, sys, time\nn = 0\n"
    "while not os.path.exists(sys.argv[1]): n += 1; print('line', n); time.sleep(0.05)\n"
    "print('last')"
)


@pytest.fixture
def coordination(cluster: Cluster) -> Coordination:
    return Coordination(cluster, cluster.start_web(told_heartbeat_instance_seconds=0.2).url)


@pytest.fixture
def proxy(coordination: Coordination) -> Iterator[AnsweringProxy]:
    with answering_proxy(coordination.url, coordination.cluster.directory / "proxy") as proxy:
        yield proxy


@pytest.mark.parametrize("answer", ["default-backend", "conflict"])
def test_proxy_answers_end_neither_run_nor_runner(
    coordination: Coordination, proxy: AnsweringProxy, answer: str
) -> None:
    """Answer events, heartbeats and the end report by the proxy.

    The job works on, and all arrives once it lets them pass.
    """
    go = coordination.cluster.directory / "go"
    runner = coordination.start_python_runner(
        f"import sys; sys.argv.append({str(go)!r})\n{UNTIL_GO}", urls=(proxy.url,)
    )
    run_id, session_id = coordination.submit("x")
    eventually(lambda: "line 3" in coordination.lines(session_id))
    proxy.answer(answer)
    eventually(lambda: proxy.answered("/events") >= 2)
    eventually(lambda: proxy.answered("/runner/heartbeat") >= 2)
    go.touch()
    assert coordination.run(run_id)["status"] == "running"
    proxy.answer()
    assert coordination.until(run_id)["status"] == "completed"
    lines = coordination.lines(session_id)
    assert lines == [f"line {n}" for n in range(1, len(lines))] + ["last"]
    again, _ = coordination.submit("y")
    assert coordination.until(again)["status"] == "completed"
    assert runner.alive
    assert "not a coordinator" in runner.log() or "an answer without" in runner.log()


def test_runner_repeats_registration_and_start_behind_proxy_answers(
    coordination: Coordination, proxy: AnsweringProxy
) -> None:
    """Repeat both until a coordinator answers."""
    proxy.answer("json-200")
    runner = coordination.start_python_runner("pass", urls=(proxy.url,), wait=False)
    eventually(lambda: proxy.answered("/runner/register") >= 2)
    assert runner.alive
    proxy.answer()
    run_id, _ = coordination.submit("x")
    assert coordination.until(run_id)["status"] == "completed"


def test_output_behind_small_proxy_limit_is_stored_whole(coordination: Coordination, proxy: AnsweringProxy) -> None:
    """Halve requests until they pass; nothing is lost, doubled or out of order."""
    proxy.answer(most=4 * KiB)
    coordination.start_python_runner("for n in range(600): print('line', n, 'x' * 500)", urls=(proxy.url,))
    run_id, session_id = coordination.submit("x")
    assert coordination.until(run_id)["status"] == "completed"
    assert coordination.lines(session_id) == [f"line {n} {'x' * 500}" for n in range(600)]
    assert proxy.answered("/events") >= 1


def test_line_too_large_for_proxy_is_shortened_with_notice(coordination: Coordination, proxy: AnsweringProxy) -> None:
    """Name the field in the event and the missing length in the text.

    A message gives the reason; later lines are whole.
    """
    proxy.answer(most=16 * KiB)
    coordination.start_python_runner("print('a' * 60_000); print('after')", urls=(proxy.url,))
    run_id, session_id = coordination.submit("x")
    assert coordination.until(run_id)["status"] == "completed"
    notice, line, after = [event for event in coordination.events(session_id) if event["event_type"] == "message"]
    assert "too large" in notice["content"][0]["text"]
    assert "content" in notice["content"][0]["text"]
    assert line["truncated"] == ["content"]
    text = line["content"][0]["text"]
    assert text.startswith("a" * 5_000)
    kept = len(text) - len(text.lstrip("a"))
    assert f"{60_000 - kept} characters left out" in text
    assert after["content"][0]["text"] == "after"
    assert "truncated" not in after


@pytest.mark.parametrize("cut", [False, True], ids=["413", "connection cut"])
def test_result_too_large_for_proxy_is_stored_truncated(
    coordination: Coordination, proxy: AnsweringProxy, *, cut: bool
) -> None:
    """Send 3 MB through a proxy that takes 1 MiB: the run's result names what is missing."""
    proxy.answer(most=1024 * KiB, cut=cut)
    coordination.start_python_runner(
        "import json; print('first'); print(json.dumps({'result_text': 'r' * 3_000_000, 'more': 1}))", urls=(proxy.url,)
    )
    run_id, session_id = coordination.submit("x")
    assert coordination.until(run_id, within=60)["status"] == "completed"
    (result,) = [event for event in coordination.events(session_id) if event["event_type"] == "result"]
    assert result["truncated"] == ["result_data", "result_text"]
    assert result["result_text"].startswith("r" * 100_000)
    assert "characters left out" in result["result_text"]
    assert [line for line in coordination.lines(session_id) if "result" in line and "too large" in line]


def test_requests_of_heavy_output_stay_below_common_proxy_limit(
    coordination: Coordination, proxy: AnsweringProxy
) -> None:
    """Stay below 900 KiB, escapes included: a character may take six bytes, twelve beyond the basic plane."""
    coordination.start_python_runner("for n in range(60): print(chr(0x1F600) * 10_000, n)", urls=(proxy.url,))
    run_id, session_id = coordination.submit("x")
    assert coordination.until(run_id, within=60)["status"] == "completed"
    assert len(coordination.lines(session_id)) == 60
    sizes = [request["bytes"] for request in proxy.requests()]
    assert max(sizes) > MOST_REQUEST_BYTES / 2
    assert max(sizes) <= MOST_REQUEST_BYTES


def test_commands_report_answer_of_another_server(coordination: Coordination, proxy: AnsweringProxy) -> None:
    """Exit with 3 and one line that quotes it, without a refusal in the coordinator's name or a traceback."""
    run_id, _ = coordination.submit("x")
    proxy.answer("default-backend")
    for arguments in (("run", run_id), ("submit", "x"), ("stop", run_id)):
        ended = coordination.command(*arguments, url=proxy.url)
        assert ended.returncode == 3, ended
        assert ended.stderr.startswith("coordinator: cannot reach http"), ended
        assert "not a coordinator's answer" in ended.stderr or "an answer without" in ended.stderr
        assert ended.stderr.count("\n") == 1
    assert coordination.run(run_id)["status"] == "pending"
    assert json.dumps(coordination.ask("GET", "/runs")).count('"run_id"') == 1
