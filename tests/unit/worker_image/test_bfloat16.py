"""BF16 and back: every one of its values, and the nearest of them for any other number."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker_image.server.bfloat16 import BF16, narrow, widen

EVERY = np.arange(1 << 16, dtype=np.uint32).astype("<u2").view(BF16)


def test_every_value_but_nan_comes_back_from_fp32_as_it_was() -> None:
    numbers = widen(EVERY)
    is_nan = np.isnan(numbers)

    assert narrow(numbers)[~is_nan].tobytes() == EVERY[~is_nan].tobytes()
    assert np.isnan(widen(narrow(numbers)))[is_nan].all()
    assert is_nan.sum() == 2 * 127


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_number_becomes_the_nearest_and_of_two_the_even(number: float) -> None:
    written = int(narrow(np.array([number])).view("<u2")[0])
    below, above = (int(np.float32(number).view(np.uint32)) >> 16) + np.array([0, 1])
    # One step beyond the largest number stands for infinity, as IEEE 754 rounds.
    exact = [float(np.uint32(step << 16).view(np.float32)) for step in (below, above)]
    if np.isinf(exact[1]):
        exact[1] = np.copysign(2.0**128, number)
    distances = [abs(number - value) for value in exact]

    if distances[0] == distances[1]:
        assert written == (below if below % 2 == 0 else above)
    else:
        assert written == (below if distances[0] < distances[1] else above)


def test_shape_and_any_layout_in_memory_are_kept() -> None:
    grid = np.arange(24, dtype=np.float32).reshape(2, 3, 4)

    assert widen(narrow(grid.T)[1:, ::2]).tolist() == grid.T[1:, ::2].tolist()
    assert narrow(np.array(1.5)).shape == ()
