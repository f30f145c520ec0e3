"""What is kept for people to look at, of rounds of readings that a test makes up."""

from __future__ import annotations

import math

from orchestrator.adapters.signals import Round
from orchestrator.core.entities import VersionKey
from orchestrator.core.live import UNKNOWN
from orchestrator.core.plan import Verdict
from orchestrator.core.scaling.series import GatewayReadings
from orchestrator.core.scaling.signals import Buckets, Reading
from orchestrator.loops.recorder import STALE_S, Recorder

ONE, TWO = VersionKey("iris", "1"), VersionKey("iris", "2")
NOW = 10_000.0


def heard(at: float, missing: tuple[str, ...] = (), **answered: float) -> Round:
    versions = {
        VersionKey("iris", version.removeprefix("v")): Reading(
            at=at, answered=count, errors=0.0, queued=1.0, in_flight=2.0, began_at=1.0,
            request=Buckets((0.1, math.inf), (count, count), count / 20),
        )
        for version, count in answered.items()
    }  # fmt: skip
    nothing = Reading(at=at, answered=0.0, errors=0.0, queued=0.0, in_flight=0.0, began_at=1.0)
    return Round({"gateway": GatewayReadings(at, versions, nothing)}, missing)


def recorder(*keys: VersionKey) -> tuple[Recorder, dict[VersionKey, Verdict]]:
    verdicts = {key: Verdict(key, "ready", 1, 2) for key in keys}
    return Recorder(lambda: verdicts), verdicts


def rate(found: Recorder, version: str, slot: float) -> list[float | None]:
    return found.versions("iris")[version].read("rate_per_s", [int(slot)])


class TestNow:
    def test_rates_are_over_ten_seconds(self) -> None:
        found, _ = recorder(ONE)
        for second in range(21):
            found.hear("direct", heard(NOW + second, v1=5 * second if second < 15 else 5 * second + 100))

        now = found.of_version(ONE, NOW + 20)

        assert now.rate_per_s == 15.0
        assert now == found.of_model("iris", NOW + 20) == found.of_all(NOW + 20)

    def test_a_model_is_its_versions_together(self) -> None:
        found, _ = recorder(ONE, TWO)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, v1=10, v2=30))

        assert [found.of_version(key, NOW + 1).rate_per_s for key in (ONE, TWO)] == [10.0, 30.0]
        assert (found.of_model("iris", NOW + 1).rate_per_s, found.of_model("iris", NOW + 1).queued) == (40.0, 2)

    def test_old_numbers_say_nothing_of_now(self) -> None:
        found, _ = recorder(ONE)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, v1=10))

        assert found.of_version(ONE, NOW + 1 + STALE_S).rate_per_s == 10.0
        assert found.of_version(ONE, NOW + 1.1 + STALE_S) == UNKNOWN

    def test_while_a_gateway_is_missing_nothing_is_known(self) -> None:
        found, _ = recorder(ONE)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, ("other",), v1=10))

        assert found.of_version(ONE, NOW + 1) == found.of_all(NOW + 1) == UNKNOWN

    def test_another_source_counts_when_the_gateway_is_silent(self) -> None:
        found, _ = recorder(ONE)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, v1=10))
        found.hear("prometheus", heard(NOW + 1.5, v1=999))
        assert found.of_version(ONE, NOW + 2).rate_per_s == 10.0

        found.hear("prometheus", heard(NOW + 12, v1=100))
        found.hear("prometheus", heard(NOW + 14, v1=140))

        assert found.of_version(ONE, NOW + 14).rate_per_s == 20.0


class TestTheLastMinutes:
    def test_keeps_counts_beside_rates(self) -> None:
        found, _ = recorder(ONE)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, v1=10))

        track = found.models()["iris"]
        assert [track.read(curve, [int(NOW + 1)]) for curve in ("rate_per_s", "ready", "desired")] == [
            [10.0],
            [1.0],
            [2.0],
        ]

    def test_a_second_version_leaves_the_first_its_past(self) -> None:
        found, verdicts = recorder(TWO)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, v2=10))
        verdicts[ONE] = Verdict(ONE, "ready", 1, 1)
        found.hear("direct", heard(NOW + 2, v1=4, v2=20))

        assert rate(found, "2", NOW + 1) == [10.0]
        assert rate(found, "1", NOW + 1) == [None]
        assert rate(found, "1", NOW + 2) == [2.0]

    def test_a_version_that_is_alone_again_goes_on(self) -> None:
        found, verdicts = recorder(ONE, TWO)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, v1=10, v2=10))
        del verdicts[ONE]
        found.hear("direct", heard(NOW + 2, v2=30))

        assert set(found.versions("iris")) == {"2"}
        assert rate(found, "2", NOW + 2) == [15.0]

    def test_forgets_models_that_are_gone(self) -> None:
        found, verdicts = recorder(ONE)
        found.hear("direct", heard(NOW))
        found.hear("direct", heard(NOW + 1, v1=10))
        verdicts.clear()
        found.hear("direct", heard(NOW + 2, v1=10))

        assert not found.models()
        assert not found.versions("iris")
