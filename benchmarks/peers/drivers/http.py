from typing import Any

import orjson

from benchmarks.wire import Connection, Unexpected, connect, request


class Http:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._idle: list[Connection] = []

    async def post(self, path: str, body: Any) -> Any:
        connection = self._idle.pop() if self._idle else await connect(self._url)
        status, answer = await connection.call(request("POST", path, body))
        self._idle.append(connection)
        if not 200 <= status < 300:
            raise Unexpected(f"{status} to {path}: {answer[:300]!r}")
        return orjson.loads(answer) if answer else None
