"""What a model in a container must not be able to do: each thing is tried from inside, with the container's own rights.

The confinement is set in orchestrator/adapters/_docker_create.py and promised in SECURITY.md.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from textwrap import dedent

import docker
import pytest

from orchestrator.core.entities import Resources
from tests.fakes.engine_lab import DockerLab, until

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]

SECRET = "hunter2-hunter2"


@pytest.fixture(scope="module")
def inside(
    tmp_path_factory: pytest.TempPathFactory, python_image: str, docker_client: docker.DockerClient
) -> Iterator[Inside]:
    """One replica for all that only tries things, because none of them may succeed."""
    lab = DockerLab(tmp_path_factory.mktemp("hardening"), python_image, docker_client)
    yield Inside(lab, lab.start(secrets={"API_KEY": SECRET}))
    lab.engine.teardown()
    lab.engine.close()


class Inside:
    """Runs Python in a ready replica's container, as its user and below its limits."""

    def __init__(self, lab: DockerLab, replica_id: str) -> None:
        self.lab = lab
        self.replica = lab.ready(replica_id)
        self.container = lab.container(replica_id)

    def run(self, code: str) -> str:
        answer = self.container.exec_run(["/opt/venv/bin/python", "-c", dedent(code)])
        return str(answer.output.decode(errors="replace")).strip()

    def attempt(self, statement: str, imports: str = "os, socket, ctypes, subprocess") -> str:
        """ "allowed", or the name of the error that it raised."""
        return self.run(f"""
            import {imports}
            try:
                {statement}
            except Exception as exc:
                print(type(exc).__name__, getattr(exc, "strerror", None) or exc)
            else:
                print("allowed")
            """)


class TestFileSystem:
    @pytest.mark.parametrize("path", ["/x", "/opt/venv/x", "/etc/x", "/usr/local/x", "/var/tmp/x"])
    def test_the_root_cannot_be_written(self, inside: Inside, path: str) -> None:
        assert "Read-only file system" in inside.attempt(f"open({path!r}, 'w')")

    def test_the_model_cannot_be_written(self, inside: Inside) -> None:
        """Not even where the file's own mode would let it: the mount is read-only."""
        (inside.lab.directory / "model" / "model.py").chmod(0o666)

        assert "Read-only file system" in inside.attempt("open('/model/model.py', 'a')")

    def test_secrets_cannot_be_written(self, inside: Inside) -> None:
        for file in inside.lab.state.rglob("API_KEY"):
            file.chmod(0o666)

        assert "Read-only file system" in inside.attempt("open('/run/secrets/API_KEY', 'a')")

    def test_tmp_is_writable_and_bounded_and_executes_nothing(self, inside: Inside) -> None:
        inside.run("open('/tmp/tool', 'w').write('#!/bin/sh\\necho hi\\n'); import os; os.chmod('/tmp/tool', 0o755)")

        assert inside.attempt("open('/tmp/note', 'w').write('x')") == "allowed"
        assert "Permission denied" in inside.attempt("subprocess.run(['/tmp/tool'], check=True)")
        assert "No space left" in inside.attempt("open('/tmp/big', 'wb').write(bytes(80 * 1024 ** 2))")

    def test_nothing_can_be_mounted(self, inside: Inside) -> None:
        statement = "assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0, 'refused'"

        assert inside.attempt(statement) == "AssertionError refused"


class TestRights:
    def test_runs_as_nobody_without_capabilities(self, inside: Inside) -> None:
        status = inside.run("import os; print(os.getuid(), os.getgid(), open('/proc/self/status').read())")

        facts = dict(line.split(":\t", 1) for line in status.splitlines()[1:] if ":\t" in line)
        assert status.startswith("65534 65534")
        assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"

    def test_cannot_become_root(self, inside: Inside) -> None:
        assert "Operation not permitted" in inside.attempt("os.setuid(0)")

    def test_a_setuid_program_gives_no_rights(self, inside: Inside) -> None:
        """`su` and the like lie in any Debian base; with no-new-privileges they stay who called them."""
        found = inside.run("""
            import glob, os, stat
            print([p for p in glob.glob('/usr/bin/*') if os.stat(p).st_mode & stat.S_ISUID])
            """)
        if found == "[]":
            pytest.skip("the base image has no setuid program")

        assert "allowed" not in inside.attempt("subprocess.run(['su', '-c', 'id'], check=True, input=b'')")

    @pytest.mark.parametrize(
        "opened",
        [
            "socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
            "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)",
        ],
    )
    def test_has_no_raw_sockets(self, inside: Inside, opened: str) -> None:
        assert "Operation not permitted" in inside.attempt(opened)

    def test_cannot_trace_or_signal_what_is_not_its_own(self, inside: Inside) -> None:
        """The process that the engine started runs as the same user, so it is the model's own; nothing else is seen."""
        seen = inside.run("import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[-1])")

        assert int(seen) < 5000, "a process number namespace of its own"


