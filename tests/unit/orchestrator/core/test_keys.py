"""What an API key looks like, and what is kept of it."""

from __future__ import annotations

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.keys import ID_BYTES, SECRET_BYTES, compose, digest, is_whole

RANDOM = st.binary(min_size=ID_BYTES + SECRET_BYTES, max_size=ID_BYTES + SECRET_BYTES)


class TestCompose:
    @given(RANDOM)
    def test_makes_a_word_that_needs_no_quoting_and_names_its_id(self, random: bytes) -> None:
        id_, text = compose(random)

        assert re.fullmatch(r"mf_[a-z2-9]{8}_[0-9A-Za-z]{33}", text)
        assert text.split("_")[1] == id_
        assert is_whole(text)

    @given(RANDOM, RANDOM)
    def test_makes_another_for_other_chance(self, one: bytes, other: bytes) -> None:
        assert (compose(one)[1] == compose(other)[1]) == (one == other)


class TestIsWhole:
    @given(RANDOM, st.data())
    def test_finds_each_wrong_letter_and_each_cut(self, random: bytes, data: st.DataObject) -> None:
        text = compose(random)[1]
        place = data.draw(st.integers(0, len(text) - 1))
        letter = data.draw(st.sampled_from("0aZ_"))

        assert not is_whole(text[:place])
        assert is_whole(text[:place] + letter + text[place + 1 :]) == (letter == text[place])


class TestDigest:
    def test_is_the_sha_256_that_the_gateway_looks_up(self) -> None:
        assert digest("mf_x") == hashlib.sha256(b"mf_x").hexdigest()
