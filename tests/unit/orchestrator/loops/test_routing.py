"""The board: what a gateway is told that holds the newest table, one of the last, or one of long ago."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.store import Store
from orchestrator.core.entities import RouteSettings
from orchestrator.core.plan import RoutedModel, RoutedVersion
from orchestrator.loops.routing import News, TableBoard
from router.contract import Table, decode, decode_delta

ROUTED = {f"m{n}": RoutedModel({"1": RoutedVersion(RouteSettings())}, {"1": 100}, {}) for n in range(16)}


@pytest.fixture
def board(tmp_path: Path) -> Iterator[TableBoard]:
    store = Store(tmp_path / "state.sqlite")
    yield TableBoard(store, "demo")
    store.close()


def changed(name: str, concurrency: int) -> dict[str, RoutedModel]:
    versions = {"1": RoutedVersion(RouteSettings(concurrency=concurrency))}
    return {**ROUTED, name: replace(ROUTED[name], versions=versions)}


async def news(board: TableBoard, tag: str, *, takes_delta: bool = True) -> News:
    found = await board.after(tag, 0, takes_delta=takes_delta)
    assert found is not None
    return found


async def whole(board: TableBoard, tag: str = "") -> Table:
    found = await news(board, tag)
    assert not found.is_delta
    return decode(found.body)


async def test_a_gateway_with_the_table_before_is_told_what_changed(board: TableBoard) -> None:
    board.publish(ROUTED, {})
    before = board.tag
    board.publish(changed("m3", 5), {})

    found = await news(board, before)

    delta = decode_delta(found.body)
    assert found.is_delta
    assert (delta.base, delta.tag, set(delta.models)) == (before, board.tag, {"m3"})
    assert delta.models["m3"].versions["1"].concurrency == 5


async def test_a_gateway_that_knows_no_deltas_is_told_the_whole(board: TableBoard) -> None:
    board.publish(ROUTED, {})
    before = board.tag
    board.publish(changed("m3", 5), {})

    found = await news(board, before, takes_delta=False)

    assert not found.is_delta
    assert decode(found.body).tag == board.tag


@pytest.mark.parametrize("tag", ["", "another-epoch:7"])
async def test_a_gateway_with_no_table_of_ours_is_told_the_whole(board: TableBoard, tag: str) -> None:
    board.publish(ROUTED, {})
    board.publish(changed("m3", 5), {})

    assert len((await whole(board, tag)).models) == 16


async def test_a_gateway_is_told_the_whole_when_most_changed(board: TableBoard) -> None:
    board.publish(ROUTED, {})
    before = board.tag
    board.publish({"m0": ROUTED["m0"], "m1": ROUTED["m1"]}, {})

    assert set((await whole(board, before)).models) == {"m0", "m1"}


async def test_a_gateway_that_slept_through_tables_is_told_all_that_changed_since(board: TableBoard) -> None:
    board.publish(ROUTED, {})
    before = board.tag
    board.publish(changed("m3", 5), {})
    gone = {name: model for name, model in ROUTED.items() if name != "m7"}
    board.publish(gone, {})

    delta = decode_delta((await news(board, before)).body)

    assert (delta.removed, set(delta.models)) == (("m7",), {"m3"})
    assert delta.models["m3"].versions["1"].concurrency == 32


async def test_a_gateway_with_the_newest_table_is_told_nothing(board: TableBoard) -> None:
    board.publish(ROUTED, {})

    assert await board.after(board.tag, 0, takes_delta=True) is None


async def test_after_a_restart_every_gateway_is_told_the_whole(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.sqlite")
    first = TableBoard(store, "demo")
    first.publish(ROUTED, {})
    second = TableBoard(store, "demo")
    second.publish(changed("m3", 5), {})

    found = await whole(second, first.tag)

    assert found.revision == 2
    store.close()
