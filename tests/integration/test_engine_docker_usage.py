"""What containers use, from the kernel's files and from the engine's API: both say the same of a real container."""

from __future__ import annotations

import pytest

from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters._docker_usage import ContainerUsage
from orchestrator.core.entities import Resources
from tests.fakes.engine_lab import DockerLab, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

MI = 1024**2


def test_files_and_api_say_the_same(docker_lab: DockerLab) -> None:
    replica_id = docker_lab.start(resources=Resources(cpus=0.5, memory_bytes=200 * MI))
    docker_lab.ready(replica_id)
    running = {replica_id: str(docker_lab.container(replica_id).id)}
    calls = DockerCalls()
    try:
        (counted,) = ContainerUsage(calls).read(running)
        (asked,) = ContainerUsage(calls, files=False).read(running)
    finally:
        calls.close()

    assert (counted.cpu_limit_cores, counted.memory_limit_bytes) == (0.5, 200 * MI)
    assert (asked.cpu_limit_cores, asked.memory_limit_bytes) == (0.5, 200 * MI)
    assert counted.cpu_s
    assert asked.cpu_s == pytest.approx(counted.cpu_s, rel=0.5)
    assert counted.memory_bytes
    assert asked.memory_bytes == pytest.approx(counted.memory_bytes, rel=0.3)


def test_at_its_limit_a_replica_is_throttled(docker_lab: DockerLab) -> None:
    replica_id = docker_lab.start("busy_child", resources=Resources(cpus=0.2, memory_bytes=200 * MI))
    docker_lab.engine.replicas()

    def throttled() -> bool:
        found = docker_lab.engine.usage()
        return bool(found and (found[0].throttled_s or 0.0) > 0.2)

    assert until(f"{replica_id} had to wait", throttled, 60)


@pytest.mark.parametrize("files", [True, False])
def test_one_that_is_gone_is_left_out(docker_lab: DockerLab, files: bool) -> None:
    ids = [docker_lab.start(), docker_lab.start()]
    for replica_id in ids:
        docker_lab.ready(replica_id)
    running = {replica_id: str(docker_lab.container(replica_id).id) for replica_id in ids}
    calls = DockerCalls()
    try:
        usage = ContainerUsage(calls, files=files)
        assert {each.id for each in usage.read(running)} == set(ids)
        docker_lab.engine.stop(ids[0], grace_s=0)

        assert [each.id for each in usage.read(running)] == [ids[1]]
        assert [each.id for each in usage.read(running)] == [ids[1]]
    finally:
        calls.close()
