"""Check the supervisor's decisions and log texts without any process."""

import pytest

from devserver.supervisor import RestartDelay, describe


def test_restart_delay_doubles_up_to_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restart it for a process that has lived for a while."""
    now = 100.0
    monkeypatch.setattr("devserver.supervisor.time.monotonic", lambda: now)
    delay = RestartDelay()
    delays = []
    for _ in range(8):
        delay.born()
        delays.append(delay.died())
    assert delays == [0.5, 1, 2, 4, 8, 15, 15, 15]
    delay.born()
    now += 60
    assert delay.died() == 0.5


def test_exit_is_described_by_signal_name() -> None:
    assert describe(3) == "exit code 3"
    assert describe(-9) == "killed by SIGKILL"
    assert describe(-250) == "killed by signal 250"
