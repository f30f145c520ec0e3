"""Latencies in constant memory, with percentiles whose error is known: at most 0.1 % of the value, and 0 below 2 µs.

A log-linear histogram as HDR's: a nanosecond count keeps its first 11 binary digits, the rest is cut off. A percentile
is the top of its bucket, so that it is never said to be better than it was. Pure. Why not the hdrhistogram package: it
is one C extension more in the base install, and these few lines are all that is needed of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

_DIGITS = 11
_HALF = 1 << (_DIGITS - 1)
# 2^44 ns are almost five hours: longer than any request may take. What is above counts there.
_MOST_BITS = 44
_SIZE = (_MOST_BITS - _DIGITS + 2) * _HALF


class Histogram:
    """Counts lengths in nanoseconds. Mean, least and most are exact."""

    def __init__(self) -> None:
        self._counts = [0] * _SIZE
        self._sum_ns = 0
        self._least_ns = 0
        self._most_ns = 0
        self.count = 0

    def add(self, length_ns: int) -> None:
        length_ns = max(0, length_ns)
        shift = max(0, length_ns.bit_length() - _DIGITS)
        index = shift * _HALF + (length_ns >> shift)
        self._counts[index if index < _SIZE else _SIZE - 1] += 1
        self._sum_ns += length_ns
        self._most_ns = max(self._most_ns, length_ns)
        if self.count == 0 or length_ns < self._least_ns:
            self._least_ns = length_ns
        self.count += 1

    @property
    def mean_s(self) -> float | None:
        return self._sum_ns / self.count / 1e9 if self.count else None

    @property
    def least_s(self) -> float | None:
        return self._least_ns / 1e9 if self.count else None

    @property
    def most_s(self) -> float | None:
        return self._most_ns / 1e9 if self.count else None

    def percentile_s(self, percent: float) -> float | None:
        """The length that `percent` percent do not exceed; None when nothing was counted."""
        if not self.count:
            return None
        # 99.9 % of 1,000 is 998.9999999999999 in floats: without the rounding its rank would be one too high or low.
        rank = max(1, math.ceil(round(percent / 100 * self.count, 6)))
        seen = 0
        for index, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_top_ns(index), self._most_ns) / 1e9
        return self._most_ns / 1e9

    def beyond(self, length_s: float) -> int:
        """How many took longer; what shares a bucket with `length_s`, within 0.1 % of it, counts as not longer."""
        length_ns = round(length_s * 1e9)
        shift = max(0, length_ns.bit_length() - _DIGITS)
        return sum(self._counts[shift * _HALF + (length_ns >> shift) + 1 :])

    def buckets(self) -> Iterator[tuple[float, int]]:
        """(seconds at the top of a bucket, how many are in it), without the empty ones."""
        return ((_top_ns(index) / 1e9, count) for index, count in enumerate(self._counts) if count)


def _top_ns(index: int) -> int:
    """The longest that falls into a bucket."""
    shift = max(0, index // _HALF - 1)
    return ((index - shift * _HALF + 1) << shift) - 1
