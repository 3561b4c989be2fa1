"""Calls of the wire protocol as deployed clients and runners make them, in one order at each coordinator."""

from datetime import UTC, datetime
from typing import Any

from compat.recorder import Recorder

START = {"type": "start_session", "parameters": {"prompt": "hello"}}
IDENTITY = {
    "hostname": "compat-host",
    "project_dir": "/compat",
    "executor_profile": "compat",
    "executor": {"type": "autonomous", "command": "compat"},
}


def _now() -> str:
    """Return the time as their executors send it: they list events by these texts."""
    return datetime.now(UTC).isoformat()


def make_calls(recorder: Recorder) -> None:
    """Make all calls at a coordinator without sessions and runners."""
    _empty(recorder)
    _refused_submissions(recorder)
    runner = _registration(recorder)
    session = _life_of_session(recorder, runner)
    _callbacks(recorder, runner)
    _stops(recorder, runner)
    _deletes(recorder, session)
    _leaving(recorder, runner)


def submit(recorder: Recorder, name: str = "", **fields: Any) -> dict[str, Any]:
    found: dict[str, Any] = recorder.call(name, "POST", "/runs", {**START, **fields})
    return found


def claim(recorder: Recorder, runner: str, name: str = "") -> dict[str, Any]:
    """Poll for a run, which has been submitted, and return it."""
    answer: dict[str, Any] = recorder.call(name, "GET", "/runner/runs", params={"runner_id": runner})
    if not answer or "run" not in answer:
        raise AssertionError(f"the poll brought no run but {answer}")
    run: dict[str, Any] = answer["run"]
    return run


def report(recorder: Recorder, runner: str, run: str, outcome: str, name: str = "", **fields: Any) -> None:
    recorder.call(name, "POST", f"/runner/runs/{run}/{outcome}", {"runner_id": runner, **fields})


def _empty(recorder: Recorder) -> None:
    recorder.call("GET /health", "GET", "/health")
    for path in ("/sessions", "/runs", "/runners"):
        recorder.call(f"GET {path}, none", "GET", path)
    for path in ("", "/events", "/result", "/affinity", "/status"):
        recorder.call(f"GET /sessions/X{path}, unknown", "GET", f"/sessions/ses_000000000000{path}")
    recorder.call("GET /runs/X, unknown", "GET", "/runs/run_000000000000")
    recorder.call("POST /runs/X/stop, unknown", "POST", "/runs/run_000000000000/stop")
    recorder.call("POST /sessions/X/stop, unknown", "POST", "/sessions/ses_000000000000/stop")
    recorder.call("DELETE /sessions/X, unknown", "DELETE", "/sessions/ses_000000000000")
    recorder.call("DELETE /runners/X, unknown", "DELETE", "/runners/lnch_000000000000")
    recorder.call("GET /runner/runs, unknown", "GET", "/runner/runs", params={"runner_id": "lnch_000000000000"})
    recorder.call("POST /runner/heartbeat, unknown", "POST", "/runner/heartbeat", {"runner_id": "lnch_000000000000"})


def _refused_submissions(recorder: Recorder) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "no parameters": {"type": "start_session"},
        "unknown type": {**START, "type": "other"},
        "no prompt": {**START, "parameters": {"text": "hello"}},
        "empty prompt": {**START, "parameters": {"prompt": ""}},
        "resume without session": {**START, "type": "resume_session"},
        "resume of an unknown session": {**START, "type": "resume_session", "session_id": "ses_000000000000"},
    }
    # An unknown parent is left out: it is 500 there, and their database is locked from then on.
    for name, body in bodies.items():
        recorder.call(f"POST /runs, {name}", "POST", "/runs", body)


def _registration(recorder: Recorder) -> str:
    registered = recorder.call("POST /runner/register", "POST", "/runner/register", IDENTITY)
    recorder.call("POST /runner/register, twice", "POST", "/runner/register", IDENTITY)
    recorder.call("POST /runner/register, no hostname", "POST", "/runner/register", {"project_dir": "/"})
    runner: str = registered["runner_id"]
    recorder.call("POST /runner/heartbeat", "POST", "/runner/heartbeat", {"runner_id": runner})
    recorder.call("GET /runners", "GET", "/runners")
    return runner


