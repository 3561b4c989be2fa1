import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from compat.calls import make_calls
from compat.coordinators import Coordinator, ours, theirs
from compat.dashboard import open_dashboard
from compat.environment import Environment, NotInstalled, build_packages, prepare
from compat.recorder import Recorder
from compat.registries import make_registry_calls
from compat.runners import try_runners
from compat.table import Row, compare, known_differences, unexpected, unseen, written
from compat.their_tests import run_their_tests
from runtime.processes import exit_now

Trial = Callable[[Environment, Coordinator, Recorder], None]
WORK: Final = Path(__file__).resolve().parent.parent / ".local" / "compat"


def _wire(environment: Environment, coordinator: Coordinator, recorder: Recorder) -> None:  # noqa: ARG001  # a Trial
    make_calls(recorder)


def _registries(environment: Environment, coordinator: Coordinator, recorder: Recorder) -> None:  # noqa: ARG001  # a Trial
    make_registry_calls(recorder)


def _tests(environment: Environment, coordinator: Coordinator, recorder: Recorder) -> None:
    recorder.outcomes.update(run_their_tests(environment, coordinator))


# In this order: the first one needs a coordinator without sessions, and tests remove all there are.
TRIALS: Final[dict[str, Trial]] = {
    "wire": _wire,
    "registries": _registries,
    "runners": try_runners,
    "dashboard": open_dashboard,
    "tests": _tests,
}


def main() -> int:
    asked = _arguments()
    asked.work.mkdir(parents=True, exist_ok=True)
    # Exit as Ctrl-C does, so that no process is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        environment = prepare(asked.checkout, asked.work)
        if {"runners", "dashboard"} & set(asked.only):
            build_packages(environment)
    except NotInstalled as fault:
        print(fault, file=sys.stderr)
        return 2
    directory = Path(tempfile.mkdtemp(prefix="coordinator-compat-"))
    say = _speaker()
    try:
        theirs_found = _outcomes(environment, "theirs", directory, asked.only, say)
        ours_found = _outcomes(environment, "ours", directory, asked.only, say)
        known = known_differences()
        rows = compare(theirs_found, ours_found, known)
        _print(rows, asked.json)
        for each in unseen(rows, known):
            print(f"known difference that was not seen: {each.call}")
        return 1 if unexpected(rows) else 0
    finally:
        if asked.keep:
            print(f"logs: {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)


def _outcomes(
    environment: Environment, side: str, scratch: Path, trials: Sequence[str], say: Callable[[str], None]
) -> dict[str, Any]:
    directory = scratch / side
    directory.mkdir()
    with _coordinator(environment, side, directory) as coordinator:
        recorder = Recorder(coordinator.urls, directory)
        for name, trial in TRIALS.items():
            if name not in trials:
                continue
            say(f"{side}: {name}")
            try:
                trial(environment, coordinator, recorder)
                recorder.note(f"{name}: carried out", "yes")
            except Exception as error:  # noqa: BLE001  # the other trials go on, and the table says so
                # With the name of the side: two that fail are not the same.
                recorder.note(f"{name}: carried out", f"not at {side}, {type(error).__name__}: {error}"[:2000])
        recorder.close()
        return recorder.outcomes


@contextmanager
def _coordinator(environment: Environment, side: str, directory: Path) -> Iterator[Coordinator]:
    with theirs(environment, directory) if side == "theirs" else ours(directory) as coordinator:
        yield coordinator


def _print(rows: Sequence[Row], json_file: Path | None) -> None:
    print(f"\n{written(rows)}")
    if json_file:
        json_file.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False))


def _speaker() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: print(f"{time.monotonic() - begun:7.1f}  {text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/compat",
        description="Run the unmodified clients of the coordinator that this one replaces against it and against two "
        "replicas of ours, and print every call with both outcomes. Exit code 1: something differs that "
        "compat/known_differences.toml does not name; 2: the clients could not be installed.",
    )
    parser.add_argument("checkout", type=Path, help="checkout of the other coordinator; nothing is written to it")
    parser.add_argument("--only", nargs="+", choices=list(TRIALS), default=list(TRIALS), help="trials to make")
    parser.add_argument("--work", type=Path, default=WORK, help="directory of the copy and its packages")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    parser.add_argument("--keep", action="store_true", help="keep the logs of all processes")
    return parser.parse_args()


if __name__ == "__main__":
    exit_now(main())
