"""Check the numbers of runners on one machine, and the names of their commands."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator_client.backoff import Backoff
from coordinator_client.errors import describe
from runner.slots import Slot, base_name
from runner.state_dir import state_directory


def test_runners_of_one_command_get_different_numbers(tmp_path: Path) -> None:
    """Take the lowest free number, and free it afterwards."""
    with Slot(["/usr/bin/agent"], tmp_path) as first:
        assert first.profile == "agent-1"
        with Slot(["agent", "--fast"], tmp_path) as second, Slot(["other"], tmp_path) as other:
            assert (second.profile, other.profile) == ("agent-2", "other-1")
    with Slot(["agent"], tmp_path) as again:
        assert again.profile == "agent-1"


def test_killed_runner_frees_its_number(tmp_path: Path) -> None:
    """The lock ends with its process."""
    script = (
        "import sys, time; from pathlib import Path; from runner.slots import Slot\n"
        "with Slot(['agent'], Path(sys.argv[1])) as slot: print(slot.profile, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"agent-1\n"
        with Slot(["agent"], tmp_path) as second:
            assert second.number == 2
        process.kill()
        process.wait()
    with Slot(["agent"], tmp_path) as again:
        assert again.number == 1


def test_lock_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    """A directory writable by all may have been created by another user first."""
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "link").symlink_to(target)
    with pytest.raises(OSError, match="another user"), Slot(["agent"], tmp_path / "link"):
        pass


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/opt/bin/agent", "run"], "agent"),
        (["python3.12", "-m", "runner.demo"], "runner.demo"),
        (["/usr/bin/python", "jobs/nightly.py", "x"], "nightly"),
        (["python", "-c", "pass"], "python"),
        (["./my tool"], "my-tool"),
        (["/"], "command"),
    ],
)
def test_command_name_is_program_without_path(command: list[str], name: str) -> None:
    """For Python, take the script or module that it runs."""
    assert base_name(command) == name


def test_pauses_double_up_to_a_limit_with_jitter() -> None:
    """Choose a random half to whole of each doubled pause."""
    backoff = Backoff(first=1, longest=8)
    pauses = [backoff.pause() for _ in range(2000)]
    assert 0.5 <= pauses[0] <= 1
    assert 1 <= pauses[1] <= 2
    assert all(4 <= pause <= 8 for pause in pauses[3:])
    assert len(set(pauses[3:])) > 1
    backoff.reset()
    assert backoff.pause() <= 1
    assert backoff.pause(at_least=30) == 30


@pytest.mark.parametrize(
    ("detail", "line"),
    [
        ("Run not found", "Run not found"),
        ({"error": "stale_claim", "message": "not yours"}, "not yours"),
        ({"error": "odd"}, "odd"),
        (
            [{"type": "missing", "loc": ["body", "parameters"], "msg": "Field required"}],
            "body.parameters: Field required",
        ),
        (
            {"message": "Parameters do not match", "validation_errors": [{"path": "$", "message": "x is required"}]},
            "Parameters do not match; $: x is required",
        ),
        (None, "None"),
    ],
)
def test_every_kind_of_error_detail_is_one_line(detail: object, line: str) -> None:
    """Try text, an object, the list of a 422, a parameter complaint."""
    assert describe(detail) == line


def test_next_number_is_taken_when_one_is_known_to_another_runner(tmp_path: Path) -> None:
    """Skip locked numbers; the number given up is free for others."""
    with Slot(["agent"], tmp_path) as first, Slot(["agent"], tmp_path) as second:
        first.advance()
        assert (first.number, second.number) == (3, 2)
        with Slot(["agent"], tmp_path) as third:
            assert third.number == 1


def test_runner_that_did_not_leave_is_noted_in_its_lock(tmp_path: Path) -> None:
    """Its restart waits for its own identity; after a leave, or without a number before, it does not wait."""
    with Slot(["agent"], tmp_path) as slot:
        assert not slot.was_abandoned
        slot.registered()
    with Slot(["agent"], tmp_path) as slot:
        assert slot.was_abandoned
        slot.left()
    with Slot(["agent"], tmp_path) as slot:
        assert not slot.was_abandoned


def test_number_is_chosen_without_a_lock_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only home does not keep a runner from starting: the coordinator's 409 finds the number then."""

    def refuse(_: str) -> Path:
        raise OSError("read-only")

    monkeypatch.setattr("runner.slots.state_directory", refuse)
    with Slot(["agent"]) as first, Slot(["agent"]) as second:
        assert (first.number, second.number) == (1, 1)
        second.advance()
        assert second.number == 2


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Return the directories where notes may be kept; none exists yet."""
    places = {name: tmp_path / name for name in ("home", "state", "run", "tmp")}
    places["tmp"].mkdir()
    monkeypatch.setenv("HOME", str(places["home"]))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(places["tmp"]))
    return places


def test_notes_are_kept_in_the_users_state_directory(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Use XDG_STATE_HOME, else ~/.local/state, for this user alone."""
    kept = state_directory("slots")
    assert kept == places["home"] / ".local" / "state" / "coordinator-runner" / "slots"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, kept.parent)] == [0o700, 0o700]
    monkeypatch.setenv("XDG_STATE_HOME", "relative/is/invalid")
    assert state_directory("slots") == kept
    monkeypatch.setenv("XDG_STATE_HOME", str(places["state"]))
    kept.parent.chmod(0o755)
    assert state_directory("slots") == places["state"] / "coordinator-runner" / "slots"


def test_notes_are_kept_elsewhere_when_home_cannot_be_used(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Use the runtime directory, then one for temporary files; another user's directory there blocks nothing."""
    places["home"].touch()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(places["run"]))
    assert state_directory("slots") == places["run"] / "coordinator-runner" / "slots"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    squatted = places["tmp"] / f"coordinator-runner-{os.getuid()}"
    squatted.symlink_to("/")
    assert state_directory("slots") == places["tmp"] / f"{squatted.name}-1" / "slots"
