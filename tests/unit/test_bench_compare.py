"""Check the comparison of two versions (rows, order, table, worktree) without measuring anything."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import main as bench
from benchmarks.compare import checkout, command
from benchmarks.compare.checkout import NotUsable, checked_out, commit_of, same_lock
from benchmarks.compare.comparison import Comparison, present, table, turn_order
from benchmarks.figures import Figures
from benchmarks.rows import ROWS

BY_NAME = {row.name: row for row in ROWS}


def shown(comparison: Comparison) -> list[list[str]]:
    """Return the cells of the table's lines; they are two spaces apart at least."""
    return [
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in table(comparison, BY_NAME).splitlines()
    ]


def test_table_shows_medians_and_their_ratio_beside_that_of_each_turn() -> None:
    before: list[Figures | None] = [{"p99": 100.0}, {"p99": 300.0}, {"p99": 200.0}]
    after: list[Figures | None] = [{"p99": 50.0}, {"p99": 60.0}, {"p99": 400.0}]
    _, line = shown(Comparison("abc", "working tree", {"submit-to-runner-without-redis": (before, after)}))
    assert line == [
        "submit-to-runner-without-redis",
        "p99",
        "200 (100 to 300)",
        "60.0 (50.0 to 400)",
        "0.30 (0.20 to 2.00)",
        "p99 <= 2,500 ms",
    ]


def test_cost_of_a_life_is_computed_for_versions_that_did_not_state_it() -> None:
    old = {"rate": 500.0, "cpu_web": 100.0, "cpu_generator": 10.0}
    new = {"rate": 1000.0, "cpu_web": 100.0, "cpu_generator": 10.0, "wal": 8.0}
    lines = shown(Comparison("abc", "working tree", {"lives-64": ([old], [new])}))
    assert [
        "ms",
        "2.00 (2.00 to 2.00)",
        "1.00 (1.00 to 1.00)",
        "0.50 (0.50 to 0.50)",
        "ms <= 1.6 ms CPU a life",
    ] in lines
    assert ["wal", "-", "8.00 (8.00 to 8.00)", "-", "wal <= 9 KiB a life"] in lines


def test_failed_turn_is_left_out_and_named() -> None:
    rate = {"growth": 2.0}
    comparison = Comparison("abc", "working tree", {"memory": ([rate, None], [rate, rate])})
    assert comparison.failed == ["memory at abc"]
    lines = shown(comparison)
    assert lines[1][2:5] == ["2.00 (2.00 to 2.00)", "2.00 (2.00 to 2.00)", "1.00 (1.00 to 1.00)"]
    assert lines[-1] == ["failed: memory at abc"]


def test_chart_row_shows_its_figures_without_readings() -> None:
    taken = {"lives_1": 100.0, "cpu_web": 50.0, "first_all": 3.0}
    lines = shown(Comparison("abc", "working tree", {"replicas": ([taken], [taken])}))
    assert [line[1] for line in lines[1:]] == ["lives_1"]


def test_row_that_one_version_lacks_is_named() -> None:
    rows = ["lives-64", "new", "old"]
    both, not_before, not_after = present(rows, ["lives-64", "old"], ["lives-64", "new"])
    assert (both, not_before, not_after) == (["lives-64"], ["new"], ["old"])
    comparison = Comparison("abc", "working tree", missing={"abc": not_before, "working tree": not_after})
    assert shown(comparison)[1:] == [["not at abc: new"], ["not at working tree: old"]]


def test_each_version_comes_first_in_every_other_turn() -> None:
    assert [turn_order(turn) for turn in range(3)] == [(0, 1), (1, 0), (0, 1)]


def test_environment_is_shared_only_with_an_equal_lock(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for directory in (one, other):
        directory.mkdir()
    (one / checkout.LOCK).write_text("psycopg==3.3.9\n")
    assert not same_lock(one, other)
    (other / checkout.LOCK).write_text("psycopg==3.3.8\n")
    assert not same_lock(one, other)
    (other / checkout.LOCK).write_text("psycopg==3.3.9\n")
    assert same_lock(one, other)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with the row `lives-64` at its only commit, and take it for this checkout."""
    root = tmp_path / "checkout"
    (root / "benchmarks").mkdir(parents=True)
    (root / "benchmarks" / "__init__.py").touch()
    (root / "benchmarks" / "__main__.py").write_text(
        "import sys\nfrom pathlib import Path\nif '--list' in sys.argv:\n    print('lives-64  rate >= 1  lives')\n"
        "elif '--json' in sys.argv:\n    Path(sys.argv[sys.argv.index('--json') + 1]).write_text("
        '\'{"measured": {"lives-64": {"repetitions": [{"rate": 5.0}]}}}\')\n'
    )
    (root / checkout.LOCK).write_text("")
    for arguments in (
        ("init", "-q"),
        ("add", "-A"),
        ("-c", "user.name=test", "-c", "user.email=test@example.org", "commit", "-q", "-m", "Add a row"),
    ):
        subprocess.run([*checkout.GIT, "-C", root, *arguments], check=True)
    monkeypatch.setattr(checkout, "ROOT", root)
    return root


def worktrees(root: Path) -> int:
    listed = subprocess.run([*checkout.GIT, "-C", root, "worktree", "list"], check=True, capture_output=True)
    return len(listed.stdout.splitlines())


def test_revision_is_measured_by_its_own_benchmarks_in_a_worktree_that_is_removed(repository: Path) -> None:
    with checked_out(commit_of("HEAD")) as version:
        assert version.python == Path(sys.executable)
        assert version.rows() == ["lives-64"]
        assert version.measure("lives-64", quick=True) == {"rate": 5.0}
        assert worktrees(repository) == 2
    assert worktrees(repository) == 1
    assert not version.directory.parent.exists()


def test_worktree_is_removed_after_an_interrupt(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), checked_out(commit_of("HEAD")):
        raise KeyboardInterrupt
    assert worktrees(repository) == 1


def test_unknown_revision_and_row_are_refused(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    del repository
    with pytest.raises(NotUsable, match="no such revision: nothing"):
        commit_of("nothing")
    assert command.main(["nothing"]) == 1
    with pytest.raises(SystemExit):
        command.main(["HEAD", "no-row"])
    assert "no such row: no-row" in capsys.readouterr().err


def test_help_names_the_subcommands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--help"])
    with pytest.raises(SystemExit):
        bench()
    assert "compare REV" in capsys.readouterr().out
