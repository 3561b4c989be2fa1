import json
import os
import sys
from datetime import UTC, datetime
from typing import Literal

from runtime.terminal import say

Format = Literal["console", "json"]


class Console:
    def __init__(self, style: Format) -> None:
        self._style = style

    @property
    def on_terminal(self) -> bool:
        return self._style == "console" and sys.stdout.isatty()

    def say(self, process: str, text: str) -> None:
        if self._style == "json":
            self._write_json(process=process, event=text)
        else:
            self._write(f"{process:<10} {text}")

    def ready(self, urls: list[str]) -> None:
        if self._style == "json":
            self._write_json(process="up", event="ready", urls=urls)
        else:
            self._write(f"ready: {' '.join(urls)}")

    def metrics(self, urls: list[str]) -> None:
        """List where the workers serve their metrics; web replicas do so on their own ports."""
        if self._style == "json":
            self._write_json(process="up", event="metrics of workers", urls=urls)
        elif urls:
            self.say("up", f"metrics of workers: {' '.join(urls)}")

    def balancer(self, url: str) -> None:
        if self._style == "json":
            self._write_json(process="up", event="balancer", url=url)
        else:
            self._write(f"balancer: {url}")

    def _write_json(self, **fields: str | list[str]) -> None:
        self._write(json.dumps({"timestamp": datetime.now(UTC).isoformat(), **fields}))

    def _write(self, line: str) -> None:
        try:
            say(line, flush=True)
        except OSError:
            # `coordinator up | head -1`: drop all further output, also what the interpreter flushes at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
