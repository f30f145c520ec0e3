"""Where a head ends, in pieces of any size, and what is refused before it does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.errors import ProtocolError
from router.core.head_reader import HeadReader

HEAD = b"GET / HTTP/1.1\r\nhost: h\r\n"


def reader() -> HeadReader:
    return HeadReader(head_bytes=4096, target_bytes=1024)


class TestCut:
    def test_gives_the_head_and_what_follows(self) -> None:
        assert reader().cut(HEAD + b"\r\nbody") == (HEAD, b"body")

    def test_ignores_one_empty_line_before_it(self) -> None:
        assert reader().cut(b"\r\n" + HEAD + b"\r\n") == (HEAD, b"")

    @given(st.sampled_from([b"", b"\r\n"]), st.lists(st.integers(1, 60), max_size=8))
    def test_gives_the_same_however_the_bytes_come(self, before: bytes, cuts: list[int]) -> None:
        raw, heads = before + HEAD + b"\r\n", reader()

        for cut in sorted(cut for cut in cuts if cut < len(raw)):
            assert heads.cut(raw[:cut]) is None

        assert heads.cut(raw) == (HEAD, b"")

    def test_begins_anew_after_each_head(self) -> None:
        heads = reader()
        heads.cut(HEAD[:10])
        heads.cut(HEAD + b"\r\n")

        assert heads.cut(HEAD + b"\r\n") == (HEAD, b"")

    @pytest.mark.parametrize(
        ("data", "status"),
        [
            (b"\r\n\r\n", 400),
            (b"\x16\x03\x01", 400),
            (b"GET / HTTP/1.1\nhost: h\n\n", 400),
            (b"GET /" + b"x" * 1100, 414),
            (b"GET / HTTP/1.1\r\nx: " + b"y" * 4096, 431),
            (b"GET / HTTP/1.1\r\nx: " + b"y" * 4096 + b"\r\n\r\n", 431),
        ],
    )
    def test_refuses_what_can_never_become_a_request(self, data: bytes, status: int) -> None:
        with pytest.raises(ProtocolError) as caught:
            reader().cut(data)
        assert caught.value.refusal.status == status
