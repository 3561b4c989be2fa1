import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import SystemRandom

from chaos.campaign import Campaign, Result, run
from chaos.schedule import MAKERS, schedule
from runtime.processes import exit_now
from testkit.servers import clear

_QUICK_SECONDS = 30.0


def main() -> int:
    asked = _arguments()
    if asked.list_faults:
        print("\n".join(MAKERS))
        return 0
    seed = SystemRandom().randrange(1_000_000) if asked.seed is None else asked.seed
    seconds = _QUICK_SECONDS if asked.quick else asked.minutes * 60
    campaign = Campaign(seed, seconds, rate=asked.rate, gap=2.5 if asked.quick else asked.gap)
    paths = "with" if campaign.fast_paths else "without"
    print(f"seed {seed}, {seconds:g} s of faults {paths} fast paths:")
    for fault in schedule(seed, seconds, gap=campaign.gap):
        print(f"  {fault}")
    # Exit as Ctrl-C does, so that no process is left running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = Path(tempfile.mkdtemp(prefix="coordinator-chaos-"))
    directory.chmod(0o755)
    held = False
    try:
        result = run(campaign, directory, _speaker())
        held = result.held
        _report(result, asked.json)
    finally:
        if held and not asked.keep:
            clear(directory)
        else:
            print(f"logs and ledgers: {directory}")
    return 0 if held else 1


def _report(result: Result, json_file: Path | None) -> None:
    print()
    for verdict in result.verdicts:
        print(verdict)
    print(f"seed {result.campaign.seed}: {'every promise held' if result.held else 'BROKEN'}")
    if json_file:
        result.write(json_file)


def _speaker() -> Callable[[str], None]:
    begun = time.monotonic()
    return lambda text: print(f"{time.monotonic() - begun:7.1f}  {text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description="Test a whole cluster under load and faults; exit code 0 when every promise held.",
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="duration of the faults (5)")
    parser.add_argument("--seed", type=int, help="seed of the schedule and of the load (default: a new one)")
    parser.add_argument("--rate", type=float, default=20.0, help="submissions a second (20)")
    parser.add_argument(
        "--gap", type=float, default=6.0, help="seconds between the starts of two faults, on average (6)"
    )
    parser.add_argument("--quick", action="store_true", help="half a minute of many faults")
    parser.add_argument("--list-faults", action="store_true", help="print the kinds of faults and exit")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write schedule, outcomes and verdict to FILE")
    parser.add_argument("--keep", action="store_true", help="keep the logs even when every promise held")
    return parser.parse_args()


if __name__ == "__main__":
    code = main()
    # Exit without waiting for threads that hang on a dead connection.
    exit_now(code)
