"""How long one decision takes: 1,000 models, 5,000 replicas, in five worlds. Pure CPU, nothing is started.

Run `python -m benchmarks.reconcile`. Prints CPU time, which other work on the machine
disturbs less than wall time: the median and the slowest decision of each world.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace

from orchestrator.core.entities import Desired, DesiredModel, DesiredVersion, Observed, Replica, ReplicaSpec, VersionKey
from orchestrator.core.plan import Memory
from orchestrator.core.reconcile import reconcile
from orchestrator.core.states import ReplicaState

MODELS = 1_000
REPLICAS_PER_MODEL = 5
DECISIONS = 30


def desired(artifact: str) -> Desired:
    """Every model has two versions, with 3 and 2 replicas."""
    models = {}
    for number in range(MODELS):
        name = f"model-{number:04}"
        versions = {"1": _version(name, "1", artifact, 3), "2": _version(name, "2", artifact, 2)}
        models[name] = DesiredModel(name, versions, {"1": 90, "2": 10}, {"stable": "1"})
    return Desired(1, models)


def _version(model: str, version: str, artifact: str, replicas: int) -> DesiredVersion:
    spec = ReplicaSpec(model, version, "sklearn", artifact, "sha256:" + "0" * 64, settings='{"batching":null}')
    return DesiredVersion(spec=spec, digest=spec.digest(), replicas=replicas)


def running(asked: Desired) -> Observed:
    return Observed(
        tuple(
            Replica(
                id=f"{version.key}-{number}",
                key=VersionKey(version.key.model, version.key.version),
                digest=version.digest,
                state=ReplicaState.READY,
                created_at=float(number),
                host="127.0.0.1",
                port=8000,
                in_flight=0,
                routed=True,
            )
            for version in asked.versions().values()
            for number in range(version.replicas)
        )
    )


def failed(observed: Observed) -> Observed:
    """Every third replica has ended."""
    return Observed(
        tuple(
            replace(r, state=ReplicaState.FAILED) if number % 3 == 0 else r
            for number, r in enumerate(observed.replicas)
        )
    )


def measure(name: str, asked: Desired, observed: Observed, memory: Memory) -> None:
    took_ms = []
    for _ in range(DECISIONS):
        began = time.process_time()
        plan = reconcile(asked, observed, memory, 1000.0)
        took_ms.append((time.process_time() - began) * 1000)
    print(
        f"{name:<44} {len(observed.replicas):>5} replicas {len(plan.actions):>5} actions   "
        f"median {statistics.median(took_ms):5.1f} ms   slowest {max(took_ms):5.1f} ms"
    )


def main() -> None:
    asked = desired("a" * 64)
    observed = running(asked)
    settled = reconcile(asked, observed, Memory(), 0.0).memory
    measure("converged: nothing to do", asked, observed, settled)
    measure("every third replica has crashed", asked, failed(observed), settled)
    measure("every model's source has changed", desired("b" * 64), observed, settled)
    measure("from nothing", asked, Observed(), Memory())
    measure("every model is removed", Desired(2), observed, settled)


if __name__ == "__main__":
    main()
