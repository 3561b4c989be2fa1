"""The command line of scripts/bench."""

import argparse
import sys

from scripts.benchmarks.cluster import scratch_servers
from scripts.benchmarks.figures import Measured, averaged
from scripts.benchmarks.report import line_of, table
from scripts.benchmarks.rows import ROWS, Row
from scripts.benchmarks.stage import LoadFailed, Stage, load_average


def main() -> int:
    """Measure the rows that were asked for, all by default; 1 when one of them could not be measured."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures the rows of the performance table.")
    parser.add_argument("rows", nargs="*", metavar="ROW", choices=[[], *names], help="which; all by default")
    parser.add_argument("--list", action="store_true", help="print the rows and their targets, measure nothing")
    parser.add_argument("--quick", action="store_true", help="smaller, shorter, once: to see that it works")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="repetitions of each (3)")
    asked = parser.parse_args()
    rows = [row for row in ROWS if not asked.rows or row.name in asked.rows]
    if asked.list:
        for row in rows:
            print(line_of(row))
        return 0
    failed = False
    measured: dict[str, Measured] = {}
    with scratch_servers() as (servers, directory):
        for row in rows:
            print(f"-- {row.name}: {row.what}", file=sys.stderr, flush=True)
            stage = Stage(servers, directory, asked.quick, 1 if asked.quick else asked.repeat)
            try:
                measured[row.name] = _measure(row, stage)
            except LoadFailed as error:
                print(f"{row.name}: {error}", file=sys.stderr)
                failed = True
    print(table([(row, measured[row.name]) for row in rows if row.name in measured]))
    return 1 if failed else 0


def _measure(row: Row, stage: Stage) -> Measured:
    before = load_average()
    repetitions = row.measure(stage)
    return Measured(repetitions, cpu=averaged(stage.cpu), load_before=before)


if __name__ == "__main__":
    sys.exit(main())
