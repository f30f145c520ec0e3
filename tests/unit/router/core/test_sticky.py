"""Who the caller is, and that callers keep their version."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.errors import Refusal
from router.core.keys import Caller
from router.core.sticky import Shares, Sticky, hash64, mix

WEIGHTS = st.dictionaries(st.sampled_from("abcd"), st.integers(0, 100), min_size=1)
CALLERS = st.integers(0, 2**64 - 1)


@dataclass(frozen=True)
class Request:
    """As much of a request as says who asks."""

    raw: bytes
    caller: Caller | Refusal | None = None


def asked(*lines: str, caller: Caller | Refusal | None = None) -> Request:
    return Request("\r\n".join(["POST /v2/models/m/infer HTTP/1.1", "host: h", *lines, ""]).encode("latin-1"), caller)


def everyone(version: str) -> bool:
    return True


class TestAffinity:
    @pytest.mark.parametrize(
        ("word", "line", "caller"),
        [
            ("header:x-user", "X-User:  ann ", b"ann"),
            ("header:X-USER", "x-user: ann", b"ann"),
            ("header:x-user", "x-user: ann\r\nx-user: bob", b"ann,bob"),
            ("header:x-user", "x-user:", None),
            ("header:x-user", "x-user-id: ann", None),
            ("header:x-user", "y: x-user: ann", None),
            ("header:x.user", "x-user: ann", None),
            ("cookie:session", "Cookie: session=s1", b"s1"),
            ("cookie:session", "cookie: a=b; session=s1; c=d", b"s1"),
            ("cookie:session", "cookie: a=b;session=s1", b"s1"),
            ("cookie:session", "cookie: session=s1; session=s2", b"s1"),
            ("cookie:session", "cookie: mysession=s1; Session=s2; a=session=s3", None),
            ("cookie:session", "cookie: session=", None),
            ("cookie:session", "session: s1", None),
        ],
    )
    def test_is_that_of_the_caller_named(self, word: str, line: str, caller: bytes | None) -> None:
        expected = None if caller is None else hash64(caller)

        assert Sticky(word).affinity(asked(line)) == expected
        assert Sticky(word).affinity(asked("a: b", line, "accept: */*")) == expected

    @pytest.mark.parametrize(
        ("caller", "expected"),
        [(Caller("k1"), hash64(b"k1")), (None, None), (Refusal(401, "UNAUTHENTICATED", "no"), None)],
    )
    def test_is_that_of_the_key(self, caller: Caller | Refusal | None, expected: int | None) -> None:
        assert Sticky("key").affinity(asked("authorization: Bearer k", caller=caller)) == expected

    @given(st.text("=; \tabx", max_size=60))
    def test_reads_a_cookie_as_splitting_at_semicolons_does(self, line: str) -> None:
        pairs = [pair.lstrip(" \t").partition("=") for pair in line.split(";")]
        values = [value.strip() for name, mark, value in pairs if mark and name == "ab"][:1]

        expected = hash64(values[0].encode()) if values and values[0] else None
        assert Sticky("cookie:ab").affinity(asked(f"cookie: {line}")) == expected

    def test_is_the_same_in_every_process(self) -> None:
        """Two gateways, and one after its restart, must agree: these numbers may never change by accident."""
        assert (hash64(b"ann"), mix(1)) == (11957940740637538957, 6238072747940578789)


class TestShares:
    @given(WEIGHTS, CALLERS, st.data())
    def test_moves_a_caller_only_to_what_gains(self, weights: dict[str, int], caller: int, data: st.DataObject) -> None:
        """A weight that grows takes callers from the others; nobody moves between those that stay as they are."""
        grown = data.draw(st.sampled_from(sorted(weights)))
        before = Shares("m", weights).pick(caller, everyone)

        after = Shares("m", weights | {grown: weights[grown] + data.draw(st.integers(1, 100))}).pick(caller, everyone)

        assert after in (before, grown)

    @given(WEIGHTS, CALLERS, st.data())
    def test_moves_only_the_callers_of_a_version_that_cannot_take_traffic(
        self, weights: dict[str, int], caller: int, data: st.DataObject
    ) -> None:
        lost = data.draw(st.sampled_from(sorted(weights)))
        shares = Shares("m", weights)
        before = shares.pick(caller, everyone)

        after = shares.pick(caller, lambda version: version != lost)

        assert after == before or before == lost

    @given(WEIGHTS, CALLERS)
    def test_never_picks_a_weight_of_zero_and_always_picks_among_others(
        self, weights: dict[str, int], caller: int
    ) -> None:
        chosen = Shares("m", weights).pick(caller, everyone)

        assert weights[chosen] > 0 if any(weights.values()) else chosen == ""
        assert Shares("m", weights).pick(caller, lambda version: False) == chosen

    @pytest.mark.parametrize("weights", [{"1": 90, "2": 10}, {"1": 1, "2": 1}, {"1": 5, "2": 3, "3": 2}])
    def test_splits_callers_by_weight(self, weights: dict[str, int]) -> None:
        """10,000 callers: 250 off is five sigma of an even split, so that chance fails this once in 500,000 at most."""
        shares = Shares("m", weights)

        taken = Counter(shares.pick(hash64(b"caller %d" % caller), everyone) for caller in range(10_000))

        for version, weight in weights.items():
            assert abs(taken[version] - 10_000 * weight / sum(weights.values())) < 250

    def test_puts_other_callers_into_the_canary_of_another_model(self) -> None:
        weights = {"1": 90, "2": 10}
        callers = [hash64(b"caller %d" % caller) for caller in range(5_000)]

        m, n = ({c for c in callers if Shares(model, weights).pick(c, everyone) == "2"} for model in "mn")

        # By chance a tenth of a tenth: 50, and 7 are one sigma.
        assert len(m & n) < 100
