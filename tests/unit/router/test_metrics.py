"""The exposition, read by the official parser."""

from __future__ import annotations

import random

from prometheus_client.parser import text_string_to_metric_families

from router.contract import VersionRoute
from router.core.admission import Lane
from router.core.balance import Replica
from router.metrics import render


def samples(text: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


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

        shown = samples(render([busy], {404: 3}, {}))

        assert shown["modelfleet_requests_total", (("code", "200"), *labels)] == 2
        assert shown["modelfleet_requests_total", (("code", "404"), ("model", ""), ("version", ""))] == 3
        assert shown["modelfleet_shed_total", (labels[0], ("reason", "queue_full"), labels[1])] == 1
        assert shown["modelfleet_retries_total", (labels[0], ("reason", "connect"), labels[1])] == 1
        assert shown["modelfleet_request_seconds_count", labels] == 2
        assert shown["modelfleet_request_seconds_bucket", (("le", "0.015"), *labels)] == 1
        assert shown["modelfleet_request_seconds_bucket", (("le", "+Inf"), *labels)] == 2

    def test_shows_what_is_inside_now(self) -> None:
        busy = lane()
        busy.reserve(0.0)

        shown = samples(render([busy], {}, {"modelfleet_gateway_connections": ("Open.", 7)}))

        assert shown["modelfleet_inflight", (("model", 'i"ris'), ("version", "1"))] == 1
        assert shown["modelfleet_gateway_connections", ()] == 7

    def test_leaves_out_versions_that_never_took_part(self) -> None:
        assert b'version="9"' not in render([Lane("m", "9", random.Random(1).randrange)], {}, {})
