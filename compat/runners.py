"""Their runner, unmodified: executors of theirs that need no model, its embedded MCP server, and the SDK beside it."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from compat.coordinators import Coordinator, profiles, runner_of, start_runner
from compat.environment import Environment
from compat.mcp_client import McpClient
from compat.recorder import Recorder
from devserver.console_build import find_node
from testkit.ports import own_port
from testkit.waiting import eventually

ECHO: Final = "echo-executor"
PROCEDURAL: Final = "test-procedural"
RUNS: Final = 6
END_SECONDS: Final = 60.0
RUN_SECONDS: Final = 25.0
SDK_TRIAL: Final = Path(__file__).with_name("sdk_trial.mjs")


def try_runners(environment: Environment, coordinator: Coordinator, recorder: Recorder) -> None:
    """Start a runner of each profile, each at another address of the coordinator, and let them work and leave."""
    urls, mcp_port = coordinator.urls, own_port()
    with (
        runner_of(environment, coordinator, urls[0], ECHO, mcp_port) as echo,
        runner_of(environment, coordinator, urls[-1], PROCEDURAL) as procedural,
    ):
        recorder.call("runner: GET /runners", "GET", "/runners")
        _turns(recorder)
        _many(recorder)
        _procedural(recorder)
        recorder.note("runner: a second one of the same identity", _second(environment, coordinator, urls[-1]))
        _mcp(recorder, mcp_port)
        for name, outcome in _sdk(environment, urls[-1]).items():
            recorder.note(f"SDK: {name}", recorder.shapes.of(outcome))
        (removed,) = [each for each in _runners(recorder) if each["executor_profile"] == PROCEDURAL]
        recorder.call("", "DELETE", f"/runners/{removed['runner_id']}")
        recorder.note("runner: exit code when it is told to leave", procedural.wait(END_SECONDS))
        echo.interrupt()
        recorder.note("runner: exit code after SIGINT", echo.wait(END_SECONDS))
        eventually(lambda: not profiles(urls[0]), END_SECONDS, every=0.2, what="no runners")
        recorder.call("runner: GET /runners, all left", "GET", "/runners")


def _turns(recorder: Recorder) -> None:
    """Start a session, resume it in the process that it keeps, and stop it. Their executor sends no results."""
    submitted = _submit(recorder, {"prompt": "one"})
    session = submitted["session_id"]
    recorder.note("runner: status after a turn", _settled(recorder, session))
    recorder.call("runner: result of a turn", "GET", f"/sessions/{session}/result")
    recorder.call("runner: affinity", "GET", f"/sessions/{session}/affinity")
    resumed = _submit(recorder, {"prompt": "two"}, type="resume_session", session_id=session)
    recorder.note("runner, resume: end", _ended(recorder, resumed["run_id"])["status"])
    events = recorder.call("", "GET", f"/sessions/{session}/events")["events"]
    recorder.note("runner, resume: types of events", sorted(event["event_type"] for event in events))
    recorder.call("runner, resume: stop of the session", "POST", f"/sessions/{session}/stop")
    recorder.note("runner, resume: status after the stop", _settled(recorder, session))


def _many(recorder: Recorder) -> None:
    submitted = [_submit(recorder, {"prompt": f"p{number}"}) for number in range(RUNS)]
    ended = [_ended(recorder, one["run_id"])["status"] for one in submitted]
    recorder.note(f"runner: {RUNS} runs at once", ended)


def _procedural(recorder: Recorder) -> None:
    session = ""
    for name, parameters in (
        ("procedural run", {"stdout": "hi"}),
        ("procedural run, JSON", {"stdout": "hi", "json": True}),
        ("procedural run, exit code 3", {"stdout": "hi", "exit-code": 3}),
    ):
        submitted = _submit(recorder, parameters, agent_name="test")
        run = _ended(recorder, submitted["run_id"])
        shown = {field: run[field] for field in ("status", "error", "demands")}
        recorder.note(f"runner: {name}", recorder.shapes.of(shown))
        session = submitted["session_id"]
        recorder.call(f"runner: result of a {name}", "GET", f"/sessions/{session}/result")
    refused = {"type": "start_session", "agent_name": "test", "parameters": {"other": 1}}
    recorder.call("runner: procedural run, bad parameters", "POST", "/runs", refused)
    resume = {"type": "resume_session", "session_id": session, "parameters": {"prompt": "more"}}
    recorder.call("runner: resume of a procedural session", "POST", "/runs", resume)


def _second(environment: Environment, coordinator: Coordinator, url: str) -> Any:
    second = start_runner(environment, coordinator, url, ECHO)
    try:
        return {"exit code": second.wait(END_SECONDS)}
    finally:
        second.end()


def _mcp(recorder: Recorder, port: int) -> None:
    def note(name: str, outcome: Any) -> None:
        recorder.note(f"MCP: {name}", recorder.shapes.of(outcome))

    with McpClient(f"http://127.0.0.1:{port}/mcp") as client:
        note("tools", client.tools())
        note("list_agent_blueprints", client.use("list_agent_blueprints"))
        later = client.use("start_agent_session", parameters={"prompt": "later"}, mode="async_poll")
        note("start_agent_session, async_poll", later)
        _settled(recorder, later["session_id"])
        for session in (later["session_id"], "ses_000000000000"):
            name = "" if session == later["session_id"] else ", unknown"
            status = client.use("get_agent_session_status", session_id=session)
            note(f"get_agent_session_status{name}", status)
            note(f"get_agent_session_result{name}", client.use("get_agent_session_result", session_id=session))
        note("start_agent_session, sync", client.use("start_agent_session", parameters={"prompt": "by MCP"}))
        script = {"stdout": "hi"}
        note("start, procedural", client.use("start_agent_session", parameters=script, agent_name="test"))
        note("start_agent_session, refused", client.use("start_agent_session", parameters={"text": "no prompt"}))
        unknown = client.use("resume_agent_session", session_id="ses_000000000000", parameters={"prompt": "again"})
        note("resume_agent_session, unknown", unknown)
    _callback_by_mcp(recorder, port, later["session_id"])


def _callback_by_mcp(recorder: Recorder, port: int, parent: str) -> None:
    """Start a child with a callback as an agent does, and note the prompt of its parent's resume."""
    with McpClient(f"http://127.0.0.1:{port}/mcp", {"X-Agent-Session-Id": parent}) as client:
        child = client.use("start_agent_session", parameters={"prompt": "child"}, mode="async_callback")
        recorder.note("MCP: start_agent_session, async_callback", recorder.shapes.of(child))

    def told() -> list[Any]:
        runs = recorder.call("", "GET", "/runs")["runs"]
        return [run for run in runs if run["session_id"] == parent and run["type"] == "resume_session"]

    (resume,) = eventually(told, END_SECONDS, every=0.2, what="the callback")
    shown = {field: resume[field] for field in ("type", "parameters", "demands")}
    recorder.note("MCP: resume of the parent", recorder.shapes.of(shown))


