"""Check the supervisor's decisions and log texts without any process."""

import pytest

from devserver.supervisor import Backoff, describe


def test_backoff_doubles_up_to_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restart it for a process that has lived for a while."""
    now = 100.0
    monkeypatch.setattr("devserver.supervisor.time.monotonic", lambda: now)
    backoff = Backoff()
    delays = []
    for _ in range(8):
        backoff.born()
        delays.append(backoff.died())
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]
    backoff.born()
    now += 60
    assert backoff.died() == 0.5


def test_exit_is_described_by_signal_name() -> None:
    assert describe(3) == "exit code 3"
    assert describe(-9) == "killed by SIGKILL"
    assert describe(-250) == "killed by signal 250"
