"""Check the arithmetic of the benchmarks (percentiles, spreads, goals, frames) without measuring anything."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.charts import draw, points
from benchmarks.figures import Goal, Measured, Spread, averaged
from benchmarks.generator import LOADS
from benchmarks.keep import kept
from benchmarks.meter import percentile
from benchmarks.record import STORY, record
from benchmarks.report import Results, line_of, short, table
from benchmarks.rows import ROWS
from benchmarks.wire import Stream

FAST = Goal("rate", ">=", 100, "runs/s", "rate")
PROMPT = Goal("p99", "<=", 8, "ms")
BY_NAME = {row.name: row for row in ROWS}


def results(measured: Mapping[str, Measured], processor: str = "2 cores") -> Results:
    machine = {"date": "2026-01-01", "processor": processor}
    return Results(machine, {"microseconds": 11, "rate": 17_000}, dict(measured))


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([7.0], 99, 7.0), ([1.0, 2.0], 50, 1.0), ([1.0, 2.0, 3.0], 50, 2.0), (list(range(1, 101)), 99, 99)],
)
def test_percentile_is_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    """Take the nearest rank, not the mean of two values."""
    assert percentile(values, percent) == expected


def test_goal_is_decided_by_median() -> None:
    """Ignore a single disturbed repetition, good or bad."""
    measured = Measured([{"rate": 50, "p99": 7}, {"rate": 120, "p99": 9}, {"rate": 130, "p99": 9}])
    fast, prompt = measured.verdicts([FAST, PROMPT])
    assert (fast.met, prompt.met) == (True, False)
    assert fast.spread == Spread(50, 120, 130)


def test_ratio_is_share_of_raw_limit() -> None:
    """A goal without a measured limit has no ratio."""
    measured = Measured([{"rate": 120, "p99": 7}], limit={"rate": 480, "p99": 3})
    assert [verdict.ratio for verdict in measured.verdicts([FAST, PROMPT])] == [0.25, None]


def test_cpu_share_is_averaged_over_loads_with_the_process() -> None:
    assert averaged([{"web": 50, "redis": 4}, {"web": 70}]) == {"web": 60, "redis": 4}
    assert averaged([]) == {}


async def test_frames_are_whole_wherever_chunks_end() -> None:
    frames: list[bytes] = []
    stream = Stream(frames.append)
    content = b"id: 1\nevent: event\ndata: beat-1\n\nid: 2\ndata: beat-2\n\n"
    for place in range(len(content)):
        stream.on_body(content[place : place + 1])
    assert frames == [b"id: 1\nevent: event\ndata: beat-1", b"id: 2\ndata: beat-2"]


def test_every_row_has_unique_name_and_measured_limit() -> None:
    assert len(BY_NAME) == len(ROWS)
    for row in ROWS:
        assert row.name in line_of(row)
        assert row.raw in {"", *LOADS}
        assert bool(row.raw) == any(goal.limit for goal in row.goals)


def test_table_marks_missed_goals() -> None:
    shown = table(results({"submissions": Measured([{"rate": 2000, "p99": 90}], limit={"rate": 1000})}))
    _, first, second = shown.splitlines()
    assert "yes" in first
    assert "2.00" in first
    assert "NO" in second


@pytest.mark.parametrize(("value", "expected"), [(0, "0.0"), (1.234, "1.23"), (45.67, "45.7"), (12_345.6, "12,346")])
def test_figures_show_significant_digits_only(value: float, expected: str) -> None:
    assert short(value) == expected


def test_chart_points_come_from_figure_names() -> None:
    """The number behind the series' name is the position on the axis, in ascending order."""
    measured = Measured([{"p50_100": 3, "p50_0": 1, "p99_0": 5, "deep": 2}, {"p50_100": 5, "p50_0": 1, "p99_0": 5}])
    assert points(measured, "p50") == {0: (1, 1, 1), 100: (3, 4, 5)}


def test_equal_figures_draw_identical_file(tmp_path: Path) -> None:
    measured = {"claim-behind-backlog": Measured([{"p50_0": 1, "p99_0": 5, "p50_10": 1, "p99_10": 6}])}
    (name,) = draw(measured, tmp_path)
    before = (tmp_path / name).read_bytes()
    draw(measured, tmp_path)
    assert (tmp_path / name).read_bytes() == before
    assert b"<svg" in before


def test_document_holds_table_machine_and_reading_guide(tmp_path: Path) -> None:
    record(results({"lives-64": Measured([{"rate": 1000}], quick=True)}), tmp_path)
    text = (tmp_path / "performance.md").read_text()
    for part in ("| lives-64 |", "2 cores", "1 x, quick", "How to read it"):
        assert part in text


def test_new_recording_keeps_handwritten_text(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"old\n{STORY}\nValidation takes most.\n")
    record(results({"lives-64": Measured([{"rate": 1000}])}), tmp_path)
    assert path.read_text().endswith(f"{STORY}\nValidation takes most.\n")
    assert "old" not in path.read_text()


def test_single_row_replaces_its_own_figures_only(tmp_path: Path) -> None:
    """Keep the figures of other rows only if they come from the same machine."""
    path = tmp_path / "figures.json"
    first, second = Measured([{"rate": 1000.0}]), Measured([{"rate": 2000.0}], quick=True)
    kept(path, results({"lives-64": first, "lives-16": first}))
    assert kept(path, results({"lives-16": second})).measured == {"lives-64": first, "lives-16": second}
    assert kept(path, results({"memory": first}, "64 cores")).measured == {"memory": first}