def _life_of_session(recorder: Recorder, runner: str) -> str:
    """Submit, claim, start, bind, report, resume and finish one session; return its id."""
    submitted = submit(recorder, "POST /runs", project_dir="/compat", scope={"key": "value"})
    session, run = submitted["session_id"], submitted["run_id"]
    path = f"/sessions/{session}"
    recorder.call("POST /runs, session exists", "POST", "/runs", {**START, "session_id": session})
    recorder.call("GET /runs/{id}, pending", "GET", f"/runs/{run}")
    recorder.call("GET /sessions/{id}, pending", "GET", path)
    recorder.call("GET /sessions/{id}/result, pending", "GET", f"{path}/result")
    recorder.call("GET /sessions", "GET", "/sessions")
    recorder.call("GET /runs?status=", "GET", "/runs", params={"status": "pending"})
    recorder.call("GET /runs?status=, unknown", "GET", "/runs", params={"status": "other"})
    claim(recorder, runner, "GET /runner/runs, run")
    report(recorder, runner, run, "started", "POST /runner/runs/{id}/started")
    place = {"executor_session_id": "e1", "hostname": "compat-host", "executor_profile": "compat"}
    recorder.call("POST /sessions/{id}/bind", "POST", f"{path}/bind", place)
    recorder.call("POST /sessions/{id}/bind, no hostname", "POST", f"{path}/bind", {"executor_session_id": "e1"})
    recorder.call("GET /sessions/{id}/affinity", "GET", f"{path}/affinity")
    _events(recorder, session)
    recorder.call("DELETE /sessions/{id}, running", "DELETE", path)
    report(recorder, runner, run, "completed", "POST /runner/runs/{id}/completed, idle", session_status="idle")
    recorder.call("GET /sessions/{id}/status, idle", "GET", f"{path}/status")
    recorder.call("GET /sessions/{id}/result", "GET", f"{path}/result")
    recorder.call("GET /runs/{id}, completed", "GET", f"/runs/{run}")
    submit(recorder, "POST /runs, resume", type="resume_session", session_id=session)
    resumed = claim(recorder, runner, "GET /runner/runs, resume")
    report(recorder, runner, resumed["run_id"], "started")
    recorder.call("GET /sessions/{id}, resumed", "GET", path)
    report(recorder, runner, resumed["run_id"], "failed", "POST /runner/runs/{id}/failed", error="it broke")
    recorder.call("GET /runs/{id}, failed", "GET", f"/runs/{resumed['run_id']}")
    recorder.call("GET /sessions/{id}/status, failed", "GET", f"{path}/status")
    recorder.call("GET /sessions/{id}/events", "GET", f"{path}/events")
    with recorder.stream("/sse/sessions") as events:
        kind, data = next(events)
        recorder.note("GET /sse/sessions, first event", {"event": kind, "data": recorder.shapes.of(data)})
    return str(session)


def _events(recorder: Recorder, session: str) -> None:
    path = f"/sessions/{session}"
    text = [{"type": "text", "text": "hi"}]
    message = {
        "event_type": "message",
        "session_id": session,
        "timestamp": _now(),
        "role": "assistant",
        "content": text,
    }
    recorder.call("POST /sessions/{id}/events", "POST", f"{path}/events", message)
    tool = {"tool_name": "t", "tool_input": {"a": 1}, "tool_output": [1, 2], "error": None}
    used = {"event_type": "post_tool", "session_id": session, "timestamp": _now(), **tool}
    recorder.call("POST /sessions/{id}/events, tool", "POST", f"{path}/events", used)
    result = {"event_type": "result", "session_id": session, "timestamp": _now(), "result_text": "r", "result_data": {}}
    recorder.call("POST /sessions/{id}/events, result", "POST", f"{path}/events", {**result, "result_data": {"n": 1}})
    other = {**message, "session_id": "ses_000000000000"}
    recorder.call("POST /sessions/{id}/events, of another", "POST", f"{path}/events", other)
    recorder.call("POST /sessions/{id}/events, no timestamp", "POST", f"{path}/events", {"event_type": "message"})
    changes = {"project_dir": "/elsewhere", "agent_name": "someone"}
    recorder.call("PATCH /sessions/{id}/metadata", "PATCH", f"{path}/metadata", changes)


