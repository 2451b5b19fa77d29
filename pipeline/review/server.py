"""The page of a review and its four requests, on 127.0.0.1 alone.

In:  HTTP requests of a browser on this machine
Out: the page; `POST /next`, `/label`, `/undo` and `/figures` with JSON both ways

The page holds no data, and anyone on the machine may load it. The requests need the token, which
travels in the part of the address after `#`: browsers send that to no server and put it into no
`Referer`. They are also refused under another `Host`, as a name that a foreign page points at this
machine would have, and from another `Origin`. A form of a foreign page cannot set the token's
header. Texts reach the page as JSON and become text there.
"""

import json
import secrets
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from pipeline.errors import PipelineError, StoreError
from pipeline.report.page import render
from pipeline.review.session import Review

_HERE = Path(__file__).parent
HOST = "127.0.0.1"
TOKEN_HEADER = "X-Review-Token"
MAX_BODY = 10_000
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # The page forbids all but its own script in a meta element, where framing cannot be forbidden.
    "Content-Security-Policy": "frame-ancestors 'none'",
}


class ReviewServer(ThreadingHTTPServer):
    """Serves one review until it is shut down."""

    daemon_threads = True

    def __init__(self, review: Review, title: str, *, port: int = 0) -> None:
        """Listen.

        Args:
            port: 0 for a free one.

        Raises:
            OSError: the port is taken.
        """
        super().__init__((HOST, port), _Handler)
        self.review = review
        self.token = secrets.token_urlsafe(32)
        self.hosts = {f"{name}:{self.server_port}" for name in (HOST, "localhost")}
        script = (_HERE / "review.js").read_text(encoding="utf-8").strip()
        page = render("review.html.jinja", folder=_HERE, title=title, script=script, connects=True)
        self.page = page.encode()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing for a browser that was closed before its answer; a bug keeps its traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Address with the token."""
        return f"http://{HOST}:{self.server_port}/#{self.token}"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60

    def do_GET(self) -> None:
        """The page."""
        if self._is_foreign():
            return
        if self.path != "/":
            self._answer(404, {"error": "there is only one page"})
            return
        self._send(200, "text/html; charset=utf-8", self.server.page)

    def do_POST(self) -> None:
        """A request of the page, with its token."""
        if self._is_foreign():
            return
        token = self.headers.get(TOKEN_HEADER, "").encode()
        if not secrets.compare_digest(token, self.server.token.encode()):
            self.close_connection = True  # its body stays unread
            self._answer(403, {"error": "open the address that `rlaif review` printed"})
            return
        work = ACTIONS.get(self.path)
        size = self.headers.get("Content-Length", "")
        if work is None or not size.isdecimal() or int(size) > MAX_BODY:
            self.close_connection = True
            self._answer(400, {"error": "not a request of this page"})
            return
        try:
            body = json.loads(self.rfile.read(int(size)))
            result = work(self.server.review, body)
        except StoreError as error:
            self._answer(507, {"error": f"not saved: {error}"})
        except PipelineError as error:
            self._answer(409, {"error": str(error)})
        except (ValueError, KeyError, TypeError, AttributeError):
            self._answer(400, {"error": "not a request of this page"})
        else:
            self._answer(200, result)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a line for each request would bury the address."""

    def _is_foreign(self) -> bool:
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if host in self.server.hosts and origin in (None, f"http://{host}"):
            return False
        self.close_connection = True
        self._answer(403, {"error": "this page answers only under its own address"})
        return True

    def _answer(self, status: int, value: Any) -> None:
        self._send(status, "application/json", json.dumps(value).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, text in HEADERS.items():
            self.send_header(name, text)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _label(review: Review, body: Any) -> dict[str, Any]:
    name = str(body["reviewer"])
    review.label(name, str(body["pair"]), str(body["answer"]), float(body["seconds"]))
    return review.next(name)


def _undo(review: Review, body: Any) -> dict[str, Any]:
    name = str(body["reviewer"])
    review.take_back(name)
    return review.next(name)


ACTIONS: dict[str, Callable[[Review, Any], Any]] = {
    "/next": lambda review, body: review.next(str(body["reviewer"])),
    "/label": _label,
    "/undo": _undo,
    "/figures": lambda review, body: review.figures(),
}