class TestLimits:
    def test_a_fork_bomb_ends_at_the_limit(self, docker_lab: DockerLab) -> None:
        resources = Resources(memory_bytes=256 * 1024**2, pids=40)
        inside = Inside(docker_lab, docker_lab.start(resources=resources))

        outcome = inside.run("""
            import os, signal
            children = []
            try:
                for _ in range(500):
                    pid = os.fork()
                    if pid == 0:
                        signal.pause()
                    children.append(pid)
            except OSError as exc:
                print(type(exc).__name__, len(children) < 40)
            for pid in children:
                os.kill(pid, signal.SIGKILL)
            """)

        assert outcome == "BlockingIOError True"

    def test_memory_beyond_the_limit_ends_the_model_and_nothing_else(self, docker_lab: DockerLab) -> None:
        bystander = docker_lab.start()
        docker_lab.ready(bystander)

        end = docker_lab.ended(docker_lab.start("hog")).exit

        assert end is not None
        assert end.oom_killed
        assert docker_lab.answers(docker_lab.ready(bystander))

    def test_the_engine_was_told_every_limit(self, inside: Inside) -> None:
        config = inside.container.attrs["HostConfig"]

        assert config["Memory"] == config["MemorySwap"] == 256 * 1024**2
        assert config["NanoCpus"] == 1_000_000_000
        assert config["PidsLimit"] == 256
        assert config["RestartPolicy"]["Name"] in ("", "no")
        assert config["LogConfig"] == {"Type": "json-file", "Config": {"max-file": "3", "max-size": "10m"}}
        assert config["CapDrop"] == ["ALL"]
        assert config["Privileged"] is False
        assert config["ReadonlyRootfs"] is True


class TestNetwork:
    def test_cannot_call_out(self, inside: Inside) -> None:
        assert "allowed" not in inside.attempt("socket.create_connection(('1.1.1.1', 53), timeout=3)")

    def test_cannot_reach_other_networks_of_the_engine(self, inside: Inside) -> None:
        elsewhere = inside.lab.ready(inside.lab.start(egress=True))

        outcome = inside.attempt(f"socket.create_connection(({elsewhere.host!r}, {elsewhere.port}), timeout=3)")

        assert "allowed" not in outcome

    def test_cannot_resolve_names_of_the_world(self, inside: Inside) -> None:
        """Else a model could carry its data out in the names that it asks for (CVE-2024-29018)."""
        began = time.monotonic()

        assert "gaierror" in inside.attempt("socket.getaddrinfo('example.com', 443)")

        assert time.monotonic() - began < 3, "a library that tries must fail soon, not after the resolver's usual 10 s"

    def test_cannot_reach_another_replica(self, inside: Inside) -> None:
        other = inside.lab.ready(inside.lab.start())

        outcome = inside.attempt(f"socket.create_connection(({other.host!r}, {other.port}), timeout=3)")

        assert "allowed" not in outcome
        assert inside.lab.answers(other), "the host still reaches it"

    def test_cannot_reach_a_port_that_the_host_opened_on_loopback(self, inside: Inside) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            networks = inside.container.attrs["NetworkSettings"]["Networks"]
            gateways = [network["Gateway"] for network in networks.values() if network["Gateway"]] or ["127.0.0.1"]

            outcome = inside.attempt(f"socket.create_connection(({gateways[0]!r}, {port}), timeout=3)")

        assert "allowed" not in outcome

    def test_with_egress_reaches_the_world_but_no_other_replica(self, docker_lab: DockerLab) -> None:
        inside = Inside(docker_lab, docker_lab.start(egress=True))
        other = docker_lab.ready(docker_lab.start(egress=True))
        address = docker_lab.docker.networks.list(names=[f"modelfleet-{docker_lab.cluster}-egress"])[0]
        gateway = address.attrs["IPAM"]["Config"][0].get("Gateway") or other.host.rpartition(".")[0] + ".1"
        with Listener(gateway) as port:
            reached = inside.attempt(f"socket.create_connection(({gateway!r}, {port}), timeout=5)")

        refused = inside.attempt(f"socket.create_connection(({other.host!r}, {other.port}), timeout=3)")

        assert reached == "allowed"
        assert "allowed" not in refused


class TestSecrets:
    def test_are_files_that_the_model_can_read(self, inside: Inside) -> None:
        assert inside.run("print(open('/run/secrets/API_KEY').read())") == SECRET

    def test_are_in_nothing_that_the_engine_tells(self, inside: Inside) -> None:
        inside.container.reload()

        assert SECRET not in json.dumps(inside.container.attrs)

    def test_are_private_on_the_host_and_gone_with_the_replica(self, docker_lab: DockerLab) -> None:
        inside = Inside(docker_lab, docker_lab.start(secrets={"API_KEY": SECRET}))
        root = inside.lab.state / "containers" / inside.lab.cluster
        assert root.stat().st_mode & 0o777 == 0o700
        assert [path.read_text() for path in root.rglob("API_KEY")] == [SECRET]

        inside.lab.engine.stop(inside.replica.id, grace_s=5)

        assert list(root.iterdir()) == []

    def test_of_replicas_that_vanished_are_removed_at_the_next_start(self, docker_lab: DockerLab) -> None:
        inside = Inside(docker_lab, docker_lab.start(secrets={"API_KEY": SECRET}))
        root = inside.lab.state / "containers" / inside.lab.cluster
        inside.container.remove(force=True)

        inside.lab.another_control_plane().prepare()

        until("no secrets are left", lambda: not list(root.iterdir()), 5)


class Listener:
    """Accepts on an address of the host while the block runs."""

    def __init__(self, host: str) -> None:
        self._server = socket.create_server((host, 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._server.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    def _accept(self) -> None:
        try:
            while True:
                self._server.accept()[0].close()
        except OSError:
            return
