"""Weights made exact: which version takes the next unpinned request.

Smooth weighted round-robin: every pick adds each weight to its version's credit, takes the highest and charges it the
sum. Within any run of sum(weights)/gcd picks each version gets exactly its share, evenly spread; random choice would
be off by the square root of the count. Deterministic: ties go to the version named first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping


class Split:
    """The credits of one model's versions. One object a table: a new table starts evenly again."""

    __slots__ = ("_credit", "_weights", "only")

    def __init__(self, weights: Mapping[str, int]) -> None:
        self._weights = {version: weight for version, weight in weights.items() if weight > 0}
        self._credit = dict.fromkeys(self._weights, 0)
        self.only = next(iter(self._weights), "") if len(self._weights) < 2 else None  # there is nothing to choose

    def pick(self, may_take: Callable[[str], bool]) -> str:
        """The next version among those that `may_take` traffic; among all when none may. "" without any weight."""
        if self.only is not None:
            return self.only
        weights = self._weights
        able = [version for version in weights if may_take(version)] or list(weights)
        credit = self._credit
        total = 0
        best = able[0]
        for version in able:
            weight = weights[version]
            total += weight
            credit[version] += weight
            if credit[version] > credit[best]:
                best = version
        credit[best] -= total
        return best
