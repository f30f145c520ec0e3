"""The exposition, read by the official parser."""

from __future__ import annotations

import random
from collections.abc import Generator
from typing import TypeVar

from prometheus_client.parser import text_string_to_metric_families

from router.accounts import Account, Total, lane_accounts
from router.contract import VersionRoute
from router.core.admission import Lane
from router.core.balance import Replica
from router.metrics import render
from tests.unit.router.core.test_admission import Waiting

T = TypeVar("T")


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def shown_of(*lanes: Lane, now: float = 0.0, gauges: dict[str, tuple[str, float]] | None = None) -> bytes:
    """What a gateway of one process with these lanes shows."""
    total = Total()
    account = Account(lanes=run(lane_accounts(lanes, now)))
    run(total.add(account, is_live=True))
    return render(total.lanes.values(), {404: 3}, gauges or {})


def run(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


def lane(version: str = "1") -> Lane:
    made = Lane('i"ris', version, random.Random(1).randrange)
    made.update(VersionRoute(), (Replica("a", "h", 1),), 0.0)
    return made


class TestRender:
    def test_shows_counters_by_model_version_and_code(self) -> None:
        busy = lane()
        busy.stats.answered(200, 0.012)
        busy.stats.answered(200, 0.02)
        busy.stats.shed_one("queue_full")
        busy.stats.retried("connect")
        labels = (("model", 'i"ris'), ("version", "1"))

        shown = samples(shown_of(busy))

        assert shown["modelfleet_requests_total", (("code", "200"), *labels)] == 2
        assert shown["modelfleet_requests_total", (("code", "404"), ("model", ""), ("version", ""))] == 3
        assert shown["modelfleet_shed_total", (labels[0], ("reason", "queue_full"), labels[1])] == 1
        assert shown["modelfleet_retries_total", (labels[0], ("reason", "connect"), labels[1])] == 1
        assert shown["modelfleet_request_seconds_count", labels] == 2
        assert shown["modelfleet_request_seconds_bucket", (("le", "0.015"), *labels)] == 1
        assert shown["modelfleet_request_seconds_bucket", (("le", "+Inf"), *labels)] == 2

    def test_counts_waits_in_fewer_buckets_and_loses_none(self) -> None:
        busy = lane()
        busy.stats.codes[200] = 5
        for wait_s in (0.0002, 0.0015, 0.0018, 0.09, 700.0):
            busy.stats.queue_s.add(wait_s)

        shown = samples(shown_of(busy))

        name = "modelfleet_queue_seconds"
        counts = {dict(labels)["le"]: n for (found, labels), n in shown.items() if found == f"{name}_bucket"}
        assert {le: counts[le] for le in ("0.0005", "0.001", "0.002", "0.05", "0.1", "120.0", "+Inf")} == {
            "0.0005": 1, "0.001": 1, "0.002": 3, "0.05": 3, "0.1": 4, "120.0": 4, "+Inf": 5,
        }  # fmt: skip
        assert len(counts) == 17
        assert shown[f"{name}_count", (("model", 'i"ris'), ("version", "1"))] == 5

    def test_shows_any_name_as_it_is(self) -> None:
        odd = Lane('100%d "a"', "%s", random.Random(1).randrange)
        odd.stats.answered(200, 0.012)

        shown = samples(shown_of(odd))

        assert shown["modelfleet_request_seconds_count", (("model", '100%d "a"'), ("version", "%s"))] == 1

    def test_shows_what_is_inside_now(self) -> None:
        busy = lane()
        busy.reserve(0.0)

        shown = samples(shown_of(busy, gauges={"modelfleet_gateway_connections": ("Open.", 7)}))

        assert shown["modelfleet_inflight", (("model", 'i"ris'), ("version", "1"))] == 1
        assert shown["modelfleet_gateway_connections", ()] == 7

    def test_leaves_out_versions_that_never_took_part(self) -> None:
        assert b'version="9"' not in shown_of(Lane("m", "9", random.Random(1).randrange))

    def test_shows_a_time_since_the_epoch_to_the_millisecond(self) -> None:
        gauges = {"modelfleet_gateway_started_at_seconds": ("Start.", 1_764_276_000.125)}

        assert samples(shown_of(gauges=gauges))["modelfleet_gateway_started_at_seconds", ()] == 1_764_276_000.125

    def test_shows_all_that_arrived_and_how_long_the_first_in_the_queue_waits(self) -> None:
        busy = lane()
        busy.update(VersionRoute(concurrency=1), busy.replicas, 0.0)
        for at in (1.0, 2.0, 3.0):
            busy.stats.arrived += 1
            if busy.reserve(at) is None:
                busy.enqueue(Waiting(), at)
        labels = (("model", 'i"ris'), ("version", "1"))

        shown = samples(shown_of(busy, now=5.5))

        assert shown["modelfleet_arrivals_total", labels] == 3
        assert shown["modelfleet_queued", labels] == 2
        assert shown["modelfleet_queue_oldest_seconds", labels] == 3.5
