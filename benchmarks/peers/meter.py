"""Middleware of the vLLM server: notes every request in memory, and can refuse one prompt for ever.

The benchmark asks for paths below `/peers`:

    calls             all requests so far: begin, end, status, stage, first message
    reset             forget them
    poison?text=...   answer 500 to every chat that begins with this text; empty for none
"""

import hashlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

Send = Callable[[dict[str, Any]], Awaitable[None]]
WATCHED = {"/v1/chat/completions", "/v1/completions", "/tokenize"}
STAGES = {1: "sample", 3: "critique", 5: "revise"}
"""By the number of turns."""


def subject(path: str, body: bytes) -> tuple[str, str]:
    """Stage of a request, and what it is about: the user's prompt, else a hash."""
    data = json.loads(body)
    turns = [m["content"] for m in data.get("messages", ()) if m["role"] != "system"]
    if turns and isinstance(turns[0], list):
        turns[0] = "".join(part.get("text", "") for part in turns[0])
    whole = json.dumps([path, data.get("messages"), data.get("prompt")]).encode()
    if not turns or turns[0].startswith("Consider this conversation"):
        return "judge" if turns else "completions", hashlib.md5(whole).hexdigest()
    return STAGES.get(len(turns), "other"), turns[0]


class Meter:
    """An ASGI application around the server's."""

    def __init__(self, app: Any) -> None:
        self.app, self.poison = app, ""
        self.calls: list[dict[str, Any]] = []

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        """Pass on, and note."""
        path = scope.get("path", "")
        if path.startswith("/peers/"):
            await self._own(path, scope, send)
        elif path in WATCHED:
            await self._watched(path, scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _watched(self, path: str, scope: Any, receive: Any, send: Send) -> None:
        begin, body, more = time.time(), b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        stage, about = subject(path, body)
        call = {"begin": begin, "end": None, "path": path, "status": None}
        call |= {"stage": stage, "about": about}
        self.calls.append(call)
        if self.poison and about == self.poison and path != "/tokenize":
            call |= {"end": time.time(), "status": 500}
            error = {"error": {"message": "poisoned", "type": "server_error"}}
            await answer(send, 500, error)
            return
        waiting = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> Any:
            return waiting.pop() if waiting else await receive()

        async def note(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                call["status"] = message["status"]
            await send(message)

        try:
            await self.app(scope, again, note)
        finally:
            call["end"] = time.time()

    async def _own(self, path: str, scope: Any, send: Send) -> None:
        if path == "/peers/reset":
            self.calls.clear()
        if path == "/peers/poison":
            self.poison = parse_qs(scope["query_string"].decode()).get("text", [""])[0]
        await answer(send, 200, self.calls if path == "/peers/calls" else {})


async def answer(send: Send, status: int, value: Any) -> None:
    """Send JSON."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})