def _sdk(environment: Environment, url: str) -> dict[str, Any]:
    command = [find_node().node, str(SDK_TRIAL), environment.sdk.as_uri(), url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=2 * END_SECONDS, check=False)
    if ended.returncode:
        return {"trial": ended.stderr.strip()[-2000:]}
    outcomes: dict[str, Any] = json.loads(ended.stdout)
    return outcomes


def _submit(recorder: Recorder, parameters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"type": "start_session", "parameters": parameters, **fields}
    found: dict[str, Any] = recorder.call("", "POST", "/runs", body)
    if "run_id" not in found:
        raise AssertionError(f"not submitted: {found}")
    return found


def _ended(recorder: Recorder, run_id: str) -> dict[str, Any]:
    """Return the run at its end, or as it is after a while."""
    end = time.monotonic() + RUN_SECONDS
    while True:
        run: dict[str, Any] = recorder.call("", "GET", f"/runs/{run_id}")
        if run["status"] in {"completed", "failed", "stopped"} or time.monotonic() > end:
            return run
        time.sleep(0.1)


def _settled(recorder: Recorder, session: str) -> str:
    def read() -> str:
        status: str = recorder.call("", "GET", f"/sessions/{session}/status")["status"]
        return status if status not in {"pending", "running", "stopping"} else ""

    return eventually(read, END_SECONDS, every=0.1, what=f"the end of {session}")


def _runners(recorder: Recorder) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = recorder.call("", "GET", "/runners")["runners"]
    return found


@contextmanager
def working_runner(environment: Environment, coordinator: Coordinator) -> Iterator[None]:
    with runner_of(environment, coordinator, coordinator.urls[0], ECHO):
        yield
