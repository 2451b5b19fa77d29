"""Bodies that end late, never, or are not what they say: bounded in time and size."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from pipeline.config.engines import OpenAIConfig
from pipeline.engines import open_engine
from pipeline.engines.openai import endpoint as endpoint_module
from pipeline.errors import FinalCallError
from pipeline.types import SamplingParams, user
from tests.engines.fake_endpoint import chat_reply

pytestmark = pytest.mark.usefixtures("quick")
GOOD = json.dumps(chat_reply("fine")).encode()
MODELS = b'{"object":"list","data":[]}'
Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(send: Send) -> AsyncIterator[str]:
    """Serves completions by `send` and everything else by an empty list; yields its address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"/chat/completions" not in head:
                writer.write(answer(MODELS))
            elif b'"Hi"' in await reader.read(10_000):
                writer.write(answer(GOOD))
            else:
                await send(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    finally:
        server.close()


def answer(body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = ["HTTP/1.1 200 OK", "Content-Type: application/json", "Connection: close", *headers]
    lines += [f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def failure(send: Send, timeout_s: float = 20.0) -> str:
    """How one request to such a server fails."""
    async with raw_server(send) as url:
        config = OpenAIConfig(
            type="openai", base_url=url, model="m", timeout_s=timeout_s, max_retries=0
        )
        async with open_engine(config) as engine:
            with pytest.raises(FinalCallError, match="endpoint http") as caught:
                await engine.generate((user("q"),), SamplingParams(), seed=1, request_id="g")
    return str(caught.value)


async def test_a_body_that_drips_is_given_up_in_time() -> None:
    """A byte every 50 ms keeps a read's own limit away for hours."""

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(b"", length=10_000))
        for _ in range(200):
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.05)

    started = time.monotonic()
    assert "no whole answer within 1 s (`timeout_s`)" in await failure(send, timeout_s=1.0)
    assert time.monotonic() - started < 5


async def test_a_body_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MOST_BYTES", 2**20)
    num_sent = 0

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal num_sent
        writer.write(answer(b"", length=10**12))
        while True:
            writer.write(b" " * 2**16)
            await writer.drain()
            num_sent += 2**16

    assert "more than 1,048,576 bytes" in await failure(send)
    assert num_sent < 32 * 2**20  # what the sockets hold


async def test_a_small_body_that_unpacks_to_gigabytes_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint_module, "_MOST_PACKED", 2**14)
    packed = gzip.compress(b" " * 2**26)

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(packed, "Content-Encoding: gzip"))

    assert "more than 16,384 bytes" in await failure(send)


async def test_a_body_that_is_packed_twice_is_not_unpacked() -> None:
    packed = gzip.compress(gzip.compress(b" " * 2**26))
    assert len(packed) < 2**10

    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(packed, "Content-Encoding: gzip, gzip"))

    assert "more than 0 bytes" in await failure(send)


@pytest.mark.parametrize(
    "body", [b"no gzip", gzip.compress(GOOD)[:40] + b"x" * 40], ids=["no gzip", "cut gzip"]
)
async def test_a_body_that_does_not_unpack(body: bytes) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(body, "Content-Encoding: gzip"))

    assert "DecodingError" in await failure(send)


async def test_a_packed_answer_is_read() -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(answer(gzip.compress(GOOD), "Content-Encoding: gzip"))

    async with raw_server(send) as url:
        config = OpenAIConfig(type="openai", base_url=url, model="m")
        async with open_engine(config) as engine:
            reply = await engine.generate((user("q"),), SamplingParams(), seed=1, request_id="g")
    assert reply.text == "fine"


@pytest.mark.parametrize("raw", [b"", b"SSH-2.0-OpenSSH_9.6\r\n", answer(GOOD)[:-9]])
async def test_a_connection_that_breaks(raw: bytes) -> None:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    assert "APIConnectionError" in await failure(send)
