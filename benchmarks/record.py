from collections.abc import Iterable
from pathlib import Path
from typing import Final

from benchmarks.charts import draw
from benchmarks.report import HEADINGS, Results, all_cells, cost_line
from benchmarks.rows import ROWS

_HEAD: Final = """# Performance

`scripts/bench --record` writes this page, except for its last section. `scripts/bench --list` names the rows,
`scripts/bench ROW` measures one of them, and `--json FILE` keeps every figure of every repetition.
`scripts/bench compare REV ROW` measures a row at another revision and in this checkout in turns.
"""

STORY: Final = "## What costs what\n"

_READING: Final = """## How to read it

- **One machine.** Load generator, web and worker processes, Postgres and Redis share its cores. Absolute figures say
  more about that machine than about the coordinator. The ratio to the raw limit, the shares of CPU, and the figures
  that stay flat carry over to other machines.
- **Figure.** The median of the repetitions, with the least and the most beside it. The median decides whether a
  target is met.
- **Raw limit.** A tight loop of psycopg on the same Postgres, in the same run, with no process of the coordinator
  beside it. It inserts, claims, starts and completes the same rows, with as many event rows, in one statement and one
  transaction each (in the batched rows one for a hundred runs): no HTTP, no validation, no demands. The best of
  three, in runs a second like the figure. A ratio above 1 is the gain of group commit.
- **CPU.** Percent of one core during the counted window, averaged over the row's loads; processes of one kind are
  added up.
- **CPU and WAL of a life** (`ms`, `ms_…`, `wal`): CPU of web, workers, Postgres and Redis, and bytes of WAL, in the
  counted window, for each life counted in it, its submission included; `ms` is without the load generator. `wal` is
  without full-page images, which depend on the time since the last checkpoint; they are `wal_images`, after a
  checkpoint just before the load and its first two seconds.
- **Bare web before.** Requests a second that one process of FastAPI and uvicorn answered just before the row, with
  nothing behind them. It tells how fast the machine was at that moment; the targets were written where it was 7,050.
- **Load before.** The load average before a row. With more than a few tenths the row competed with other work.
- **Counting.** A submission counts when it is answered 201; a life when its `completed` is answered 200, without the
  submissions running beside it. Submit-to-runner and stop-to-runner are measured from just before the POST is written
  to the end of the poll's answer; event-to-client from just before the POST is written to the arrival of the whole
  frame, for every client. All use one clock, in the generator. The first seconds of each load are not counted.
- **10,000 clients** are one process of the generator, which parses what many streams get once. `gaps` counts events
  whose position does not follow the one before it on the same stream; `kib` is the growth of all web processes, which
  are new in each repetition. The row gives up where a process may not have so many open files or local ports.
- **`quick` rows** were taken once, smaller and shorter: they show that it works, not how fast it is. In them the
  backlog ends at 100 k runs, 1,000 polls are parked, 15,000 runs finish and 20,000 are claimed or delayed, and 500
  clients stand for 10,000.
- **Busy machines.** Other work on the machine makes the batches of group commit larger: CPU and queries for a
  heartbeat or a poll are then lower than at rest.
- **Unexpected answers** end a row without a figure.
"""


def record(results: Results, directory: Path) -> None:
    path = directory / "performance.md"
    drawn = draw(results.measured, directory)
    parts = [
        _HEAD,
        _facts(results),
        "## Figures\n\n" + _table([HEADINGS, *all_cells(results)]),
        "".join(f"- `{row.name}`: {row.what}\n" for row in ROWS if row.name in results.measured),
        *(f"## {title}\n\n![{title}]({name})\n" for name, title in drawn.items()),
        _READING,
        *_story(path),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")


def _story(path: Path) -> list[str]:
    _, heading, story = path.read_text(encoding="utf-8").partition(STORY) if path.exists() else ("", "", "")
    return [heading + story] if heading else []


def _facts(results: Results) -> str:
    facts = {**results.machine, "load generator": cost_line(results.generator)}
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def _table(lines: Iterable[tuple[str, ...]]) -> str:
    heading, *rest = (f"| {' | '.join(line)} |\n" for line in lines)
    return "".join([heading, "|" + "---|" * len(HEADINGS) + "\n", *rest])
