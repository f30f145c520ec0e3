"""What each process of a gateway says of itself, so that any of them can answer for all.

Owns the `Account` and the memory that accounts are kept in: one for each row of the shared page, written a few times a
second and whenever another process asks. It outlives its writer: the next process at that row goes on from it, so that
no counter goes back when a process is killed or a new generation takes over. An account is written beside the one
before it and then pointed to, so that no reader sees half of one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec

from router.core import stats
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.shadow import Copies
from router.core.stats import Exemplar, Histogram, VersionStats
from router.page import Field, Page, Phase

K = TypeVar("K")

# The file is sparse: only what was written takes memory. 10,000 models with all counters in use take 12 MB.
_HALF_BYTES: Final = 1 << 28
_HEAD: Final = struct.Struct("<QQ")
# A stretch of idle versions: 256 of them take 0.1 ms.
LANES_PER_STEP: Final = 256


class LaneAccount(msgspec.Struct, array_like=True):
    """One version in one process. `counters` are those of `VersionStats` by name, `copies` of its shadow copies.

    `oldest_wait_s`: how long the one has waited that waits longest.
    """

    model: str
    version: str
    in_flight: int
    queued: int
    counters: dict[str, Any]
    copies: dict[str, Any] | None = None
    oldest_wait_s: float = 0.0
    exemplars: dict[int, Exemplar] = {}  # by bucket of `request_s`


class KeyAccount(msgspec.Struct, array_like=True):
    """One API key, by its public name, in one process: answers by the hundreds of their status."""

    answers: list[int]
    under_way: int = 0

    def add(self, other: KeyAccount, *, is_live: bool) -> None:
        self.answers = [a + b for a, b in zip(self.answers, other.answers, strict=True)]
        self.under_way += other.under_way if is_live else 0


class Account(msgspec.Struct):
    """One process. Counters are those of its row since the gateway started; the rest is of this moment."""

    tag: str = ""
    connections: int = 0
    queued: int = 0
    in_flight: dict[str, int] = {}
    ejected: dict[str, str] = {}
    unrouted: dict[int, int] = {}
    limited: dict[str, int] = {}
    keys: dict[str, KeyAccount] = {}
    spans: dict[str, int] = {}  # of traces, by what became of them
    lanes: list[msgspec.Raw] = []


class CopiesTotal:
    """The shadow copies that went to a version, over all processes."""

    def __init__(self) -> None:
        self.results: dict[str, int] = {}
        self.drops: dict[str, int] = {}
        self.failures: dict[str, int] = {}
        self.seconds = Histogram()
        self.alive = 0
        self.waiting = 0


class LaneTotal:
    """One version over all processes; to be shown like a `Lane`."""

    def __init__(self, model: str, version: str) -> None:
        self.model = model
        self.version = version
        self.in_flight = 0
        self.queued = 0
        self.oldest_wait_s = 0.0
        self.replicas: Sequence[Replica] = ()  # by the table of the process that adds up
        self.stats = VersionStats()
        self.copies: CopiesTotal | None = None
        self.exemplars: dict[int, Exemplar] | None = None

    def add(self, lane: LaneAccount, *, is_live: bool) -> None:
        stats.add(self.stats, lane.counters)
        if lane.copies is not None:
            self.copies = self.copies or CopiesTotal()
            stats.add(self.copies, lane.copies if is_live else {**lane.copies, "alive": 0, "waiting": 0})
        if is_live:
            self.in_flight += lane.in_flight
            self.queued += lane.queued
            self.oldest_wait_s = max(self.oldest_wait_s, lane.oldest_wait_s)
            if lane.exemplars:
                self.exemplars = newest(self.exemplars or {}, lane.exemplars)

    def account(self) -> LaneAccount:
        """Its counters, as one who goes on from them needs them."""
        return LaneAccount(self.model, self.version, 0, 0, _counters(self.stats), _copies(self.copies))


class KeyTotal:
    """One API key over all processes, as it is shown."""

    def __init__(self, id_: str, account: KeyAccount) -> None:
        self.id = id_
        self.answers = account.answers
        self.under_way = account.under_way


class Total:
    """The sum of accounts."""

    def __init__(self) -> None:
        self.lanes: dict[tuple[str, str], LaneTotal] = {}
        self.unrouted: dict[int, int] = {}
        self.limited: dict[str, int] = {}
        self.spans: dict[str, int] = {}
        self.keys: dict[str, KeyAccount] = {}
        self.in_flight: dict[str, int] = {}
        self.ejected: dict[str, str] = {}
        self.connections = 0
        self.tags: list[str] = []

    def add(self, account: Account, *, is_live: bool) -> Generator[None, None, None]:
        """Adds an account; of a process that ended only its counters. Run it to its end."""
        self.unrouted = plus(self.unrouted, account.unrouted)
        self.limited = plus(self.limited, account.limited)
        self.spans = plus(self.spans, account.spans)
        for id_, key in account.keys.items():
            self.keys.setdefault(id_, KeyAccount([0] * len(key.answers))).add(key, is_live=is_live)
        if is_live:
            self.in_flight = plus(self.in_flight, account.in_flight)
            self.ejected |= account.ejected
            self.connections += account.connections
            self.tags.append(account.tag)
        for raw in account.lanes:
            lane = _lanes.decode(raw)
            self.lane(lane.model, lane.version).add(lane, is_live=is_live)
            yield

    def lane(self, model: str, version: str) -> LaneTotal:
        key = model, version
        found = self.lanes.get(key)
        if found is None:
            found = self.lanes[key] = LaneTotal(model, version)
        return found

    @property
    def tag(self) -> str:
        """The newest table that all have applied; "" when there is none that one could name."""
        if not self.tags or "" in self.tags:
            return ""
        epochs = {tag.rpartition(":")[0] for tag in self.tags}
        return min(self.tags, key=_revision) if len(epochs) == 1 else ""


def lane_accounts(lanes: Iterable[Lane], now: float) -> Generator[None, None, list[msgspec.Raw]]:
    """The accounts of the lanes that have anything to say. Run it to its end."""
    written = []
    for done, lane in enumerate(lanes, 1):
        if done % LANES_PER_STEP == 0:
            yield
        if lane.stats.codes or lane.in_flight or lane.queued or lane.stats.shed or lane.copies is not None:
            counters, copies = _counters(lane.stats), _copies(lane.copies)
            account = LaneAccount(
                lane.model, lane.version, lane.in_flight, lane.queued, counters, copies, lane.oldest_wait_s(now),
                lane.exemplars or {},
            )  # fmt: skip
            written.append(msgspec.Raw(_encoder.encode(account)))
            yield
    return written


class Accounts:
    """The accounts of all rows, in the memory behind `fd`."""

    def __init__(self, fd: int, page: Page) -> None:
        self._fd = fd
        self._page = page

    def write(self, row: int, account: Account, answered: int) -> None:
        """Replaces the account of `row`. It answers questions up to `answered`."""
        number = self._page.get(row, Field.PUBLISHED) + 1
        raw = _encoder.encode(account)
        at = self._at(row, number)
        os.pwrite(self._fd, raw, at + _HEAD.size)
        os.pwrite(self._fd, _HEAD.pack(number, len(raw)), at)
        self._page.set(row, Field.PUBLISHED, number)
        self._page.set(row, Field.ANSWERED, answered)

    def read(self, row: int) -> Account | None:
        """The account of `row`; None when there never was one."""
        while number := self._page.get(row, Field.PUBLISHED):
            at = self._at(row, number)
            found, length = _HEAD.unpack(os.pread(self._fd, _HEAD.size, at))
            raw = os.pread(self._fd, length, at + _HEAD.size)
            # Two newer ones must be written before this place is written again.
            if found == number and self._page.get(row, Field.PUBLISHED) <= number + 1:
                return _accounts.decode(raw)
        return None

    def has_answered(self, row: int, question: int) -> bool:
        return self._page.get(row, Field.ANSWERED) >= question

    def rows(self) -> list[tuple[int, bool]]:
        """The rows with an account or a process: number, and whether the process there serves."""
        found = ((row, self._page.get(row, Field.PHASE)) for row in self._page.used_rows)
        return [(row, phase in (Phase.SERVING, Phase.RETIRING)) for row, phase in found]

    @staticmethod
    def _at(row: int, number: int) -> int:
        return (2 * row + number % 2) * _HALF_BYTES


def counters_only(account: Account) -> Generator[None, None, Account]:
    """What the next process at a row goes on from. Run it to its end."""
    total = Total()
    yield from total.add(account, is_live=False)
    raws = [msgspec.Raw(_encoder.encode(lane.account())) for lane in total.lanes.values()]
    return Account(unrouted=total.unrouted, limited=total.limited, keys=total.keys, spans=total.spans, lanes=raws)


def key_of(raw: msgspec.Raw) -> tuple[str, str]:
    """Model and version of a lane's account."""
    lane = _lanes.decode(raw)
    return lane.model, lane.version


_encoder: Final = msgspec.msgpack.Encoder()
_lanes: Final = msgspec.msgpack.Decoder(LaneAccount)
_accounts: Final = msgspec.msgpack.Decoder(Account)


def _counters(of: VersionStats) -> dict[str, Any]:
    return stats.dump(of, of.__slots__)


def _copies(of: Copies | CopiesTotal | None) -> dict[str, Any] | None:
    return None if of is None else stats.dump(of, ("results", "drops", "failures", "seconds", "alive", "waiting"))


def plus(one: Mapping[K, int], other: Mapping[K, int]) -> dict[K, int]:
    """The counts of both."""
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}


def newest(one: Mapping[int, Exemplar], other: Mapping[int, Exemplar]) -> dict[int, Exemplar]:
    """Of each bucket the younger one."""
    return {**one, **{at: each for at, each in other.items() if at not in one or each.at > one[at].at}}


def _revision(tag: str) -> int:
    revision = tag.rpartition(":")[2]
    return int(revision) if revision.isdecimal() else -1