def _executed(recorder: Recorder, runner: str, **fields: Any) -> dict[str, Any]:
    """Submit a run and report its start; return it."""
    submit(recorder, **fields)
    run = claim(recorder, runner)
    report(recorder, runner, run["run_id"], "started")
    return run


def _callbacks(recorder: Recorder, runner: str) -> None:
    """Let children of an idle parent end; the prompts of the resumes that follow are the outcomes."""
    parent = _executed(recorder, runner)
    report(recorder, runner, parent["run_id"], "completed", session_status="idle")
    child_of = {"parent_session_id": parent["session_id"], "execution_mode": "async_callback"}
    for outcome, fields in (("completed", {}), ("failed", {"error": "no luck"})):
        child = _executed(recorder, runner, **child_of)
        if outcome == "completed":
            result = {
                "event_type": "result",
                "session_id": child["session_id"],
                "timestamp": _now(),
                "result_text": "done",
            }
            recorder.call("", "POST", f"/sessions/{child['session_id']}/events", result)
        report(recorder, runner, child["run_id"], outcome, **fields)
        resume = claim(recorder, runner)
        shown = {name: resume[name] for name in ("type", "session_id", "parameters", "execution_mode")}
        recorder.note(f"resume of a parent, child {outcome}", recorder.shapes.of(shown))
        report(recorder, runner, resume["run_id"], "started")
        report(recorder, runner, resume["run_id"], "completed", session_status="idle")


def _stops(recorder: Recorder, runner: str) -> None:
    pending = submit(recorder)
    recorder.call("POST /sessions/{id}/stop, pending", "POST", f"/sessions/{pending['session_id']}/stop")
    recorder.call("POST /sessions/{id}/stop, stopped", "POST", f"/sessions/{pending['session_id']}/stop")
    recorder.call("GET /runs/{id}, stopped before its claim", "GET", f"/runs/{pending['run_id']}")
    running = _executed(recorder, runner)
    recorder.call("POST /runs/{id}/stop, running", "POST", f"/runs/{running['run_id']}/stop")
    recorder.call("POST /runs/{id}/stop, stopping", "POST", f"/runs/{running['run_id']}/stop")
    recorder.call("GET /sessions/{id}/status, stopping", "GET", f"/sessions/{running['session_id']}/status")
    recorder.call("GET /runner/runs, stop", "GET", "/runner/runs", params={"runner_id": runner})
    report(recorder, runner, running["run_id"], "stopped", "POST /runner/runs/{id}/stopped", signal="SIGTERM")
    recorder.call("GET /runs/{id}, stopped", "GET", f"/runs/{running['run_id']}")
    recorder.call("POST /runs/{id}/stop, ended", "POST", f"/runs/{running['run_id']}/stop")
    idle = _executed(recorder, runner)
    report(recorder, runner, idle["run_id"], "completed", session_status="idle")
    status = {"runner_id": runner, "status": "finished"}
    path = f"/runner/sessions/{idle['session_id']}/status"
    recorder.call("POST /runner/sessions/{id}/status", "POST", path, status)
    recorder.call("POST /runner/sessions/{id}/status, unknown status", "POST", path, {**status, "status": "other"})
    recorder.call("GET /sessions/{id}/status, finished", "GET", f"/sessions/{idle['session_id']}/status")


def _deletes(recorder: Recorder, session: str) -> None:
    recorder.call("DELETE /sessions/{id}", "DELETE", f"/sessions/{session}")
    recorder.call("DELETE /sessions/{id}, twice", "DELETE", f"/sessions/{session}")


def _leaving(recorder: Recorder, runner: str) -> None:
    recorder.call("DELETE /runners/{id}?self=true", "DELETE", f"/runners/{runner}", params={"self": "true"})
    other = recorder.call("", "POST", "/runner/register", {**IDENTITY, "executor_profile": "other"})["runner_id"]
    recorder.call("DELETE /runners/{id}", "DELETE", f"/runners/{other}")
    recorder.call("GET /runner/runs, told to leave", "GET", "/runner/runs", params={"runner_id": other})
    recorder.call("GET /runner/runs, left", "GET", "/runner/runs", params={"runner_id": other})
    recorder.call("GET /runners, all left", "GET", "/runners")
