import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import httpx

VERSION: Final = "2025-03-26"
ANSWER_SECONDS: Final = 90.0


class McpClient:
    """Client of one MCP server over HTTP, with just the calls that list and use tools."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._http = httpx.Client(timeout=ANSWER_SECONDS, follow_redirects=True)
        self._headers = {"Accept": "application/json, text/event-stream", **(headers or {})}
        self._number = 0

    def __enter__(self) -> Self:
        about = {"name": "compat", "version": "1"}
        self._ask("initialize", {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": about})
        self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def tools(self) -> list[str]:
        return sorted(tool["name"] for tool in self._ask("tools/list", {})["tools"])

    def use(self, tool: str, **arguments: Any) -> Any:
        """Return what a tool answers: its JSON, a list where it gives several parts."""
        answer = self._ask("tools/call", {"name": tool, "arguments": arguments})
        parts = [_parsed(part.get("text", "")) for part in answer.get("content", [])]
        return parts[0] if len(parts) == 1 and not tool.startswith("list_") else parts

    def _ask(self, method: str, params: Mapping[str, Any]) -> Any:
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        answer = self._send(message)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def _send(self, message: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._http.post(self._url, json=message, headers=self._headers)
        answer.raise_for_status()
        if session := answer.headers.get("mcp-session-id"):
            self._headers["mcp-session-id"] = session
        if not answer.content:
            return {}
        found: dict[str, Any] = {}
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            lines = [line.removeprefix("data:") for line in answer.text.splitlines() if line.startswith("data:")]
            found = json.loads(lines[-1])
        else:
            found = answer.json()
        return found


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
