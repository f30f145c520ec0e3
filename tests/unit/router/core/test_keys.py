"""API keys at the gateway: read out of a head, looked up, held to their limits."""

from __future__ import annotations

import hashlib

import pytest

from router.contract import ApiKey, RateLimit
from router.core.errors import Refusal
from router.core.keys import Caller, Keyring

KEY = b"mf_secret"


def api_key(text: bytes = KEY, **settings: object) -> ApiKey:
    return ApiKey(hashlib.sha256(text).hexdigest(), **settings)  # type: ignore[arg-type]


def put_in_force(ring: Keyring, keys: dict[str, ApiKey], now: float) -> None:
    for _ in ring.apply(keys, now):
        pass


def ring(*, required: bool = True, **keys: ApiKey) -> Keyring:
    made = Keyring(required)
    put_in_force(made, keys or {"a": api_key()}, 0.0)
    return made


def caller(**settings: object) -> Caller:
    return ring(a=api_key(**settings)).callers["a"]


def unix_time() -> float:
    return 1_000.0


def bearer(key: bytes = KEY) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + key}


class TestIdentify:
    @pytest.mark.parametrize(
        "read",
        [
            bearer(),
            {b"authorization": b"bearer   " + KEY},
            {b"x-api-key": KEY},
        ],
    )
    def test_finds_a_key_in_either_field(self, read: dict[bytes, bytes]) -> None:
        found = ring().identify(read)

        assert isinstance(found, Caller)
        assert found.id == "a"

    @pytest.mark.parametrize(
        ("read", "word"),
        [
            ({}, "wants an API key"),
            (bearer(b"unheard"), "not known"),
            ({b"authorization": b"Basic bWU6bWU="}, "not an API key"),
            ({b"authorization": b"Bearer"}, "not an API key"),
            ({b"authorization": b"Bearer a, Bearer b"}, "not an API key"),
            ({b"x-api-key": b""}, "not an API key"),
            ({b"x-api-key": b"\xffsecret"}, "not an API key"),
            ({**bearer(), b"x-api-key": KEY}, "send one"),
        ],
    )
    def test_refuses_what_is_none_and_never_repeats_it(self, read: dict[bytes, bytes], word: str) -> None:
        found = ring().identify(read)

        assert isinstance(found, Refusal)
        assert (found.status, found.code, word in found.text) == (401, "UNAUTHENTICATED", True)
        assert not any(secret in found.text for secret in ("mf_secret", "unheard", "bWU6bWU="))

    @pytest.mark.parametrize("read", [{}, bearer(b"other"), {b"authorization": b"Basic bWU6bWU="}])
    def test_lets_strangers_pass_where_keys_are_optional(self, read: dict[bytes, bytes]) -> None:
        assert ring(required=False).identify(read) is None

    def test_knows_a_key_where_keys_are_optional(self) -> None:
        assert isinstance(ring(required=False).identify(bearer()), Caller)
        assert isinstance(ring(required=False).identify({**bearer(b"x"), b"x-api-key": KEY}), Caller)


class TestWithheld:
    def test_withholds_whatever_may_be_a_key_where_keys_are_required(self) -> None:
        assert ring().withheld({**bearer(b"x"), b"x-api-key": b"y"}) == (b"authorization", b"x-api-key")
        assert ring().withheld({}) == ()

    def test_withholds_our_keys_alone_where_they_are_optional(self) -> None:
        assert ring(required=False).withheld({**bearer(b"theirs"), b"x-api-key": KEY}) == (b"x-api-key",)


class TestTables:
    def test_a_key_that_is_no_longer_named_is_unknown(self) -> None:
        made = ring()
        before = made.revision

        put_in_force(made, {}, 1.0)

        assert isinstance(made.identify(bearer()), Refusal)
        assert made.revision != before

    def test_the_same_keys_change_nothing(self) -> None:
        made = ring()
        before = made.revision, made.callers["a"]

        put_in_force(made, {"a": api_key()}, 1.0)

        assert (made.revision, made.callers["a"]) == before

    def test_a_key_keeps_what_it_has_under_way_when_another_is_made(self) -> None:
        made = ring()
        made.callers["a"].enter()

        put_in_force(made, {"a": api_key(), "b": api_key(b"other")}, 1.0)

        assert made.callers["a"].under_way == 1

    def test_a_table_refills_no_bucket(self) -> None:
        limit = RateLimit(1.0, 1)
        made = ring(a=api_key(rate_limit=limit))
        assert made.callers["a"].limits("m", None, 10.0) is None

        put_in_force(made, {"a": api_key(rate_limit=limit), "b": api_key(b"other")}, 10.1)

        assert made.callers["a"].limits("m", None, 10.1) is not None

    def test_many_are_taken_over_in_steps_and_all_at_once(self) -> None:
        many = {f"k{n}": api_key(str(n).encode()) for n in range(1000)}
        made = ring()

        steps = 0
        for _ in made.apply(many, 1.0):
            steps += 1
            assert list(made.callers) == ["a"]

        assert steps > 10
        assert len(made.callers) == 1000
        assert isinstance(made.identify(bearer(b"999")), Caller)


class TestScope:
    def test_a_key_asks_only_for_its_models(self) -> None:
        found = caller(models=("iris",))

        assert found.refuses("iris", unix_time) is None
        refusal = found.refuses("text", unix_time)
        assert refusal is not None
        assert (refusal.status, refusal.code) == (403, "FORBIDDEN")

    def test_a_key_without_models_asks_for_all(self) -> None:
        assert caller().refuses("whatever", unix_time) is None

    def test_a_key_expires_on_time(self) -> None:
        assert caller(expires_at=1_001.0).refuses("m", unix_time) is None
        refusal = caller(expires_at=1_000.0).refuses("m", unix_time)
        assert refusal is not None
        assert (refusal.status, "expired" in refusal.text) == (401, True)


class TestLimits:
    def test_says_which_limit_and_when_to_come_again(self) -> None:
        found = caller(rate_limit=RateLimit(0.4, 1))
        assert found.limits("m", None, 10.0) is None

        refusal = found.limits("m", None, 10.2)

        assert refusal is not None
        assert (refusal.status, refusal.code, refusal.retry_after_s) == (429, "RATE_LIMITED", 3)
        assert "key 'a': more than 0.4 requests/s" in refusal.text
        assert "try again in 2300 ms" in refusal.text

    def test_spends_nothing_of_the_key_when_the_model_refuses(self) -> None:
        found = caller(rate_limit=RateLimit(1.0, 1))
        busy = caller(rate_limit=RateLimit(1.0, 1)).gate
        assert busy is not None
        busy.spend(10.0)

        refusal = found.limits("m", busy, 10.0)

        assert refusal is not None
        assert "model 'm'" in refusal.text
        assert found.limits("m", None, 10.0) is None

    def test_bounds_how_many_are_under_way(self) -> None:
        found = caller(concurrency=2)
        found.enter()
        found.enter()

        refusal = found.limits("m", None, 0.0)
        assert refusal is not None
        assert (refusal.code, refusal.retry_after_s) == ("RATE_LIMITED", 1)

        found.leave(200)
        assert found.limits("m", None, 0.0) is None
        assert found.answers[2] == 1
