"""Figures in a file, so that rows can be measured one at a time, when the machine is at rest."""

from dataclasses import asdict
from pathlib import Path

import orjson

from benchmarks.figures import Measured
from benchmarks.report import Results


def kept(path: Path, fresh: Results) -> Results:
    """Write the measurements into the file in place of earlier ones of the same rows; return all rows in it.

    Figures of another machine or of other versions are dropped: the stated facts would not be theirs.
    """
    before = read(path) if path.exists() else None
    if before is not None and _comparable(before) == _comparable(fresh):
        fresh = Results(fresh.machine, fresh.generator, {**before.measured, **fresh.measured})
    path.write_bytes(orjson.dumps(asdict(fresh), option=orjson.OPT_INDENT_2))
    return fresh


def read(path: Path) -> Results:
    content = orjson.loads(path.read_bytes())
    measured = {name: Measured(**row) for name, row in content.pop("measured").items()}
    return Results(**content, measured=measured)


def _comparable(results: Results) -> dict[str, str]:
    return {name: value for name, value in results.machine.items() if name != "date"}
