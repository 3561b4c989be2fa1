"""Check the arithmetic of the benchmarks (percentiles, spreads, goals, frames) without measuring anything."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.charts import draw, points
from benchmarks.feed import shortage
from benchmarks.figures import Goal, Measured, Spread, averaged, with_costs
from benchmarks.generator import LOADS
from benchmarks.keep import kept
from benchmarks.loads_crowd import parse_piece
from benchmarks.meter import percentile
from benchmarks.record import STORY, record
from benchmarks.report import Results, line_of, short, table
from benchmarks.rows import ROWS
from benchmarks.wire import Stream

FAST = Goal("rate", ">=", 100, "runs/s", "rate")
PROMPT = Goal("p99", "<=", 8, "ms")
BY_NAME = {row.name: row for row in ROWS}


def of(name: str, rate: float, *, quick: bool = False) -> Measured:
    """Make one repetition with every figure of the row, all equal."""
    row = BY_NAME[name]
    figures = [*(goal.figure for goal in row.goals), *(figure for figure, _ in row.besides)]
    return Measured([dict.fromkeys(figures, rate)], quick=quick)


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
    shown = table(results({"submissions": Measured([{"rate": 3000, "p99": 90}], limit={"rate": 1500})}))
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
    record(results({"lives-64": of("lives-64", 1000, quick=True)}), tmp_path)
    text = (tmp_path / "performance.md").read_text()
    for part in ("| lives-64 |", "2 cores", "1 x, quick", "How to read it"):
        assert part in text


def test_new_recording_keeps_handwritten_text(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text(f"old\n{STORY}\nValidation takes most.\n")
    record(results({"lives-64": of("lives-64", 1000)}), tmp_path)
    assert path.read_text().endswith(f"{STORY}\nValidation takes most.\n")
    assert "old" not in path.read_text()


def test_single_row_replaces_its_own_figures_only(tmp_path: Path) -> None:
    """Keep the figures of other rows only if they come from the same machine."""
    path = tmp_path / "figures.json"
    lives, slow, fast = of("lives-64", 1000.0), of("lives-16", 1000.0), of("lives-16", 2000.0, quick=True)
    kept(path, results({"lives-64": lives, "lives-16": slow}))
    assert kept(path, results({"lives-16": fast})).measured == {"lives-64": lives, "lives-16": fast}
    memory = of("memory", 1.0)
    assert kept(path, results({"memory": memory}, "64 cores")).measured == {"memory": memory}


def test_kept_row_without_a_figure_of_today_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    kept(path, results({"lives-64": Measured([{"rate": 1000.0}]), "removed-row": Measured([{"rate": 1.0}])}))
    memory = of("memory", 1.0)
    assert kept(path, results({"memory": memory})).measured == {"memory": memory}


def test_cost_of_a_life_leaves_out_the_generator() -> None:
    """Half a core at 500 lives a second is one millisecond each."""
    costs = with_costs({"rate": 500.0, "cpu_web": 50.0, "cpu_redis": 5.0, "cpu_generator": 10.0})
    assert [costs[name] for name in ("ms_web", "ms_redis", "ms_generator", "ms")] == pytest.approx([1, 0.1, 0.2, 1.1])


def test_figures_without_a_target_stand_below_the_goals() -> None:
    lines = table(results({"lives-64": of("lives-64", 1.0)})).splitlines()
    (shown,) = [line for line in lines if "ms_web 1.00 ms CPU a life" in line]
    assert "NO" not in shown
    assert "yes" not in shown


def test_stream_of_a_crowd_is_parsed_wherever_pieces_end() -> None:
    """Chunk lengths stand between frames, and the frame of the stream's place has no event."""
    place, event = b"id: v1.ep.7\n\n", b'id: v1.ep.8\nevent: event\ndata: {"content":"beat-00000042"}\n\n'
    content = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b"retry: 1200\n\n", place, event))
    for size in range(1, len(content) + 1):
        found: list[tuple[int, int | None]] = []
        rest = b""
        for first in range(0, len(content), size):
            frames, rest = parse_piece(rest + content[first : first + size])
            found += frames
        assert found == [(7, None), (8, 42)]
        assert rest in {b"", b"\r", b"\n"}


def test_missing_files_and_ports_are_named() -> None:
    assert not shortage(10_000, 2, files=10_200, ports=5_000)
    assert "open files; the limit is 1,024" in shortage(10_000, 2, files=1_024, ports=28_232)
    assert "5,000 local ports; there are 4,999" in shortage(10_000, 2, files=20_000, ports=4_999)
