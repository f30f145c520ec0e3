"""How a stream of the console ends, whoever ends it. What it shows, tests/integration/test_console_stream.py reads."""

from __future__ import annotations

import asyncio

from starlette.types import Message

from orchestrator.api.stream import EventStream, Listener

SCOPE = {"type": "http"}


class Browser:
    """The other side of an answer: takes in what is sent, as long as it `reads`, and leaves when it is told to."""

    def __init__(self, *, reads: int = 1000) -> None:
        self.got: list[Message] = []
        self.leaves = asyncio.Event()
        self._reads = reads

    async def receive(self) -> Message:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if len(self.got) >= self._reads:
            await asyncio.Event().wait()
        self.got.append(message)


async def answered(browser: Browser, *texts: bytes | None, patience_s: float = 5.0) -> list[Listener]:
    """Who was told to have left when the answer had ended."""
    listener, left = Listener(""), []
    for text in texts:
        listener.texts.put_nowait(text)
    stream = EventStream(listener, left.append, patience_s)
    async with asyncio.timeout(10):
        await stream(SCOPE, browser.receive, browser.send)
    return left


class TestEventStream:
    async def test_sends_each_text_as_it_is_and_ends_with_the_queue(self) -> None:
        browser = Browser()

        left = await answered(browser, b"one", b"two", None)

        assert [m.get("body") for m in browser.got] == [None, b"one", b"two", b""]
        assert browser.got[0]["status"] == 200
        assert (b"content-type", b"text/event-stream; charset=utf-8") in browser.got[0]["headers"]
        assert not browser.got[-1]["more_body"]
        assert len(left) == 1

    async def test_ends_when_its_reader_leaves(self) -> None:
        browser = Browser()
        browser.leaves.set()

        assert len(await answered(browser, b"one")) == 1

    async def test_lets_go_who_takes_nothing(self) -> None:
        browser = Browser(reads=2)

        left = await answered(browser, b"one", b"two", b"three", patience_s=0.05)

        assert len(left) == 1
        assert [m.get("body") for m in browser.got] == [None, b"one"]
