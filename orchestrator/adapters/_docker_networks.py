"""The two networks of a cluster: an internal one for its replicas, and one with a way out for those that ask for it.

On neither may containers talk to each other: models of one cluster have no business together. A network of our name
without our label is somebody else's and stays as it is.
"""

from __future__ import annotations

import contextlib
from typing import Any

from docker.errors import APIError, NotFound

from orchestrator.adapters._docker_calls import DockerCalls
from orchestrator.adapters._docker_create import LABEL, Placement
from orchestrator.adapters.engine import EngineUnavailable, Launch


class ClusterNetworks:
    def __init__(self, cluster: str, calls: DockerCalls) -> None:
        self._cluster = cluster
        self._calls = calls

    def ensure_default(self, place: Placement) -> None:
        self._ensure(place.network, internal=not place.published)

    def ensure_for(self, launch: Launch, place: Placement) -> None:
        """Asked at each start: `docker network prune` removes ours while every model sleeps."""
        if launch.spec.egress:
            self._ensure(place.egress_network, internal=False)
        else:
            self.ensure_default(place)

    def remove_all(self) -> None:
        with self._calls.during("remove the cluster's networks"):
            for network in self._calls.slow.networks(filters={"label": [f"{LABEL}.cluster={self._cluster}"]}):
                with contextlib.suppress(NotFound):
                    self._calls.slow.remove_network(network["Id"])

    def _ensure(self, name: str, *, internal: bool) -> None:
        with self._calls.during(f"make the network {name}"):
            found = self._calls.quick.networks(names=[f"^{name}$"])
            if found:
                self._check(name, found[0])
                return
            try:
                self._calls.slow.create_network(
                    name,
                    driver="bridge",
                    internal=internal,
                    check_duplicate=True,
                    labels={f"{LABEL}.cluster": self._cluster, f"{LABEL}.role": "network"},
                    options={"com.docker.network.bridge.enable_icc": "false"},
                )
            except APIError as exc:
                if exc.status_code != 409:  # another thread made it between the two calls
                    raise

    def _check(self, name: str, found: dict[str, Any]) -> None:
        if (found.get("Labels") or {}).get(f"{LABEL}.cluster") != self._cluster:
            raise EngineUnavailable(
                f"network {name}: exists and is not ours (label {LABEL}.cluster={self._cluster} is missing); it is "
                f"left alone; remove it with `docker network rm {name}` or choose another `cluster:` name"
            )
