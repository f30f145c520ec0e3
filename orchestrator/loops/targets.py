"""How many replicas of each version should run now: what the autoscaler or a person chose, over what was applied.

Owns the counts in force and keeps them in the store, so that a new control plane goes on with them. Decides nothing:
`core/scaling/` chooses, `loops/autoscale.py` sets. A count is no part of a replica's spec: setting one restarts none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.adapters.store_scaling import ScalingStore
from orchestrator.core.entities import Desired, DesiredModel, DesiredVersion, Target, VersionKey
from orchestrator.core.scaling.facts import Override


class Targets:
    """The counts in force, by version. A version that is not here runs as it was applied."""

    def __init__(self, store: ScalingStore) -> None:
        self._store = store
        self._targets = store.targets()
        self._overrides = store.overrides()

    @property
    def overrides(self) -> Mapping[VersionKey, Override]:
        """What people set by hand, whether its time is over or not."""
        return self._overrides

    def get(self, key: VersionKey) -> Target | None:
        return self._targets.get(key)

    def set(self, targets: Mapping[VersionKey, Target | None]) -> bool:
        """Puts counts in force, None the one that was applied. Returns whether any is another than before."""
        changed = {key: target for key, target in targets.items() if self._targets.get(key) != target}
        if not changed:
            return False
        self._store.put_targets(changed)
        self._targets = {k: t for k, t in {**self._targets, **changed}.items() if t is not None}
        return True

    def override(self, key: VersionKey, override: Override | None) -> None:
        """Notes a person's word, or that it is taken back."""
        self._store.put_override(key, override)
        self._overrides = {k: o for k, o in {**self._overrides, key: override}.items() if o is not None}

    def applied(self, desired: Desired, running: Desired) -> Desired:
        """`desired` with the counts in force. A version that is scaled from now on keeps what it has in `running`."""
        before = running.versions()
        models = {name: self._model(model, before) for name, model in desired.models.items()}
        return replace(desired, models=models)

    def adopt(self, desired: Desired) -> None:
        """Keeps the counts of exactly these versions: a fixed one that nobody overrides has none."""
        wanted = desired.versions()
        kept = {
            key: Target(version.replicas, version.standby)
            for key, version in wanted.items()
            if not version.scaling.is_fixed or key in self._overrides
        }
        for key in self._overrides.keys() - wanted.keys():
            self.override(key, None)
        self.set({**dict.fromkeys(self._targets.keys() - kept.keys()), **kept})

    def _model(self, model: DesiredModel, before: Mapping[VersionKey, DesiredVersion]) -> DesiredModel:
        versions = {name: self._version(version, before) for name, version in model.versions.items()}
        return replace(model, versions=versions)

    def _version(self, version: DesiredVersion, before: Mapping[VersionKey, DesiredVersion]) -> DesiredVersion:
        scaling, key = version.scaling, version.key
        target = self._targets.get(key)
        if key in self._overrides and target is not None:
            held = "scaled to 0 by hand; `modelfleet scale` ends that" if not self._overrides[key].replicas else ""
            return replace(version, replicas=target.replicas, standby=target.standby, held=held)
        if scaling.is_fixed:
            return version
        standby = scaling.standby
        if target is not None:
            count, standby = target.replicas, min(target.standby, standby)
        else:
            count = before[key].replicas if key in before else version.replicas
        least = scaling.minimum if not scaling.schedule else 0
        return replace(version, replicas=min(scaling.maximum, max(least, count)), standby=standby)
