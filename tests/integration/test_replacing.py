"""Replacement of a supervised process by another of its service."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = "import sys; from pathlib import Path; from tests.support import replacement_scenarios; "


def alone(scenario: str, tmp_path: Path, *arguments: str) -> None:
    """Run a scenario of tests/support/replacement_scenarios.py in a process of its own."""
    call = "getattr(replacement_scenarios, sys.argv[1])(Path(sys.argv[2]), *sys.argv[3:])"
    command = [sys.executable, "-c", RUN + call, scenario, str(tmp_path), *arguments]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert played.returncode == 0, played.stderr


def test_successor_takes_over_when_it_is_ready(tmp_path: Path) -> None:
    """Tell the former one to retire, not to end; it is gone when it has."""
    alone("takes_over_when_it_is_ready", tmp_path)


@pytest.mark.parametrize(("flaw", "fault"), [("hangs", "was not ready within 0.5 s"), ("dies", "ended (exit code 3)")])
def test_former_process_stays_without_ready_successor(tmp_path: Path, flaw: str, fault: str) -> None:
    """Report the reason, leave nothing of the attempt, and do not restart a broken one again and again."""
    alone("stays_without_a_successor", tmp_path, flaw, fault)


def test_death_of_process_does_not_end_migration(tmp_path: Path) -> None:
    """Let the migration finish: ending it would stop the deploy, and could leave the schema half way."""
    alone("leaves_one_shot_commands_alone", tmp_path)


def test_successor_that_dies_later_is_restarted_as_any_other(tmp_path: Path) -> None:
    """Ask nothing again that was asked on trial, since no other process serves beside it."""
    alone("is_restarted_like_any_other", tmp_path)
