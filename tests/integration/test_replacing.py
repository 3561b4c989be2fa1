"""The supervisor replaces a process by another one of its service, or keeps it."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = "import sys; from pathlib import Path; from tests.support import replacement_scenarios; "


def alone(scenario: str, tmp_path: Path, *arguments: str) -> None:
    """Play a scenario of tests/support/replacement_scenarios.py in a process of its own."""
    call = "getattr(replacement_scenarios, sys.argv[1])(Path(sys.argv[2]), *sys.argv[3:])"
    command = [sys.executable, "-c", RUN + call, scenario, str(tmp_path), *arguments]
    played = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)
    assert played.returncode == 0, played.stderr


def test_a_successor_takes_over_when_it_is_ready(tmp_path: Path) -> None:
    """The former one is told to retire, not to end, and is gone when it has."""
    alone("takes_over_when_it_is_ready", tmp_path)


@pytest.mark.parametrize(("flaw", "fault"), [("hangs", "was not ready within 0.5 s"), ("dies", "ended (exit code 3)")])
def test_without_a_successor_that_is_ready_the_former_one_stays(tmp_path: Path, flaw: str, fault: str) -> None:
    """What is the matter is said, and nothing of the attempt is left; a broken one is not started again and again."""
    alone("stays_without_a_successor", tmp_path, flaw, fault)


def test_a_death_does_not_end_a_migration_under_way(tmp_path: Path) -> None:
    """It would stop the deploy that it is part of, and could leave the schema half way."""
    alone("leaves_what_is_run_once", tmp_path)


def test_a_successor_that_dies_later_is_started_again_as_any_other(tmp_path: Path) -> None:
    """Nobody serves beside it any more: what was asked of it on trial is not asked again."""
    alone("is_started_again_as_any_other", tmp_path)
