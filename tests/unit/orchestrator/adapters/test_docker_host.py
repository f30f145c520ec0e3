"""How an engine's containers are reached, and which problems `doctor` tells, from the engine's own facts."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from orchestrator.adapters._docker_host import facts_of, is_local, is_published

SOCKET = "unix:///var/run/docker.sock"
GOOD: dict[str, Any] = {
    "ServerVersion": "27.0",
    "NCPU": 4,
    "MemTotal": 8 * 1024**3,
    "OSType": "linux",
    "MemoryLimit": True,
    "SwapLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "BridgeNfIptables": True,
    "InitCommit": {"ID": "de40ad0"},
    "SecurityOptions": ["name=seccomp,profile=builtin"],
    "OperatingSystem": "Debian GNU/Linux 12",
}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every engine is in a virtual machine")
class TestReach:
    def test_by_address_on_a_linux_host(self) -> None:
        assert not is_published(GOOD, SOCKET)

    @pytest.mark.parametrize(
        ("host", "fact"),
        [
            (SOCKET, {"OperatingSystem": "Docker Desktop"}),
            (SOCKET, {"SecurityOptions": ["name=rootless"]}),
            ("tcp://10.0.0.7:2375", {}),
            ("ssh://me@elsewhere", {}),
        ],
    )
    def test_by_published_port_where_its_bridge_is_not_ours(self, host: str, fact: dict[str, Any]) -> None:
        assert is_published({**GOOD, **fact}, host)

    @pytest.mark.parametrize("host", [SOCKET, "tcp://127.0.0.1:2375", "tcp://localhost:2375", "npipe:////./pipe/x"])
    def test_local_addresses(self, host: str) -> None:
        assert is_local(host)


class TestProblems:
    def test_none_of_a_good_engine(self) -> None:
        assert facts_of(GOOD, SOCKET).problems == ()

    @pytest.mark.parametrize(
        ("fact", "sentence"),
        [
            ({"MemoryLimit": False}, "the kernel cannot limit memory"),
            ({"SwapLimit": False}, "the kernel cannot limit swap"),
            ({"PidsLimit": False}, "the kernel cannot limit processes"),
            ({"BridgeNfIptables": False}, "models can reach each other"),
            ({"OSType": "windows"}, "models need Linux containers"),
            ({"SecurityOptions": ["name=rootless"]}, "models are not kept from calling out"),
        ],
    )
    def test_each_is_a_sentence(self, fact: dict[str, Any], sentence: str) -> None:
        (problem,) = facts_of({**GOOD, **fact}, SOCKET).problems

        assert sentence in problem

    def test_an_engine_on_another_machine(self) -> None:
        problems = facts_of(GOOD, "tcp://10.0.0.7:2375").problems

        assert any("is on another machine" in problem for problem in problems)


class TestInit:
    @pytest.mark.parametrize(
        ("commit", "there"), [({"ID": "de40ad0"}, True), ({"ID": ""}, True), ({"ID": "N/A"}, False), (None, False)]
    )
    def test_is_used_where_the_engine_has_it(self, commit: dict[str, str] | None, there: bool) -> None:
        assert facts_of({**GOOD, "InitCommit": commit}, SOCKET).init is there
