"""The routing table: the one thing that the control plane tells the gateway.

Owns the wire schema (JSON) of the table and of the gateway's report, with their validation. It is the
only module of `router` that `orchestrator` may import. A table is a whole snapshot: it replaces the one before, it
is never edited, and a request keeps the table it started with. Read `router/sync.py` for how it travels.
"""

from __future__ import annotations

from collections.abc import Generator

import msgspec

MAX_WEIGHT = 1_000_000


RETRY_CAUSES = frozenset(("connect", "reset", "503"))


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
    are no endpoints when there are none; requests wait for a replica when its first word is starting, waking, pending,
    loading or warming, and are refused otherwise.
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
    state: str = ""


class ModelRoute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model: its versions, which share of unpinned requests each gets, and its labels.

    `weights` are relative; a version without one is reached only by name or label. The empty mapping means that
    the model takes no unpinned request.
    """

    versions: dict[str, VersionRoute]
    weights: dict[str, int]
    labels: dict[str, str] = {}


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the gateway routes by.

    `epoch` names the state directory that made it and `revision` grows within one epoch: a table is news when
    either differs from what the gateway holds.
    """

    epoch: str
    revision: int
    cluster: str
    models: dict[str, ModelRoute]

    @property
    def tag(self) -> str:
        return f"{self.epoch}:{self.revision}"


class GatewayReport(msgspec.Struct, frozen=True):
    """What a gateway says of itself on its metrics port (`GET /report`): the control plane drains by it.

    `in_flight` counts the requests now inside each replica, replicas that left the table included until they reach
    zero; a replica that is not named has none. `tag` is the table applied now, "" before the first. `ejected` has the
    replicas that it leaves alone now because they failed, with the reason.
    """

    pid: int
    tag: str
    started_at: float
    in_flight: dict[str, int]
    queued: dict[str, int] = {}
    draining: bool = False
    ejected: dict[str, str] = {}


class _Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table whose models are still bytes."""

    epoch: str
    revision: int
    cluster: str
    models: dict[str, msgspec.Raw]


_envelope = msgspec.json.Decoder(_Envelope)
_model = msgspec.json.Decoder(ModelRoute)
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
    except msgspec.DecodeError as exc:
        raise TableError(f"routing table: {exc}; the table is refused whole") from exc
    models: dict[str, ModelRoute] = {}
    seen: set[str] = set()
    for name, model in envelope.models.items():
        try:
            models[name] = _model.decode(model)
        except msgspec.DecodeError as exc:
            raise TableError(f"routing table: model {name!r}: {exc}; the table is refused whole") from exc
        _check_model(name, models[name], seen)
        if len(models) % _MODELS_PER_STEP == 0:
            yield
    return Table(envelope.epoch, envelope.revision, envelope.cluster, models)


def encode(table: Table) -> bytes:
    return msgspec.json.encode(table)


def check(table: Table) -> None:
    """Raises `TableError` at the first field of `table` that contradicts another."""
    seen: set[str] = set()
    for name, model in table.models.items():
        _check_model(name, model, seen)


def _check_model(name: str, model: ModelRoute, seen: set[str]) -> None:
    """`seen` holds the ids of the replicas of all models before this one, and of this one afterwards."""
    for version, weight in model.weights.items():
        if version not in model.versions:
            raise TableError(f"routing table: model {name!r}: weight for unknown version {version!r}")
        if not 0 <= weight <= MAX_WEIGHT:
            raise TableError(f"routing table: model {name!r}: weight {weight} is not in 0..{MAX_WEIGHT}")
    for label, version in model.labels.items():
        if version not in model.versions:
            raise TableError(f"routing table: model {name!r}: label {label!r} names unknown version {version!r}")
    for version, route in model.versions.items():
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
