"""A Chromium on the PATH that a benchmark drives through its DevTools protocol."""

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import websockets

NAMES = ("chromium", "chromium-browser", "google-chrome")


class Page:
    """One tab."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._numbers = count(1)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol and its result."""
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await self._socket.recv())
            if message.get("id") == number:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                result: dict[str, Any] = message["result"]
                return result

    async def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        result = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(str(result["exceptionDetails"]))
        return result["result"].get("value")

    async def open(self, address: str, *, width: int = 1280, height: int = 900) -> None:
        """Go to an address in a window of that size, in CSS pixels."""
        await self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        await self.call("Page.navigate", url=address)

    async def until(self, condition: str) -> float:
        """Wait until an expression holds; returns milliseconds since the page began to load."""
        return float(
            await self.evaluate(
                "new Promise(resolve => { const look = () => { "
                f"try {{ if ({condition}) return resolve(performance.now()); }} catch {{}} "
                "setTimeout(look, 5); }; look(); })"
            )
        )


def find_browser() -> str | None:
    """The path of a Chromium; None without one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@asynccontextmanager
async def open_browser(program: str) -> AsyncIterator[Page]:
    """A headless browser with one empty page; ends with the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        process = await asyncio.create_subprocess_exec(
            program,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--remote-debugging-port=0",
            f"--user-data-dir={folder}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            port = Path(folder) / "DevToolsActivePort"
            async with asyncio.timeout(60):
                while not port.exists() or not port.read_text().strip():
                    await asyncio.sleep(0.05)
            address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"
            async with httpx.AsyncClient() as client:
                tabs = (await client.get(address)).json()
            socket = next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page")
            async with websockets.connect(socket, max_size=None) as connection:
                yield Page(connection)
        finally:
            process.terminate()
            await process.wait()
