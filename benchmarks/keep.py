"""Figures in a file, so that rows can be measured one at a time, whenever the machine is at rest."""

from dataclasses import asdict
from pathlib import Path

import orjson

from benchmarks.figures import Measured
from benchmarks.report import Results


def kept(path: Path, fresh: Results) -> Results:
    """Write what was measured into the file, in place of its former figures of the same rows; all rows in it now.

    Figures of another machine or other versions are not kept: they would stand beside facts that are not theirs.
    """
    before = read(path) if path.exists() else None
    if before is not None and _comparable(before) == _comparable(fresh):
        fresh = Results(fresh.machine, fresh.generator, {**before.measured, **fresh.measured})
    path.write_bytes(orjson.dumps(asdict(fresh), option=orjson.OPT_INDENT_2))
    return fresh


def read(path: Path) -> Results:
    """What `kept` wrote."""
    content = orjson.loads(path.read_bytes())
    measured = {name: Measured(**row) for name, row in content.pop("measured").items()}
    return Results(**content, measured=measured)


def _comparable(results: Results) -> dict[str, str]:
    return {name: value for name, value in results.machine.items() if name != "date"}
