"""The routing table, prepared for look-ups, and the replicas that requests are in.

Owns `Fleet`: what is routed now. A contract `Table` is taken over model by model (`apply` is a generator, so that
10,000 models stall no request); a request resolves its version once and keeps that `Lane`. Lanes and replicas live from
table to table as long as something is inside them. Pure: `below` is the random source, and pools are made and closed by
the callbacks that `proto` passes in.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Final

from router import contract
from router.contract import ModelRoute, VersionRoute
from router.core import errors
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.errors import Refusal
from router.core.rate import Place, RateGate, gate_for, private_place
from router.core.rows import NO_SLOT, Rows, alone
from router.core.shadow import ShadowRule
from router.core.split import Split
from router.core.sticky import Asked, Shares, Sticky
from router.core.target import Target

_MODELS_PER_STEP: Final = 32
# How long the numbers of a version that left the table are shown: long enough for every scraper to have seen the last.
FORGOTTEN_AFTER_S: Final = 300.0

ReplicaKey = tuple[str, str, int]


class Model:
    """One model as routed: its lanes by version and by label, and who takes the next unpinned request."""

    __slots__ = ("gate", "labels", "lanes", "name", "route", "shadow", "shares", "split", "sticky")

    def __init__(self, name: str, route: ModelRoute, lanes: dict[str, Lane], gate: RateGate | None = None) -> None:
        self.name = name
        self.route = route
        self.gate = gate  # of its rate limit
        self.lanes = lanes
        self.labels = {label: lanes[version] for label, version in route.labels.items()}
        self.split = Split(route.weights)
        self.shadow: ShadowRule | None = None
        self.sticky = Sticky(route.sticky) if route.sticky else None
        self.shares = Shares(name, route.weights if route.sticky else {})

    def resolve(self, version: str, label: str, asked: Asked) -> Lane | Refusal:
        """The lane for a pinned version, a label, or, with neither, by weight."""
        if version or label:
            return self.named(version, label)
        chosen = self.split.only if self.split.only is not None else self._choose(asked)
        if not chosen:
            return errors.takes_no_traffic(self.name, self.lanes)
        return self.lanes[chosen]

    def named(self, version: str, label: str) -> Lane | Refusal:
        if version:
            # A pin may name a label too: clients that can say but one word use it for both.
            lane = self.lanes.get(version) or self.labels.get(version)
            return lane or errors.version_not_found(self.name, version, self.lanes)
        return self.labels.get(label) or errors.label_not_found(self.name, label, self.labels)

    def cast_shadow(self, before: ShadowRule | None) -> None:
        """Puts the route's shadow in force. Copies on their way to another version than it names are ended."""
        shadow = self.route.shadow
        lane = self.lanes[shadow.version] if shadow is not None else None
        if before is not None and before.lane is not lane:
            before.copies.end("removed")
        if shadow is not None and lane is not None:
            is_same = before is not None and before.lane is lane and before.shadow == shadow
            self.shadow = before if is_same else ShadowRule(shadow, lane)
        for each in self.lanes.values():
            each.shadow = self.shadow if each is not lane else None

    def _choose(self, asked: Asked) -> str:
        affinity = self.sticky.affinity(asked) if self.sticky is not None else None
        if affinity is None:
            return self.split.pick(self._may_take)
        return self.shares.pick(affinity, self._may_take)

    def _may_take(self, version: str) -> bool:
        """One that sleeps may: it is woken by its first request, and until it is there the others take its share."""
        lane = self.lanes[version]
        return bool(lane.replicas) or (lane.is_asleep and not lane.queued)


