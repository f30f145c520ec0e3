"""The routing table: the one thing that the control plane tells the gateway.

Owns the wire schema (JSON) of the table, of what changed since an earlier one, and of the gateway's report, with their
validation. It is the only module of `router` that `orchestrator` may import. A table is a whole snapshot: it replaces
the one before, it is never edited, and a request keeps the table it started with. Read `router/sync.py` for how it
travels, `router/core/held.py` for how a delta is taken in.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Final

import msgspec

MAX_WEIGHT = 1_000_000

RETRY_CAUSES = frozenset(("connect", "reset", "503"))
BALANCES = ("two_choices", "least", "round_robin", "peak_ewma")
STICKY = re.compile(r"key|(?:header|cookie):[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,64}")
# SHA-256 of a key in lower-case hexadecimal.
KEY_DIGEST = re.compile(r"[0-9a-f]{64}")

# The bounds of the gateway's histograms, on which rules and objectives rest.
# Dense from 1 ms to 1 s, where latency objectives lie: neighbours are at most 1.5 apart there, so that a quantile read
# from the buckets is off by a fifth at most. How many were later than an objective that is a bound itself (10, 20, 25,
# 50, 100, 200, 250, 500 ms, …) is exact; between two bounds it is read as if they lay evenly.
BUCKETS_S: Final = (
    0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.06, 0.075,
    0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip


class TableError(ValueError):
    """A table that the gateway must refuse whole; the sentence names the model and the field."""


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ready replica, where the gateway reaches it."""

    id: str
    host: str
    port: int


class VersionRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How requests for one version are carried.

    `concurrency` is the most requests in flight in one replica; those above it wait in the version's queue, at
    most `queue_max` of them and each at most `queue_timeout_ms`. `request_timeout_ms` bounds a request from
    arrival to last byte when the client names no time of its own. `idempotent` allows a retry of what a
    replica may already have executed. A failed request is sent to another replica at most `retry_max` times, for the
    causes in `retry_on` (connect, reset, 503), within `retry_budget` retries for each request of the version (a
    share; 0: never). `eject`: a replica that fails again and again is left alone for a while. `state` says why there
    are no endpoints when there are none; requests wait for a replica when its first word is asleep, starting, waking,
    pending, loading or warming, and are refused otherwise. Of one that is asleep the gateway tells the control plane as
    soon as a request waits for it. `balance` (one of `BALANCES`) chooses between free replicas; `websocket` passes
    upgrades to WebSocket on `/models/{model}/…` through to a replica.
    """

    endpoints: tuple[Endpoint, ...] = ()
    concurrency: int = 32
    queue_max: int = 1000
    queue_timeout_ms: int = 5000
    request_timeout_ms: int = 60_000
    idempotent: bool = True
    retry_max: int = 2
    retry_budget: float = 0.2
    retry_on: tuple[str, ...] = ("connect", "reset")
    eject: bool = True
    balance: str = "two_choices"
    websocket: bool = False
    state: str = ""


class RateLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`requests_per_s` on average, and `burst` at once after a pause."""

    requests_per_s: float
    burst: int = 1


class Shadow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Copies of `percent` of a model's requests go to `version` as well; its answers reach no client.

    At most `queue_max` copies exist at a time: others are dropped. The answers are compared with the live ones: numbers
    are equal within `tolerance` (relative). Up to `samples_per_minute` differing pairs are kept in a file.
    """

    version: str
    percent: float = 100.0
    queue_max: int = 100
    tolerance: float = 0.0
    samples_per_minute: int = 10


class ModelRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model: its versions, which share of unpinned requests each gets, and its labels.

    `weights` are relative; a version without one is reached only by name or label. The empty mapping means that
    the model takes no unpinned request. `sticky` keeps the unpinned requests of one caller at one version and, while
    it is there, one replica: `header:NAME`, `cookie:NAME` or `key` (the API key); "" does not.
    """

    versions: dict[str, VersionRoute]
    weights: dict[str, int]
    labels: dict[str, str] = {}
    sticky: str = ""
    shadow: Shadow | None = None
    rate_limit: RateLimit | None = None


class ApiKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may ask. The gateway knows a key by its digest alone (SHA-256, hexadecimal: keys are random, so that a slow
    hash would add nothing). `models` are the names that it may ask; None: all. `concurrency` is the most requests of
    the key in flight or queued, 0: no bound. `expires_at` is Unix time in seconds, 0: never.
    """

    digest: str
    models: tuple[str, ...] | None = None
    rate_limit: RateLimit | None = None
    concurrency: int = 0
    expires_at: float = 0.0


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the gateway routes by.

    `epoch` names the state directory that made it and `revision` grows within one epoch: a table is news when
    either differs from what the gateway holds. `keys` are the API keys by their public name (`key_id`).
    """

    epoch: str
    revision: int
    cluster: str
    models: dict[str, ModelRoute]
    keys: dict[str, ApiKey] = {}

    @property
    def tag(self) -> str:
        return f"{self.epoch}:{self.revision}"


class TableDelta(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What makes the table with the tag `base` into another: `models` and `keys` that are new or changed, each whole,
    and the names that the other has no longer. It means nothing to a gateway that holds another table.
    """

    base: str
    epoch: str
    revision: int
    models: dict[str, ModelRoute] = {}
    removed: tuple[str, ...] = ()
    keys: dict[str, ApiKey] = {}
    removed_keys: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        return f"{self.epoch}:{self.revision}"


class GatewayReport(msgspec.Struct, frozen=True):
    """What a gateway says of itself on its metrics port (`GET /report`): the control plane drains by it.

    `in_flight` counts the requests now inside each replica, replicas that left the table included until they reach
    zero; a replica that is not named has none. `tag` is the table applied now, "" before the first. `ejected` has the
    replicas that it leaves alone now because they failed, with the reason. It speaks for all processes of the gateway:
    counts are sums, `tag` is the newest table that every one has applied, `pid` is their supervisor's, and `generation`
    grows with each hot restart once the processes it started serve.
    """

    pid: int
    tag: str
    started_at: float
    in_flight: dict[str, int]
    queued: dict[str, int] = {}
    draining: bool = False
    ejected: dict[str, str] = {}
    generation: int = 1


class Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A version that is asleep, and how many requests wait for it."""

    model: str
    version: str
    queued: int


class WakeCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gateway tells the control plane when requests wait for versions that are asleep. It says so again while it
    is still true, so that one that is lost, or told twice, does no harm."""

    asked: tuple[Asked, ...]


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table whose models are still bytes."""

    epoch: str
    revision: int
    cluster: str
    models: dict[str, msgspec.Raw]
    keys: dict[str, ApiKey] = {}


# All that msgspec raises of a text: bytes that are no UTF-8 and brackets without end are not among its DecodeErrors.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_envelope = msgspec.json.Decoder(_Envelope)
_delta = msgspec.json.Decoder(TableDelta)
_model = msgspec.json.Decoder(ModelRoute)
_wake_call = msgspec.json.Decoder(WakeCall)
_MODELS_PER_STEP = 32


def decode(raw: bytes) -> Table:
    """Reads and checks a table. Raises `TableError`; never returns one that is inconsistent in itself."""
    steps = decode_in_steps(raw)
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            table: Table = stop.value
            return table


def decode_in_steps(raw: bytes) -> Generator[None, None, Table]:
    """`decode` for a process that has requests to carry meanwhile: it yields often, and returns the table.

    Decoding 10,000 models at once takes 25 ms; here the longest stretch is the envelope's, 3 ms.
    """
    try:
        envelope = _envelope.decode(raw)
    except UNREADABLE as exc:
        raise TableError(f"routing table: {exc}; the table is refused whole") from exc
    models: dict[str, ModelRoute] = {}
    seen: set[str] = set()
    for name, model in envelope.models.items():
        try:
            models[name] = _model.decode(model)
        except UNREADABLE as exc:
            raise TableError(f"routing table: model {name!r}: {exc}; the table is refused whole") from exc
        check_model(name, models[name], seen)
        if len(models) % _MODELS_PER_STEP == 0:
            yield
    check_keys(envelope.keys)
    return Table(envelope.epoch, envelope.revision, envelope.cluster, models, envelope.keys)


def decode_delta(raw: bytes) -> TableDelta:
    """Reads a delta; whether it fits is for whoever holds its base to say. Raises `TableError`."""
    try:
        return _delta.decode(raw)
    except UNREADABLE as exc:
        raise TableError(f"routing table delta: {exc}; it is refused whole") from exc


def decode_wake_call(raw: bytes) -> WakeCall:
    """Raises `TableError`."""
    try:
        return _wake_call.decode(raw)
    except UNREADABLE as exc:
        raise TableError(f"wake call: {exc}; nothing is woken by it") from exc


def encode(table: Table | TableDelta) -> bytes:
    return msgspec.json.encode(table)


def encode_in_steps(table: Table) -> Generator[None, None, list[bytes]]:
    """`encode` for a process that has requests to carry meanwhile: it yields often, and returns the text in pieces."""
    head = msgspec.json.encode({"epoch": table.epoch, "revision": table.revision, "cluster": table.cluster})
    pieces = [head[:-1] + b',"models":{']
    step: list[bytes] = []
    for done, (name, model) in enumerate(table.models.items(), 1):
        step.append(b"%b%b:%b" % (b"," if done > 1 else b"", msgspec.json.encode(name), msgspec.json.encode(model)))
        if len(step) == _MODELS_PER_STEP:
            pieces.append(b"".join(step))
            step.clear()
            yield
    pieces += [*step, b'},"keys":', msgspec.json.encode(table.keys), b"}"]
    return pieces


def check(table: Table) -> None:
    """Raises `TableError` at the first field of `table` that contradicts another."""
    seen: set[str] = set()
    for name, model in table.models.items():
        check_model(name, model, seen)
    check_keys(table.keys)


def check_keys(keys: dict[str, ApiKey]) -> None:
    for name, key in keys.items():
        if not KEY_DIGEST.fullmatch(key.digest):
            raise TableError(f"routing table: key {name!r}: digest is not 64 lower-case hexadecimal digits")
        if key.concurrency < 0:
            raise TableError(f"routing table: key {name!r}: concurrency {key.concurrency} is below 0")
        if key.rate_limit is not None:
            _check_rate(key.rate_limit, f"key {name!r}")


def _check_rate(limit: RateLimit, where: str) -> None:
    if not (0 < limit.requests_per_s <= 1e9 and 1 <= limit.burst <= 1_000_000_000):
        raise TableError(f"routing table: {where}: rate_limit is not above 0 and up to 1e9, or its burst is below 1")


def check_model(name: str, model: ModelRoute, seen: set[str]) -> None:
    """`seen` holds the ids of the replicas of all models before this one, and of this one afterwards."""
    for version, weight in model.weights.items():
        if version not in model.versions:
            raise TableError(f"routing table: model {name!r}: weight for unknown version {version!r}")
        if not 0 <= weight <= MAX_WEIGHT:
            raise TableError(f"routing table: model {name!r}: weight {weight} is not in 0..{MAX_WEIGHT}")
    for label, version in model.labels.items():
        if version not in model.versions:
            raise TableError(f"routing table: model {name!r}: label {label!r} names unknown version {version!r}")
    _check_traffic(name, model)
    for version, route in model.versions.items():
        if route.balance not in BALANCES:
            raise TableError(
                f"routing table: model {name!r} version {version!r}: balance {route.balance!r} is none of "
                f"{', '.join(BALANCES)}"
            )
        if route.concurrency < 1 or route.queue_max < 0 or route.queue_timeout_ms < 0 or route.request_timeout_ms < 1:
            raise TableError(f"routing table: model {name!r} version {version!r}: a limit is below its least value")
        if not (0 <= route.retry_max <= 10 and 0.0 <= route.retry_budget <= 1.0 and {*route.retry_on} <= RETRY_CAUSES):
            raise TableError(
                f"routing table: model {name!r} version {version!r}: retry_max is not in 0..10, retry_budget not in "
                f"0..1, or retry_on names another cause than {', '.join(sorted(RETRY_CAUSES))}"
            )
        for endpoint in route.endpoints:
            if not 0 < endpoint.port < 65536:
                raise TableError(f"routing table: replica {endpoint.id!r}: port {endpoint.port} is not in 1..65535")
            if endpoint.id in seen:
                raise TableError(f"routing table: replica {endpoint.id!r} is named twice; it serves one version")
            seen.add(endpoint.id)


def _check_traffic(name: str, model: ModelRoute) -> None:
    if model.sticky and not STICKY.fullmatch(model.sticky):
        raise TableError(
            f"routing table: model {name!r}: sticky {model.sticky!r} is not header:NAME, cookie:NAME or key"
        )
    if model.rate_limit is not None:
        _check_rate(model.rate_limit, f"model {name!r}")
    shadow = model.shadow
    if shadow is None:
        return
    if shadow.version not in model.versions:
        raise TableError(f"routing table: model {name!r}: shadow names unknown version {shadow.version!r}")
    if not (0.0 <= shadow.percent <= 100.0 and 0.0 <= shadow.tolerance <= 1.0):
        raise TableError(f"routing table: model {name!r}: shadow percent is not in 0..100, or tolerance not in 0..1")
    if shadow.queue_max < 1 or shadow.samples_per_minute < 0:
        raise TableError(f"routing table: model {name!r}: shadow queue_max is below 1, or samples_per_minute below 0")
