"""Keeps what people look at: each version's and model's rates now, and of the last quarter of an hour, in memory.

It takes the readings that the autoscaler's signals have read anyway and asks nobody itself; a new control plane begins
with nothing. Decides nothing, and nothing rests on it. `api/stream.py` shows it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Set

from orchestrator.adapters.signals import Round
from orchestrator.core.entities import VersionKey
from orchestrator.core.live import CURVES, UNKNOWN, Growth, Rates, Track, growth, rates, total
from orchestrator.core.plan import Verdict
from orchestrator.loops.journal import Signal

KEPT_S = 900
# Long enough for a percentile of a few requests per second, short enough to see what one just did.
WINDOW_S = 10.0
# Numbers older than this say nothing of now.
STALE_S = 15.0
# The gateways themselves are the freshest; another source counts when they were not read for so long.
PREFERRED = "direct"
SILENT_S = 10.0
_RATES = CURVES[: CURVES.index("ready")]

Verdicts = Mapping[VersionKey, Verdict]


class Recorder:
    """`verdicts` gives the versions that there are, with their counts. `watched` are models that somebody looks at:
    sources read more of them. `changed` is notified when there are newer numbers."""

    def __init__(self, verdicts: Callable[[], Verdicts]) -> None:
        self._verdicts = verdicts
        self._source = ""
        self._rounds: deque[Round] = deque()
        self._models: dict[str, Track] = {}
        self._versions: dict[VersionKey, Track] = {}
        self._of_versions: dict[VersionKey, Rates] = {}
        self._of_models: dict[str, Rates] = {}
        self._of_all = UNKNOWN
        self._seen: Set[VersionKey] = frozenset()
        self._at = 0.0
        self.watched: Set[str] = frozenset()
        self.changed = Signal()

    # -- now ------------------------------------------------------------------------------------------------

    def of_version(self, key: VersionKey, now: float) -> Rates:
        return self._of_versions.get(key, UNKNOWN) if self._is_fresh(now) else UNKNOWN

    def of_model(self, model: str, now: float) -> Rates:
        return self._of_models.get(model, UNKNOWN) if self._is_fresh(now) else UNKNOWN

    def of_all(self, now: float) -> Rates:
        return self._of_all if self._is_fresh(now) else UNKNOWN

    def _is_fresh(self, now: float) -> bool:
        return now - self._at <= STALE_S

    # -- the last minutes -----------------------------------------------------------------------------------

    @property
    def latest_slot(self) -> int | None:
        """The newest second that is known of; None: none is."""
        return int(self._at) if self._at else None

    def models(self) -> Mapping[str, Track]:
        return self._models

    def versions(self, model: str) -> dict[str, Track]:
        """The tracks of a model's versions. The only version of a model has the model's."""
        found = {key.version: track for key, track in self._versions.items() if key.model == model}
        if not found and model in self._models:
            found = {key.version: self._models[model] for key in self._of_versions if key.model == model}
        return found

    # -- hearing --------------------------------------------------------------------------------------------

    def hear(self, source: str, found: Round) -> None:
        """Takes in what a source of signals read. Of several sources one counts: they do not count alike."""
        if source != self._source:
            if source != PREFERRED and found.at - self._at < SILENT_S:
                return
            self._source = source
            self._rounds.clear()
        while len(self._rounds) > 1 and found.at - self._rounds[1].at >= WINDOW_S:
            self._rounds.popleft()
        if self._rounds:
            self._note(self._rounds[0], found)
            self.changed.notify()
        self._rounds.append(found)

    def _note(self, earlier: Round, later: Round) -> None:
        verdicts = self._verdicts()
        is_whole = not later.missing
        found = {key: growth(earlier.gateways, later.gateways, key) if is_whole else None for key in verdicts}
        by_model: dict[str, list[VersionKey]] = {}
        for key in verdicts:
            by_model.setdefault(key.model, []).append(key)
        sums = {model: _sum(found[key] for key in keys) for model, keys in by_model.items()}
        self._at = later.at
        self._of_versions = {key: rates(each) for key, each in found.items()}
        self._of_models = {
            model: self._of_versions[keys[0]] if len(keys) == 1 else rates(sums[model])
            for model, keys in by_model.items()
        }
        self._of_all = rates(_sum(sums.values()))
        self._keep(by_model, verdicts)

    def _keep(self, by_model: Mapping[str, list[VersionKey]], verdicts: Verdicts) -> None:
        slot = int(self._at)
        self._forget(by_model, verdicts)
        for model, keys in by_model.items():
            track = self._models.get(model)
            if track is None:
                track = self._models[model] = Track(KEPT_S)
            if len(keys) > 1 or keys[0] in self._versions:
                self._keep_versions(track, keys, verdicts, slot)
            track.put(slot, _values(self._of_models[model], (verdicts[key] for key in keys)))
        self._seen = frozenset(verdicts)

    def _keep_versions(self, of_model: Track, keys: Iterable[VersionKey], verdicts: Verdicts, slot: int) -> None:
        for key in keys:
            if key not in self._versions:
                # One that was alone until now was all of the model.
                self._versions[key] = of_model.copy() if key in self._seen else Track(KEPT_S)
            self._versions[key].put(slot, _values(self._of_versions[key], (verdicts[key],)))

    def _forget(self, by_model: Mapping[str, list[VersionKey]], verdicts: Verdicts) -> None:
        for model in self._models.keys() - by_model.keys():
            del self._models[model]
        for key in self._versions.keys() - verdicts.keys():
            del self._versions[key]


def _sum(parts: Iterable[Growth | None]) -> Growth | None:
    """Of a whole, nothing is known while something of a part is not."""
    known = []
    for part in parts:
        if part is None:
            return None
        known.append(part)
    return total(known) if known else None


def _values(found: Rates, verdicts: Iterable[Verdict]) -> list[float | None]:
    counts = [(verdict.ready, verdict.desired) for verdict in verdicts]
    values: list[float | None] = [getattr(found, name) for name in _RATES]
    return [*values, sum(ready for ready, _ in counts), sum(desired for _, desired in counts)]