class Fleet:
    """Everything routed now. `tag` is that of the table in force, "" before the first."""

    def __init__(
        self,
        below: Callable[[int], int],
        opened: Callable[[Replica], None],
        closed: Callable[[Replica], None],
        place: Place = private_place,
        rows: Rows | None = None,
        wake: Callable[[Lane], object] = lambda _: None,
    ) -> None:
        """`wake` is told of a lane that is asleep and has somebody waiting."""
        self.tag = ""
        self.cluster = ""
        self.models: dict[str, Model] = {}
        self.replicas: dict[ReplicaKey, Replica] = {}
        self.lanes: dict[tuple[str, str], Lane] = {}
        self.removed: dict[tuple[str, str], float] = {}  # when versions left the table, while they are remembered
        self._below = below
        self._rows = rows or alone()
        self._opened = opened
        self._closed = closed
        self._place = place
        self._wake = wake
        self.limited: set[str] = set()  # the models with a rate limit

    def resolve(self, target: Target, pin: str, asked: Asked) -> Lane | Refusal:
        """The lane that a request takes. `pin` is the `x-model-version` field; the path goes before it."""
        model = self.models.get(target.model)
        if model is None:
            return errors.model_not_found(target.model, self.models) if self.tag else errors.no_table()
        return model.resolve(target.version or ("" if target.label else pin), target.label, asked)

    def apply(self, table: contract.Table, clock: Callable[[], float]) -> Generator[None, None, None]:
        """Puts a checked table in force, model by model; `tag` changes with the last step. Run it to its end."""
        yield from self._apply_models(table.models, clock)
        for name in [name for name in self.models if name not in table.models]:
            self._remove_model(name, clock())
        self.cluster = table.cluster
        self.tag = table.tag

    def amend(self, delta: contract.TableDelta, clock: Callable[[], float]) -> Generator[None, None, None]:
        """As `apply`, for a checked delta: it touches no model that it does not name."""
        yield from self._apply_models(delta.models, clock)
        for name in delta.removed:
            if name in self.models:
                self._remove_model(name, clock())
        self.tag = delta.tag

    def settle(self, replica: Replica) -> None:
        """Forgets a replica that left the table once nothing is in it. To be called when a request left it."""
        if replica.retired and not replica.in_flight:
            self.replicas.pop((replica.id, replica.host, replica.port), None)
            self._rows.free(replica.slot)
            self._closed(replica)

    def forget(self, now: float) -> set[tuple[str, str]]:
        """Forgets, with their counters, the versions that left the table long ago, and returns them.

        One that comes back begins at zero.
        """
        due = {key for key, at in self.removed.items() if now - at > FORGOTTEN_AFTER_S}
        gone = {key for key in due if key not in self.lanes or self.lanes[key].is_idle}
        for key in gone:
            del self.removed[key]
            lane = self.lanes.pop(key, None)
            if lane is not None:
                lane.give_up_place()
        return gone

    def meet(self, clock: Callable[[], float]) -> Generator[None, None, None]:
        """Other processes of the gateway are there, or gone. Run it to its end; what requests do meanwhile is right."""
        for replica in list(self.replicas.values()):
            if self._rows.others:
                self._share(replica)
                yield
        for lane in list(self.lanes.values()):
            lane.meet(clock())
            yield

    def in_flight(self) -> dict[str, int]:
        """The requests now inside each replica that has any."""
        counts: dict[str, int] = {}
        for replica in self.replicas.values():
            if replica.in_flight:
                counts[replica.id] = counts.get(replica.id, 0) + replica.in_flight
        return counts

    def ejected(self, now: float) -> dict[str, str]:
        """The replicas left alone now, with the reason."""
        return {r.id: r.health.reason for r in self.replicas.values() if r.health.ejected_until > now}

    def _apply_models(self, models: dict[str, ModelRoute], clock: Callable[[], float]) -> Generator[None, None, None]:
        for done, (name, route) in enumerate(models.items(), 1):
            current = self.models.get(name)
            if current is None or current.route != route:
                self._apply_model(name, route, clock())
            if done % _MODELS_PER_STEP == 0:
                yield

    def _apply_model(self, name: str, route: ModelRoute, now: float) -> None:
        before = self.models.get(name)
        old = dict(before.lanes) if before else {}
        lanes = {version: self._lane(name, version) for version in route.versions}
        gate = gate_for(before.gate if before else None, route.rate_limit, f"model {name}", self._place, now)
        (self.limited.discard if gate is None else self.limited.add)(name)
        model = self.models[name] = Model(name, route, lanes, gate)
        kept = {key for version in route.versions.values() for key in _keys(version)}
        for version, version_route in route.versions.items():
            lanes[version].sticky = model.sticky
            lanes[version].update(version_route, tuple(self._replica(key, name) for key in _keys(version_route)), now)
            old.pop(version, None)
        self._remove_lanes(old.values(), now)
        model.cast_shadow(before.shadow if before else None)
        if before is not None:
            self._retire(name, before.route, kept)

    def _remove_model(self, name: str, now: float) -> None:
        model = self.models.pop(name)
        self.limited.discard(name)
        self._remove_lanes(model.lanes.values(), now)
        if model.shadow is not None:
            model.shadow.copies.end("removed")
        self._retire(name, model.route, set())

    def _remove_lanes(self, lanes: Iterable[Lane], now: float) -> None:
        for lane in lanes:
            lane.update(_REMOVED, (), now)
            lane.shadow = None
            self.removed[lane.model, lane.version] = now

    def _retire(self, name: str, route: ModelRoute, kept: set[ReplicaKey]) -> None:
        """Retires the replicas of `route`, the former one of model `name`, that are not `kept`.

        A replica that is another model's now, by a step of the same table before this one, is left to it.
        """
        for version in route.versions.values():
            for key in _keys(version):
                replica = self.replicas.get(key)
                if replica is not None and replica.model == name and key not in kept:
                    replica.retired = True
                    self.settle(replica)

    def _share(self, replica: Replica) -> None:
        if replica.slot == NO_SLOT:
            replica.slot = self._rows.claim(f"replica\0{replica.id}\0{replica.host}\0{replica.port}")
        self._rows.publish(replica.slot, replica.in_flight)

    def _lane(self, model: str, version: str) -> Lane:
        key = (model, version)
        self.removed.pop(key, None)
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(model, version, self._below, self._rows, self._wake)
            if self._rows.others:
                lane.meet(0.0)
        return lane

    def _replica(self, key: ReplicaKey, model: str) -> Replica:
        replica = self.replicas.get(key)
        if replica is None:
            replica = self.replicas[key] = Replica(*key)
            if self._rows.others:
                self._share(replica)
            self._opened(replica)
        replica.model = model
        replica.retired = False
        return replica


_REMOVED: Final = VersionRoute(state="removed from the routing table")


def _keys(route: VersionRoute) -> list[ReplicaKey]:
    return [(endpoint.id, endpoint.host, endpoint.port) for endpoint in route.endpoints]
