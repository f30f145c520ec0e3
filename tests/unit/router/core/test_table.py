"""Tables become look-ups; replicas and lanes outlive them as long as something is inside."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from router.contract import Endpoint, ModelRoute, Table, VersionRoute
from router.core.admission import Lane
from router.core.balance import Replica
from router.core.errors import Refusal
from router.core.keys import Caller
from router.core.table import FORGOTTEN_AFTER_S, Fleet
from router.core.target import Target


def version(*ids: str, **settings: object) -> VersionRoute:
    return VersionRoute(endpoints=tuple(Endpoint(id_, "127.0.0.1", 9000) for id_ in ids), **settings)  # type: ignore[arg-type]


def table(revision: int = 1, **models: ModelRoute) -> Table:
    return Table("e", revision, "c", models)


IRIS = ModelRoute({"1": version("a"), "2": version("b")}, {"1": 1}, {"stable": "1", "new": "2"})


@dataclass(frozen=True)
class Request:
    """As much of a request as says who asks."""

    raw: bytes = b""
    caller: Caller | None = None


ASKED = Request()


class Pools:
    """Remembers which replicas were opened and closed."""

    def __init__(self) -> None:
        self.open: set[str] = set()

    def opened(self, replica: Replica) -> None:
        assert replica.id not in self.open
        self.open.add(replica.id)

    def closed(self, replica: Replica) -> None:
        self.open.remove(replica.id)


@pytest.fixture
def pools() -> Pools:
    return Pools()


@pytest.fixture
def fleet(pools: Pools) -> Fleet:
    return Fleet(random.Random(1).randrange, pools.opened, pools.closed)


def apply(fleet: Fleet, new: Table) -> None:
    for _ in fleet.apply(new, lambda: 0.0):
        pass


def resolved(fleet: Fleet, version: str = "", label: str = "", pin: str = "", model: str = "iris") -> Lane:
    found = fleet.resolve(Target(model, version, label, b""), pin, ASKED)
    assert isinstance(found, Lane)
    return found


def refused(fleet: Fleet, version: str = "", label: str = "", pin: str = "", model: str = "iris") -> Refusal:
    found = fleet.resolve(Target(model, version, label, b""), pin, ASKED)
    assert isinstance(found, Refusal)
    return found


class TestResolve:
    def test_finds_a_version_by_path_label_pin_and_weight(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS))

        assert resolved(fleet, version="2").version == "2"
        assert resolved(fleet, label="new").version == "2"
        assert resolved(fleet, pin="2").version == "2"
        assert resolved(fleet, pin="new").version == "2"
        assert resolved(fleet).version == "1"

    def test_lets_the_path_go_before_the_pin(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS))

        assert resolved(fleet, version="1", pin="2").version == "1"
        assert resolved(fleet, label="stable", pin="2").version == "1"

    def test_names_what_does_exist(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS))

        assert refused(fleet, model="rose").text == "model 'rose' is not served here; models: iris"
        assert refused(fleet, version="9").text == "model 'iris' has no version '9'; versions: 1, 2"
        assert refused(fleet, label="x").text == "model 'iris' has no label 'x'; labels: new, stable"

    def test_does_not_list_hundreds_of_names(self, fleet: Fleet) -> None:
        apply(fleet, table(**{f"m{i}": ModelRoute({}, {}) for i in range(300)}))

        assert refused(fleet).text == "model 'iris' is not served here; it is not among the 300 models"

    def test_says_that_there_is_no_table_yet(self, fleet: Fleet) -> None:
        assert (refused(fleet).status, refused(fleet).code) == (503, "NOT_READY")

    def test_skips_a_weighted_version_without_replicas_while_another_has_some(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=ModelRoute({"1": version(), "2": version("b")}, {"1": 90, "2": 10})))

        assert {resolved(fleet).version for _ in range(20)} == {"2"}

    def test_refuses_unpinned_requests_of_a_model_without_weights(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=ModelRoute({"1": version("a")}, {})))

        assert refused(fleet).code == "VERSION_NOT_FOUND"
        assert resolved(fleet, version="1")


class TestApply:
    def test_closes_an_idle_replica_that_left(self, fleet: Fleet, pools: Pools) -> None:
        apply(fleet, table(iris=IRIS))
        apply(fleet, table(2, iris=ModelRoute({"1": version("a", "c")}, {"1": 1})))

        assert pools.open == {"a", "c"}
        assert fleet.tag == "e:2"

    def test_keeps_a_busy_replica_that_left_until_its_last_request_ends(self, fleet: Fleet, pools: Pools) -> None:
        """The control plane drains by the report: a replica must be named in it until it is empty."""
        apply(fleet, table(iris=IRIS))
        lane = resolved(fleet, version="1")
        busy = lane.reserve(0.0)
        assert busy is not None

        apply(fleet, table(2))
        assert (fleet.in_flight(), pools.open, lane.reserve(0.0)) == ({"a": 1}, {"a"}, None)

        lane.release(busy, 0.0)
        fleet.settle(busy)
        assert (fleet.in_flight(), pools.open) == ({}, set())

    def test_takes_a_replica_back_that_returns_before_it_was_empty(self, fleet: Fleet, pools: Pools) -> None:
        apply(fleet, table(iris=IRIS))
        busy = resolved(fleet, version="1").reserve(0.0)
        assert busy is not None
        apply(fleet, table(2))
        apply(fleet, table(3, iris=IRIS))

        assert resolved(fleet, version="1").replicas == (busy,)
        assert pools.open == {"a", "b"}

    @pytest.mark.parametrize("models", [("first", "second"), ("second", "first")])
    def test_leaves_a_replica_to_the_model_that_it_moved_to(
        self, fleet: Fleet, pools: Pools, models: tuple[str, str]
    ) -> None:
        before, after = models
        has, empty = ModelRoute({"1": version("a")}, {"1": 1}), ModelRoute({"1": version()}, {"1": 1})
        sides = {before: has, after: empty}
        apply(fleet, table(1, first=sides["first"], second=sides["second"]))

        sides = {before: empty, after: has}
        apply(fleet, table(2, first=sides["first"], second=sides["second"]))

        assert pools.open == {"a"}
        assert [replica.id for replica in fleet.replicas.values()] == ["a"]
        assert [replica.id for replica in fleet.models[after].lanes["1"].replicas] == ["a"]

    def test_keeps_counters_of_a_version_that_left_and_came_back(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS))
        resolved(fleet).stats.answered(200, 0.1)
        apply(fleet, table(2))
        apply(fleet, table(3, iris=IRIS))

        assert resolved(fleet).stats.codes == {200: 1}

    def test_forgets_counters_of_a_version_that_left_long_ago(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS))
        resolved(fleet, "2").stats.answered(200, 0.1)
        apply(fleet, table(2, iris=ModelRoute({"1": version("a")}, {"1": 1})))

        assert fleet.forget(FORGOTTEN_AFTER_S) == set()
        assert fleet.forget(FORGOTTEN_AFTER_S + 1) == {("iris", "2")}
        assert fleet.lanes.keys() == {("iris", "1")}
        apply(fleet, table(3, iris=IRIS))
        assert resolved(fleet, "2").stats.codes == {}

    def test_forgets_no_version_that_came_back(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS))
        apply(fleet, table(2))
        apply(fleet, table(3, iris=IRIS))

        assert fleet.forget(10 * FORGOTTEN_AFTER_S) == set()

    def test_remembers_a_version_that_left_as_long_as_a_request_is_inside(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS))
        lane = resolved(fleet)
        lane.in_flight += 1
        apply(fleet, table(2))

        assert fleet.forget(10 * FORGOTTEN_AFTER_S) == {("iris", "2")}
        lane.in_flight -= 1
        assert fleet.forget(10 * FORGOTTEN_AFTER_S) == {("iris", "1")}

    def test_leaves_models_alone_that_did_not_change(self, fleet: Fleet) -> None:
        apply(fleet, table(iris=IRIS, rose=ModelRoute({}, {})))
        before = fleet.models["iris"]
        apply(fleet, table(2, iris=IRIS))

        assert fleet.models["iris"] is before
        assert "rose" not in fleet.models

    def test_moves_on_in_short_steps(self, fleet: Fleet) -> None:
        models = {f"m{i}": ModelRoute({"1": version(f"r{i}")}, {"1": 1}) for i in range(1000)}

        assert len(list(fleet.apply(table(**models), lambda: 0.0))) >= 30
