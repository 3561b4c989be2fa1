from dataclasses import asdict
from pathlib import Path

import orjson

from benchmarks.figures import Measured
from benchmarks.report import Results
from benchmarks.rows import ROWS


def kept(path: Path, fresh: Results) -> Results:
    """Write the measurements into the file in place of earlier ones of the same rows; return all rows in it.

    Figures of another machine or of other versions are dropped: the stated facts would not be theirs. So are those
    of rows that have other figures now.
    """
    before = read(path) if path.exists() else None
    if before is not None and _comparable(before) == _comparable(fresh):
        still = {row.name: old for row in ROWS if (old := before.measured.get(row.name)) and row.is_complete(old)}
        fresh = Results(fresh.machine, fresh.generator, {**still, **fresh.measured})
    path.write_bytes(orjson.dumps(asdict(fresh), option=orjson.OPT_INDENT_2))
    return fresh


def read(path: Path) -> Results:
    content = orjson.loads(path.read_bytes())
    measured = {name: Measured(**row) for name, row in content.pop("measured").items()}
    return Results(**content, measured=measured)


def _comparable(results: Results) -> dict[str, str]:
    return {name: value for name, value in results.machine.items() if name != "date"}
