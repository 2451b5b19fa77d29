"""A small OpenAI-compatible endpoint on loopback whose answers a test scripts."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any]


@dataclass
class Endpoint:
    """Its address, and every request body and key that it saw."""

    base_url: str
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def chat_reply(text: str = "hello", top: dict[str, float] | None = None) -> dict[str, Any]:
    """A chat completion, with top log-probabilities of the first token if given."""
    logprobs = None
    if top is not None:
        listed = [{"token": t, "logprob": lp, "bytes": None} for t, lp in top.items()]
        logprobs = {"content": [{**listed[0], "top_logprobs": listed}]}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": logprobs,
                "message": {"role": "assistant", "content": text},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


@contextmanager
def fake_endpoint(
    answer: Callable[[int, dict[str, Any]], Answer],
    pages: Mapping[str, Callable[[dict[str, Any]], Answer]] | None = None,
) -> Iterator[Endpoint]:
    """Serve `answer(number of the call, body) -> (status, json or bytes)` for completions.

    Args:
        pages: what other paths answer to a body, such as `/version` and `/tokenize` of vLLM.
    """
    endpoint, paths = Endpoint(""), dict(pages or {})

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served = {
                "object": "list",
                "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "us"}],
            }
            if self.path in paths:
                self._send(*paths[self.path]({}))
            else:
                self._send(*((200, served) if self.path.endswith("/models") else (404, {})))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path in paths:
                self._send(*paths[self.path](body))
                return
            endpoint.bodies.append(body)
            endpoint.headers.append(dict(self.headers))
            endpoint.keys.append(self.headers.get("Authorization", ""))
            self._send(*answer(len(endpoint.bodies), body))

        def _send(self, status: int, content: Any) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("retry-after-ms", "1")
            if 300 <= status < 400:
                self.send_header("Location", content["location"])
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    endpoint.base_url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
