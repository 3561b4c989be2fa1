"""Demo job: `python -m runner.demo` reads a run on stdin, prints a few lines and answers its prompt.

The prompt `sleep 30` sleeps for 30 s (so that there is something to stop), `fail` fails.
"""

import json
import signal
import sys
import time
from types import FrameType
from typing import Any, NoReturn

PAUSE_SECONDS = 0.3


def main() -> int:
    signal.signal(signal.SIGTERM, _stop)
    run: dict[str, Any] = json.load(sys.stdin)
    prompt = str(run.get("parameters", {}).get("prompt", ""))
    _say(f"run {run.get('run_id')} of session {run.get('session_id')}, attempt {run.get('attempt')}")
    verb, _, rest = prompt.partition(" ")
    if verb == "fail":
        sys.stderr.write(f"{rest or 'told to fail'}\n")
        return 1
    if verb == "sleep":
        _sleep(_seconds(rest))
    for step in ("reading the prompt", "thinking it over", "writing the answer"):
        time.sleep(PAUSE_SECONDS)
        _say(step)
    words = len(prompt.split())
    answer = f"You said: {prompt}"
    _say(json.dumps({"result_text": answer, "words": words, "characters": len(prompt)}))
    return 0


def _sleep(seconds: float) -> None:
    _say(f"sleeping {seconds:g} s")
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, 5.0))
        _say(f"{max(0.0, deadline - time.monotonic()):.0f} s left")


def _seconds(text: str) -> float:
    try:
        return max(0.0, float(text))
    except ValueError:
        return 1.0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    _say("told to stop: stopping")
    sys.exit(143)


if __name__ == "__main__":
    sys.exit(main())
