"""API keys on their way to the gateway: kept, published, and said to be in force when they are."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest

from orchestrator.adapters.store import Store
from orchestrator.core.errors import ConflictError, NotFoundError, UserError
from orchestrator.core.keys import digest
from orchestrator.loops.journal import Journal
from orchestrator.loops.keeper import GatewayKeeper
from orchestrator.loops.keys import Keys, Made, unknown_models
from orchestrator.loops.routing import TableBoard
from router.contract import GatewayReport, RateLimit, Table


class Gateway:
    """Says that it applied the board's newest table, if it is there and follows."""

    def __init__(self, board: TableBoard) -> None:
        self.board = board
        self.is_there = True

    async def report(self) -> GatewayReport | None:
        return GatewayReport(1, self.board.tag, 0.0, {}) if self.is_there else None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path / "state.sqlite")
    yield found
    found.close()


@pytest.fixture
def board(store: Store) -> TableBoard:
    return TableBoard(store, "c")


@pytest.fixture
def gateway(board: TableBoard) -> Gateway:
    return Gateway(board)


@pytest.fixture
def keys(store: Store, board: TableBoard, gateway: Gateway) -> Keys:
    return Keys(store, board, cast(GatewayKeeper, gateway), Journal(store))


async def create(keys: Keys, name: str = "ci", expires_in_s: float | None = None, **settings: object) -> Made:
    given = {"models": None, "requests_per_s": 0.0, "burst": 1, "concurrency": 0, **settings}
    return await keys.create(name, expires_in_s=expires_in_s, **given)  # type: ignore[arg-type]


async def published(board: TableBoard) -> Table:
    news = await board.after("", 0)
    assert news is not None
    return msgspec.json.decode(news.body, type=Table)


def files_with(text: str, directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if text.encode() in path.read_bytes()]


class TestCreate:
    async def test_tells_the_gateway_the_digest_and_the_limits(self, keys: Keys, board: TableBoard) -> None:
        board.publish({}, {})

        made = await create(keys, models=("iris",), requests_per_s=2.5, burst=5, concurrency=3, expires_in_s=60.0)

        told = (await published(board)).keys[made.key.id]
        assert (told.digest, told.models, told.rate_limit) == (digest(made.text), ("iris",), RateLimit(2.5, 5))
        assert (told.concurrency, told.expires_at) == (3, made.key.created_at + 60)
        assert made.is_in_force

    async def test_is_a_newer_table_with_the_same_models(self, keys: Keys, board: TableBoard) -> None:
        board.publish({}, {})
        before = await published(board)

        await create(keys)

        after = await published(board)
        assert (after.revision, after.models) == (before.revision + 1, before.models)

    async def test_waits_for_the_first_routing(self, keys: Keys, board: TableBoard) -> None:
        made = await create(keys)
        assert not made.is_in_force

        board.publish({}, {})

        assert made.key.id in (await published(board)).keys

    async def test_is_not_in_force_while_no_gateway_says_so(
        self, keys: Keys, board: TableBoard, gateway: Gateway
    ) -> None:
        board.publish({}, {})
        gateway.is_there = False

        assert not (await asyncio.wait_for(create(keys), 2)).is_in_force

    async def test_keeps_the_text_nowhere(self, keys: Keys, store: Store, board: TableBoard, tmp_path: Path) -> None:
        board.publish({}, {})

        made = await create(keys)

        assert files_with(made.text, tmp_path) == []
        assert made.text not in str(store.events()) + str(await board.after("", 0))

    @pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "x" * 64, "ü"])
    async def test_refuses_a_name_that_is_none(self, keys: Keys, name: str) -> None:
        with pytest.raises(UserError, match="not a name"):
            await create(keys, name)

    async def test_refuses_a_name_that_is_taken(self, keys: Keys) -> None:
        await create(keys)

        with pytest.raises(ConflictError):
            await create(keys)


class TestRevoke:
    async def test_takes_it_out_of_the_table_and_leaves_an_event(
        self, keys: Keys, board: TableBoard, store: Store
    ) -> None:
        board.publish({}, {})
        made = await create(keys)

        revoked, is_in_force = await keys.revoke("ci")

        assert (revoked, is_in_force) == (made.key, True)
        assert (await published(board)).keys == {}
        assert [event.kind for event in store.events()] == ["key_created", "key_revoked"]

    async def test_of_what_is_not_there_says_so(self, keys: Keys) -> None:
        with pytest.raises(NotFoundError, match="keys list"):
            await keys.revoke("nope")


class TestRestart:
    async def test_a_new_control_plane_publishes_the_keys_with_its_first_routing(
        self, keys: Keys, board: TableBoard, store: Store
    ) -> None:
        board.publish({}, {})
        made = await create(keys)

        after = TableBoard(store, "c")
        after.publish({}, {})

        assert list((await published(after)).keys) == [made.key.id]


class TestUnknownModels:
    def test_are_those_that_are_not_there(self) -> None:
        assert unknown_models(("a", "b"), {"a": 1}) == ["b"]
        assert unknown_models(None, {}) == []
