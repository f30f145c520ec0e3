"""BF16, which numpy has not: carried as two opaque bytes, computed as FP32.

A tensor of BF16 is one of `BF16`, numpy's type of two bytes without a meaning: it can be sliced, joined and sent, and
nobody can take it for numbers. `tensors.fit` widens it before a model sees it, which loses nothing; what a model
declares as BF16 output is narrowed to it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BF16 = np.dtype("V2")
_QUIET_NAN = 0x0040


def widen(tensor: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """BF16 is the upper half of FP32."""
    return (tensor.view("<u2").astype(np.uint32) << 16).view(np.float32)


def narrow(tensor: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The nearest BF16 of each number, of two equally near ones the even; NaN stays NaN."""
    with np.errstate(over="ignore"):
        single = np.asarray(tensor, np.float32, order="C")
    bits = single.view(np.uint32)
    # Half of what is cut off, and one more where the last bit that stays is odd. NaN alone could overflow by it.
    rounded = ((bits.astype(np.uint64) + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    if (is_nan := np.isnan(single)).any():
        rounded = np.where(is_nan, (bits >> 16) | _QUIET_NAN, rounded).astype("<u2")
    return rounded.view(BF16)
