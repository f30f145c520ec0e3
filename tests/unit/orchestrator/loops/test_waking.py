"""From the gateway's call to a count in force: once, at once, and only for what is asleep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.store import Store
from orchestrator.core.entities import Desired, DesiredVersion, Scaling, Target
from orchestrator.core.scaling.facts import Override
from orchestrator.loops.journal import Journal
from orchestrator.loops.targets import Targets
from orchestrator.loops.waking import Waking
from tests.unit.orchestrator.core.builders import desired, key, version

IRIS = key("iris@1")
SLEEPY = Scaling(minimum=0, maximum=4, standby=1)


class World:
    """The reconcile loop as far as it matters: what is desired follows the counts in force."""

    def __init__(self, store: Store, replicas: int) -> None:
        self.targets = Targets(store.scaling)
        self.asked = desired(version("iris@1", 1, standby=1, scaling=SLEEPY))
        self.targets.set({IRIS: Target(replicas)})
        self.desired = self.targets.applied(self.asked, Desired())
        self.turns = 0
        self.hurried = False

    def retarget(self) -> None:
        self.turns += 1
        self.desired = self.targets.applied(self.asked, self.desired)

    def hurry(self) -> None:
        self.hurried = True

    @property
    def iris(self) -> DesiredVersion:
        return self.desired.versions()[IRIS]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "state.sqlite")
    yield found
    found.close()


def waking(world: World, store: Store, needed: int = 1) -> Waking:
    return Waking(world, world.targets, Journal(store), choose=lambda _version, _queued: needed)


def told(store: Store) -> list[str]:
    return [event.message for event in store.events() if event.kind == "version_woken"]


def test_puts_the_chosen_count_in_force_at_once_and_asks_for_standby_again(store: Store) -> None:
    world = World(store, replicas=0)

    waking(world, store, needed=3).wake({IRIS: 500})

    assert (world.iris.replicas, world.iris.standby) == (3, 1)
    assert world.hurried
    assert store.scaling.targets() == {IRIS: Target(3, 1)}
    assert told(store) == ["0 -> 3: 500 requests wait"]


def test_wakes_one_at_least(store: Store) -> None:
    """The policy may hold at zero what it knows nothing of; a request waits all the same."""
    world = World(store, replicas=0)

    waking(world, store, needed=0).wake({IRIS: 1})

    assert world.iris.replicas == 1


def test_the_same_call_again_changes_nothing(store: Store) -> None:
    world = World(store, replicas=0)
    waker = waking(world, store)

    waker.wake({IRIS: 1})
    waker.wake({IRIS: 7})

    assert world.turns == 1
    assert told(store) == ["0 -> 1: 1 request waits"]


def test_leaves_alone_what_is_awake_or_unknown(store: Store) -> None:
    world = World(store, replicas=2)

    waking(world, store).wake({IRIS: 1, key("gone@1"): 1})

    assert world.turns == 0
    assert world.iris.replicas == 2


def test_leaves_alone_what_somebody_scaled_to_zero(store: Store) -> None:
    world = World(store, replicas=0)
    world.targets.override(IRIS, Override(0))
    world.retarget()

    waking(world, store).wake({IRIS: 1})

    assert world.iris.replicas == 0
    assert world.iris.held == "scaled to 0 by hand; `modelfleet scale` ends that"
