"""The web console in a browser: when it is first painted, how smoothly a busy fleet scrolls: `make bench-console`.

The page is the one that is shipped, with its headers, in Debian's Chromium. What it is fed is made up here: every row
of `--models` changes each second, which no two cores could serve for real. Ends with 1 when a promise was broken: 300
ms to the first paint, and in the scroll less of the page's thread for a frame than the 1/60 s that it has. How many
frames there were is said beside it: a browser without a screen draws them on the same cores as all else that runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import socket
import statistics
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from playwright.sync_api import Browser, CDPSession, Page, ViewportSize, sync_playwright

from orchestrator.api import console

PAINT_PROMISED_MS = 300.0
FRAME_MS = 1000 / 60
WIDE: ViewportSize = {"width": 1600, "height": 1000}

SCROLL = """
([seconds, pixels]) => new Promise((resolve) => {
  const deltas = [];
  const begun = performance.now();
  let last = begun;
  let step = pixels;
  const frame = (now) => {
    if (now > last) deltas.push(now - last);
    last = now;
    scrollBy(0, step);
    const end = document.documentElement.scrollHeight - innerHeight;
    if (scrollY >= end - 1 || scrollY <= 0) step = scrollY <= 0 ? pixels : -pixels;
    if (now - begun < seconds * 1000) requestAnimationFrame(frame);
    else resolve(deltas.slice(1));
  };
  requestAnimationFrame(frame);
})
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=10.0, help="of scrolling")
    parser.add_argument("--loads", type=int, default=15, help="of the page, each in a browser without a cache")
    options = parser.parse_args()
    executable = shutil.which("chromium-headless-shell")
    if executable is None:
        raise SystemExit(
            "bench-console: chromium-headless-shell is not installed; `apt-get install chromium-headless-shell`"
        )
    with serving(options.models) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        kept = [measure_paint(browser, url, options.loads)]
        kept += [measure_scroll(browser, url, options.models, options.seconds, pixels) for pixels in (8, 40)]
        browser.close()
    raise SystemExit(0 if all(kept) else 1)


# -- first paint ------------------------------------------------------------------------------------------------


def measure_paint(browser: Browser, url: str, loads: int) -> bool:
    shell, numbers = [], []
    for _ in range(loads):
        context = browser.new_context(viewport=WIDE)
        page = context.new_page()
        page.goto(url)
        page.locator(".long tbody tr").first.wait_for()
        shell.append(float(page.evaluate("performance.getEntriesByName('first-paint')[0].startTime")))
        numbers.append(float(page.evaluate("performance.now()")))
        context.close()
    print(f"first paint            median {statistics.median(shell):4.0f} ms, worst of {loads} {max(shell):4.0f} ms")
    print(f"first row with numbers median {statistics.median(numbers):4.0f} ms, worst {max(numbers):4.0f} ms, at most")
    return statistics.median(shell) < PAINT_PROMISED_MS


# -- scroll -----------------------------------------------------------------------------------------------------


def measure_scroll(browser: Browser, url: str, models: int, seconds: float, pixels: int) -> bool:
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.goto(url)
    page.locator(".long tbody tr").first.wait_for()
    time.sleep(2)  # the page's own beginning is not part of it
    busy = Busy(page)
    deltas = [float(each) for each in page.evaluate(SCROLL, [seconds, pixels])]
    busy.end()
    context.close()
    late = sum(each > 1.5 * FRAME_MS for each in deltas) / len(deltas)
    missed = max(0.0, 1 - len(deltas) / (sum(deltas) / FRAME_MS))
    print(
        f"scroll of {models} models, {pixels} pixels a frame: {1000 * len(deltas) / sum(deltas):.1f} frames/s, median "
        f"{statistics.median(deltas):.1f} ms, p99 {quantile(deltas, 0.99):.1f} ms, longest {max(deltas):.0f} ms, "
        f"{late:.1%} late, {missed:.1%} missed; a frame needs {busy.ms / len(deltas):.1f} ms of the page's thread "
        f"({', '.join(f'{name} {ms / len(deltas):.1f}' for name, ms in busy.parts_ms.items())})"
    )
    return busy.ms / len(deltas) < FRAME_MS


