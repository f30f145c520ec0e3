"""What a manifest may say is what the gateway takes: its words and bounds are those of the wire and of config.json."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import msgspec
import pytest

from orchestrator.core.entities import DesiredVersion, RouteSettings
from orchestrator.manifest import LimitsConfig
from orchestrator.manifest.gateway import GatewayConfig, is_loopback
from orchestrator.manifest.groups import settings_of
from orchestrator.manifest.routing import BALANCES, RETRY_CAUSES, STICKY
from router import config as gateway_config
from router import contract
from router.config import Config, Limits

LIMITS = settings_of(LimitsConfig)


class TestLimits:
    def test_are_those_of_the_gateway_and_all_of_them(self) -> None:
        assert set(LIMITS) == set(Limits.__struct_fields__)

    @pytest.mark.parametrize("bound", ["least", "most"])
    @pytest.mark.parametrize("name", LIMITS)
    def test_stay_within_what_the_gateway_takes(self, name: str, bound: str) -> None:
        value = getattr(LIMITS[name].kind, bound)

        assert getattr(msgspec.convert({name: value}, Limits), name) == value

    def test_by_default_a_gateway_can_start_with(self) -> None:
        values = {name: each.default for name, each in LIMITS.items()}

        assert msgspec.to_builtins(msgspec.convert(values, Limits)) == values


class TestWords:
    def test_of_balancing_and_retries_are_those_of_the_routing_table(self) -> None:
        assert BALANCES == contract.BALANCES
        assert set(RETRY_CAUSES) == contract.RETRY_CAUSES

    def test_of_stickiness_are_those_of_the_routing_table(self) -> None:
        assert STICKY.pattern == contract.STICKY.pattern

    def test_of_authentication_are_those_of_the_gateway(self) -> None:
        known = get_args(next(f.type for f in msgspec.structs.fields(Config) if f.name == "auth"))

        assert {str(word) for word in settings_of(GatewayConfig)["auth"].kind.schema()["enum"]} == set(known)


class TestLoopback:
    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST", "0.0.0.0", "::", "10.1.2.3", "example.org"]
    )
    def test_is_for_the_manifest_what_it_is_for_the_gateway(self, host: str) -> None:
        assert is_loopback(host) == gateway_config.is_loopback(host)


class TestRouteSettings:
    def test_are_the_fields_of_a_version_in_the_routing_table_with_the_same_defaults(self) -> None:
        wire = {f.name: f.default for f in msgspec.structs.fields(contract.VersionRoute)}

        assert {f.name: f.default for f in fields(RouteSettings)} == {
            name: default for name, default in wire.items() if name not in ("endpoints", "state")
        }

    def test_a_desired_version_has_them_all(self) -> None:
        assert {f.name for f in fields(RouteSettings)} <= {f.name for f in fields(DesiredVersion)}
