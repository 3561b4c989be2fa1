"""The benchmark's arithmetic: percentiles, spreads, verdicts, frames cut anywhere; nothing is measured here."""

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
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: float, expected: float) -> None:
    """The nearest rank, not a mean of two: no figure is shown that no request took."""
    assert percentile(values, percent) == expected


def test_a_goal_is_met_by_the_median() -> None:
    """One repetition that was disturbed neither fails nor saves a row."""
    measured = Measured([{"rate": 50, "p99": 7}, {"rate": 120, "p99": 9}, {"rate": 130, "p99": 9}])
    fast, prompt = measured.verdicts([FAST, PROMPT])
    assert (fast.met, prompt.met) == (True, False)
    assert fast.spread == Spread(50, 120, 130)


def test_the_ratio_is_the_share_of_the_raw_limit() -> None:
    """A figure stands beside what the same Postgres did without us; a goal without a limit has no ratio."""
    measured = Measured([{"rate": 120, "p99": 7}], limit={"rate": 480, "p99": 3})
    assert [verdict.ratio for verdict in measured.verdicts([FAST, PROMPT])] == [0.25, None]


def test_cpu_shares_are_averaged_over_the_loads_that_had_the_part() -> None:
    """A row without Redis shows no share of it, and one that had it half the time no half share."""
    assert averaged([{"web": 50, "redis": 4}, {"web": 70}]) == {"web": 60, "redis": 4}
    assert averaged([]) == {}


async def test_frames_come_whole_wherever_the_network_cuts() -> None:
    """A frame that arrives in pieces is handed on once, when its end is there."""
    frames: list[bytes] = []
    stream = Stream(frames.append)
    content = b"id: 1\nevent: event\ndata: beat-1\n\nid: 2\ndata: beat-2\n\n"
    for place in range(len(content)):
        stream.on_body(content[place : place + 1])
    assert frames == [b"id: 1\nevent: event\ndata: beat-1", b"id: 2\ndata: beat-2"]


def test_every_row_has_a_name_of_its_own_and_a_limit_that_is_measured() -> None:
    """Rows are asked for by name, and a ratio needs the load that it is a ratio to."""
    assert len(BY_NAME) == len(ROWS)
    for row in ROWS:
        assert row.name in line_of(row)
        assert row.raw in {"", *LOADS}
        assert bool(row.raw) == any(goal.limit for goal in row.goals)


def test_the_table_says_what_was_not_reached() -> None:
    """One line a goal, with the target beside the figure."""
    shown = table(results({"submissions": Measured([{"rate": 2000, "p99": 90}], limit={"rate": 1000})}))
    _, first, second = shown.splitlines()
    assert "yes" in first
    assert "2.00" in first
    assert "NO" in second


@pytest.mark.parametrize(("value", "expected"), [(0, "0.0"), (1.234, "1.23"), (45.67, "45.7"), (12_345.6, "12,346")])
def test_figures_have_the_digits_that_mean_something(value: float, expected: str) -> None:
    """A thousand runs a second are not known to the hundredth."""
    assert short(value) == expected


def test_a_chart_takes_its_points_from_the_names_of_figures() -> None:
    """The number behind the series' name is the place on the axis, in ascending order."""
    measured = Measured([{"p50_100": 3, "p50_0": 1, "p99_0": 5, "deep": 2}, {"p50_100": 5, "p50_0": 1, "p99_0": 5}])
    assert points(measured, "p50") == {0: (1, 1, 1), 100: (3, 4, 5)}


def test_the_same_figures_draw_the_same_file(tmp_path: Path) -> None:
    """A record that says nothing new changes nothing in the repository."""
    measured = {"claim-behind-backlog": Measured([{"p50_0": 1, "p99_0": 5, "p50_10": 1, "p99_10": 6}])}
    (name,) = draw(measured, tmp_path)
    before = (tmp_path / name).read_bytes()
    draw(measured, tmp_path)
    assert (tmp_path / name).read_bytes() == before
    assert b"<svg" in before


def test_the_document_has_the_table_the_machine_and_how_to_read_it(tmp_path: Path) -> None:
    """What was measured, on what, and in which way: figures without these mean nothing."""
    record(results({"lives-64": Measured([{"rate": 1000}], quick=True)}), tmp_path)
    text = (tmp_path / "performance.md").read_text()
    for part in ("| lives-64 |", "2 cores", "1 x, quick", "How to read it"):
        assert part in text


def test_what_people_wrote_into_the_document_is_kept(tmp_path: Path) -> None:
    """Why a figure is what it is cannot be measured: the next recording replaces the figures only."""
    path = tmp_path / "performance.md"
    path.write_text(f"old\n{STORY}\nValidation takes most.\n")
    record(results({"lives-64": Measured([{"rate": 1000}])}), tmp_path)
    assert path.read_text().endswith(f"{STORY}\nValidation takes most.\n")
    assert "old" not in path.read_text()


def test_rows_can_be_measured_one_at_a_time(tmp_path: Path) -> None:
    """A row replaces its own former figures and leaves those of other rows, but only on the same machine."""
    path = tmp_path / "figures.json"
    first, second = Measured([{"rate": 1000.0}]), Measured([{"rate": 2000.0}], quick=True)
    kept(path, results({"lives-64": first, "lives-16": first}))
    assert kept(path, results({"lives-16": second})).measured == {"lives-64": first, "lives-16": second}
    assert kept(path, results({"memory": first}, "64 cores")).measured == {"memory": first}