class Busy:
    """The processor time of a page's thread, by Chromium's own account."""

    def __init__(self, page: Page) -> None:
        self._session: CDPSession = page.context.new_cdp_session(page)
        self._session.send("Performance.enable", {"timeDomain": "threadTicks"})
        self._begun = self._read()
        self.ms = 0.0
        self.parts_ms: dict[str, float] = {}

    def end(self) -> None:
        ended = self._read()
        spent = {name: 1000 * (value - self._begun[name]) for name, value in ended.items()}
        self.ms = spent["TaskDuration"]
        parts = {"script": "ScriptDuration", "style": "RecalcStyleDuration", "layout": "LayoutDuration"}
        self.parts_ms = {part: spent[name] for part, name in parts.items()}

    def _read(self) -> dict[str, float]:
        found = self._session.send("Performance.getMetrics")["metrics"]
        return {each["name"]: float(each["value"]) for each in found}


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


# -- what it is fed ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(models: int) -> Iterator[str]:
    """The console's files as the control plane serves them, and a stream in which every row changes each second."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(fake_app(models), log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/console/"
        server.force_exit = server.should_exit = True
        thread.join(10)


def fake_app(models: int) -> FastAPI:
    app = FastAPI()
    app.include_router(console.files)
    names = [f"model-{number}" for number in range(models)]
    chance = random.Random(6)

    @app.get("/api/v1/console/session")
    async def session() -> dict[str, Any]:
        return {"signed_in": True, "cluster": "bench"}

    @app.get("/api/v1/series")
    async def series() -> dict[str, Any]:
        at = [time.time() - 15 * (59 - i) for i in range(60)]
        curves = {n: {k: [chance.random() for _ in at] for k in ("rate_per_s", "p95_ms", "error_ratio")} for n in names}
        return {"step_s": 15, "at": at, "models": curves}

    @app.get("/api/v1/stream")
    async def stream() -> StreamingResponse:
        return StreamingResponse(seconds(names, chance), media_type="text/event-stream")

    return app


async def seconds(names: list[str], chance: random.Random) -> AsyncIterator[str]:
    whole = True
    while True:
        yield f"event: fleet\ndata: {json.dumps(update(names, chance, whole=whole))}\n\n"
        whole = False
        await asyncio.sleep(1)


def update(names: list[str], chance: random.Random, *, whole: bool) -> dict[str, Any]:
    totals = {"rate_per_s": 1.0, "error_ratio": 0.0, "ready": 1, "desired": 1, "standby": 0, "queued": 0}
    return {
        "at": time.time(), "whole": whole, "cluster": "bench", "revision": 1, "state": "converged", "engine": "process",
        "engine_error": "", "gateway": {"url": "", "ready": True, "table_current": True, "error": ""},
        "operation": None, "gone": [], "totals": {**totals, "in_flight": 0, "cost_per_hour": None},
        "models": [row(name, chance) for name in names],
    }  # fmt: skip


def row(name: str, chance: random.Random) -> dict[str, Any]:
    ms = 1 + 40 * chance.random()
    return {
        "name": name, "state": "ready", "reason": "", "traffic": {"1": 100}, "ready": 2, "desired": 2, "standby": 0,
        "rate_per_s": 200 * chance.random(), "error_ratio": 0.02 * chance.random(), "p50_ms": ms, "p95_ms": 2 * ms,
        "p99_ms": 3 * ms, "slo_ms": 50, "slo_percentile": 95, "queued": chance.randrange(5), "in_flight": 2,
        "cost_per_hour": chance.random(), "paused": False,
    }  # fmt: skip


if __name__ == "__main__":
    main()
