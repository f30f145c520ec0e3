"""Signals straight from the gateways: their metrics in Prometheus' text format, each second, without a Prometheus.

Owns the reading of that format, as far as it is ours: strict, for a line that cannot be read means that nobody knows
what the numbers after it mean. What a scrape of many versions costs is bounded by scraping less often.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import Executor
from functools import partial

import httpx

from orchestrator.adapters.signals import Round, SignalsUnavailable
from orchestrator.core.scaling.series import DETAILS, NAMES, GatewayReadings, Series, readings, series_of

EVERY_S = 1.0
TIMEOUT_S = 2.0
# A scrape may take this share of the time: 1,000 versions take 0.1 s of the gateway and 0.2 s here.
MOST_SHARE = 0.2
MOST_EVERY_S = 5.0
# 10,000 versions are some 90 MB.
MOST_BYTES = 1 << 28
# The texts before the values are the same at every scrape, so what they mean is kept.
_KNOWN_MOST = 1 << 20

_LABEL = re.compile(r'\s*([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\["\\n])*)"\s*(?:,|$)')
_ESCAPED = re.compile(r"\\(.)")
_NAME = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")


class Exposition:
    """Reads metrics pages. Keeps what it learned of one page for the next."""

    def __init__(self) -> None:
        self._known: dict[str, Series | None] = {}
        self._details: dict[str, Series] = {}

    def read(self, text: str, detailed: Set[str] = frozenset()) -> Iterator[tuple[Series, float]]:
        """The series that matter, and of the models in `detailed` those for people too. Raises `ValueError` that names
        the line."""
        if len(self._known) > _KNOWN_MOST:
            self._known.clear()
            self._details.clear()
        for number, line in enumerate(text.split("\n"), 1):
            if not line or line[0] == "#":
                continue
            # No value of ours is followed by a time.
            head, _, value = line.rpartition(" ")
            try:
                series = self._known[head]
            except KeyError:
                series = self._learn(head, number)
            if series is None and detailed and (found := self._details.get(head)) is not None:
                series = found if found.key is not None and found.key.model in detailed else None
            if series is not None:
                yield series, _number(value, number)

    def _learn(self, head: str, number: int) -> Series | None:
        series = _series(head, number)
        if series is not None and series.name in DETAILS:
            self._details[head] = series
            series = None
        self._known[head] = series
        return series


def _series(head: str, number: int) -> Series | None:
    name, brace, labels = head.partition("{")
    if not _NAME.fullmatch(name) or (brace and not labels.endswith("}")):
        raise ValueError(f"line {number}: {head[:80]!r} is no metric")
    is_ours = name in NAMES or name in DETAILS
    return series_of(name, _labels(labels[:-1], number)) if is_ours else None


def _labels(text: str, number: int) -> dict[str, str]:
    labels, at = {}, 0
    while at < len(text):
        match = _LABEL.match(text, at)
        if match is None:
            raise ValueError(f"line {number}: {text[at : at + 80]!r} is no label")
        labels[match[1]] = _ESCAPED.sub(lambda m: "\n" if m[1] == "n" else m[1], match[2])
        at = match.end()
    return labels


def _number(text: str, number: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"line {number}: {text[:40]!r} is no number") from None


class Scrape:
    """Reads every gateway of `urls()`: names to the addresses of their private ports. Of the models in `detailed()` it
    reads what only people look at."""

    name = "direct"

    def __init__(
        self,
        client: httpx.AsyncClient,
        urls: Callable[[], Mapping[str, str]],
        threads: Executor,
        detailed: Callable[[], Set[str]] = frozenset,
    ) -> None:
        self.every_s = EVERY_S
        self._client = client
        self._urls = urls
        self._threads = threads
        self._detailed = detailed
        self._pages: dict[str, Exposition] = {}

    async def read(self) -> Round:
        urls = dict(self._urls())
        if not urls:
            raise SignalsUnavailable("there is no gateway yet")
        self._pages = {name: self._pages.get(name) or Exposition() for name in urls}
        began = time.monotonic()
        answers = await asyncio.gather(*(self._one(name, url) for name, url in urls.items()), return_exceptions=True)
        self._pace(time.monotonic() - began)
        found, failed = {}, {}
        for name, answer in zip(urls, answers, strict=True):
            if isinstance(answer, GatewayReadings):
                found[name] = answer
            elif isinstance(answer, SignalsUnavailable):
                failed[name] = answer
            else:
                raise answer
        if not found:
            raise SignalsUnavailable("; ".join(str(reason) for reason in failed.values()))
        return Round(found, tuple(failed))

    def _pace(self, took_s: float) -> None:
        self.every_s = min(MOST_EVERY_S, max(EVERY_S, took_s / MOST_SHARE))

    async def _one(self, name: str, url: str) -> GatewayReadings:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._client.get(f"{url}/metrics", timeout=TIMEOUT_S)
        except (httpx.HTTPError, TimeoutError) as exc:
            raise SignalsUnavailable(f"gateway {name}: {str(exc) or 'no answer in time'}") from exc
        at = time.time()
        if answer.status_code != httpx.codes.OK or len(answer.content) > MOST_BYTES:
            raise SignalsUnavailable(f"gateway {name}: its metrics page answers {answer.status_code}")
        work = partial(_read, self._pages[name], answer.text, at, self._detailed())
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ValueError as exc:
            raise SignalsUnavailable(f"gateway {name}: its metrics page cannot be read: {exc}") from exc


def _read(page: Exposition, text: str, at: float, detailed: Set[str]) -> GatewayReadings:
    found = readings(page.read(text, detailed), at)
    if found.nothing.began_at is None:
        # An empty page must not look like a gateway without requests.
        raise ValueError("it does not say when its gateway started, so it is none of ours")
    return found
