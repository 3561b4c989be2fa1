import argparse
import signal
import sys
from pathlib import Path
from typing import Final

from benchmarks import console, machine
from benchmarks.cluster import ClusterFailed, scratch_servers
from benchmarks.compare import command as compare
from benchmarks.figures import Measured, averaged
from benchmarks.keep import kept
from benchmarks.peers import command as peers
from benchmarks.record import record
from benchmarks.report import Results, fact_lines, line_of, table
from benchmarks.rows import ROWS, Row
from benchmarks.stage import LoadFailed, Stage, load_average
from devserver.supervisor import ROOT

SUBCOMMANDS: Final = {"compare": compare.main, "peers": peers.main, "console": console.main}


def main() -> int:
    if subcommand := SUBCOMMANDS.get(sys.argv[1] if sys.argv[1:] else ""):
        return subcommand(sys.argv[2:])
    asked = _arguments()
    rows = [row for row in ROWS if not asked.rows or row.name in asked.rows]
    if asked.list:
        print("\n".join(map(line_of, rows)))
        return 0
    # Exit as Ctrl-C does, so that no process is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with scratch_servers() as (servers, directory):
        results = Results(machine.facts(servers), machine.generator_cost())
        failed = False
        for row in rows:
            print(f"-- {row.name}: {row.what}", file=sys.stderr, flush=True)
            stage = Stage(servers, directory, asked.quick, 1 if asked.quick else asked.repeat)
            try:
                results.measured[row.name] = _measure(row, stage)
            except (ClusterFailed, LoadFailed) as error:
                print(f"{row.name}: {error}", file=sys.stderr)
                failed = True
    if asked.json:
        results = kept(asked.json, results)
    print("\n".join(fact_lines(results)), end="\n\n")
    print(table(results))
    if asked.record:
        record(results, ROOT / "docs")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure the rows of the performance table.",
        epilog="scripts/bench compare REV [ROW ...] measures rows at another revision and here in turns;"
        " scripts/bench peers measures other products beside ours; scripts/bench console the list of runs in a browser."
        " Each has its own --help.",
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help="row to measure (default: all)")
    parser.add_argument("--list", action="store_true", help="print the rows and their targets, measure nothing")
    parser.add_argument(
        "--quick", action="store_true", help="measure smaller and shorter, once each, to check that it works"
    )
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions of each row (3)")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write all figures to FILE, beside those of other rows"
    )
    parser.add_argument(
        "--record",
        action="store_true",
        help="write docs/performance.md and its charts, of all rows in FILE if given",
    )
    asked = parser.parse_args()
    unknown = set(asked.rows) - {row.name for row in ROWS}
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))} (--list names them)")
    if asked.repeat < 1:
        parser.error("--repeat must be at least 1")
    return asked


def _measure(row: Row, stage: Stage) -> Measured:
    before, pace = load_average(), machine.pace()
    repetitions = row.measure(stage)
    cpu = averaged(stage.cpu)
    limit = stage.raw(row.raw, **dict(row.raw_with)) if row.raw else {}
    return Measured(repetitions, limit, cpu, before, stage.quick, pace)


if __name__ == "__main__":
    sys.exit(main())
