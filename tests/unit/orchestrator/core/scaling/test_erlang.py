"""Erlang's formulas against exact fractions, and the inverse against the formula."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.scaling.erlang import erlang_b, erlang_c, late_share, slots_needed


def exact_c(slots: int, load: Fraction) -> Fraction:
    """The textbook's sum, without rounding."""
    below = sum(load**k / math.factorial(k) for k in range(slots))
    full = load**slots / math.factorial(slots) * slots / (slots - load)
    return full / (below + full)


class TestErlangC:
    @pytest.mark.parametrize("load", [Fraction(1, 10), Fraction(7, 2), Fraction(98, 10), Fraction(40)])
    @pytest.mark.parametrize("spare", [1, 2, 5, 20])
    def test_is_the_exact_sum(self, load: Fraction, spare: int) -> None:
        slots = math.floor(load) + spare

        assert erlang_c(slots, float(load)) == pytest.approx(float(exact_c(slots, load)), rel=1e-12)

    def test_of_one_slot_is_its_load(self) -> None:
        assert erlang_c(1, 0.7) == pytest.approx(0.7)

    def test_of_two_slots_is_the_known_fraction(self) -> None:
        """C(2) = 2 r^2 / (1 + r) for a load of 2 r."""
        assert erlang_c(2, 1.2) == pytest.approx(2 * 0.36 / 1.6)

    @pytest.mark.parametrize(("slots", "load", "expected"), [(3, 0.0, 0.0), (3, 3.0, 1.0), (3, 7.0, 1.0)])
    def test_is_certain_at_its_ends(self, slots: int, load: float, expected: float) -> None:
        assert erlang_c(slots, load) == expected

    def test_b_of_five_slots_and_three_erlangs_is_the_tables_value(self) -> None:
        assert erlang_b(5, 3.0) == pytest.approx(0.1101, abs=5e-5)


class TestSlotsNeeded:
    def test_of_no_load_is_none(self) -> None:
        assert slots_needed(0.0, 0.4, 0.25) == 0

    def test_is_the_example_of_the_documentation(self) -> None:
        """9.84 busy slots of 0.24 s, 0.47 s to spare: docs/AUTOSCALING.md works it through."""
        late = [late_share(m, 9.84, 0.47, 0.24, 0.68) for m in (11, 12)]

        assert late == pytest.approx([0.0226, 0.0008], abs=5e-5)
        assert slots_needed(9.84, 0.47, 0.24, variability=0.68) == 12

    def test_is_bounded_whatever_the_load(self) -> None:
        assert slots_needed(1e12, 0.4, 0.25, most=400) == 400

    @given(
        load=st.floats(0.01, 80),
        spare_s=st.floats(0.001, 3),
        service_s=st.floats(0.001, 3),
        variability=st.floats(0.5, 8),
        late=st.floats(0.001, 0.2),
    )
    def test_is_the_fewest_that_keep_waiting_short(
        self, load: float, spare_s: float, service_s: float, variability: float, late: float
    ) -> None:
        slots = slots_needed(load, spare_s, service_s, variability=variability, late=late)

        assert late_share(slots, load, spare_s, service_s, variability) <= late
        assert late_share(slots - 1, load, spare_s, service_s, variability) > late

    @given(load=st.floats(0, 200), more=st.floats(0, 50), spare_s=st.floats(0.01, 2), variability=st.floats(0.5, 8))
    def test_never_falls_as_load_grows(self, load: float, more: float, spare_s: float, variability: float) -> None:
        few = slots_needed(load, spare_s, 0.25, variability=variability)

        assert slots_needed(load + more, spare_s, 0.25, variability=variability) >= few
