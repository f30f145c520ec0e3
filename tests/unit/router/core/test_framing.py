"""The grammar of heads: what is read, what is refused, and that llhttp never sees more in accepted bytes than we do."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from router.core.errors import ProtocolError
from router.core.framing import RequestHead, early_fault, parse_request, parse_response

PLAIN = b"POST /v2/models/m/infer?x=1 HTTP/1.1\r\nHost: h:8080\r\nContent-Type: a/b\r\nContent-Length: 3\r\n"


def request(*lines: bytes, line: bytes = b"POST /p HTTP/1.1", host: bool = True) -> bytes:
    return b"\r\n".join((line, *((b"Host: h",) if host else ()), *lines, b""))


def refusal(raw: bytes) -> tuple[int, str]:
    with pytest.raises(ProtocolError) as caught:
        parse_request(raw, 100)
    return caught.value.refusal.status, caught.value.refusal.text


class TestRequestHead:
    def test_is_read_into_its_parts(self) -> None:
        assert parse_request(PLAIN, 100) == RequestHead(
            method=b"POST",
            path=b"/v2/models/m/infer",
            query=b"?x=1",
            minor=1,
            host=b"h:8080",
            fields=(b"Content-Type: a/b",),
            read={b"host": b"h:8080", b"content-length": b"3"},
            content_length=3,
            chunked=False,
            keep_alive=True,
            expects_continue=False,
        )

    def test_loses_whitespace_around_values_and_keeps_it_inside(self) -> None:
        head = parse_request(request(b"X-A: \t a b\t ", b"X-B:", b"X-C:c"), 100)

        assert head.fields == (b"X-A: a b", b"X-B: ", b"X-C: c")

    def test_keeps_repeated_fields_apart_and_in_order(self) -> None:
        head = parse_request(request(b"X: 1", b"Y: 2", b"X: 3"), 100)

        assert head.fields == (b"X: 1", b"Y: 2", b"X: 3")

    def test_drops_what_belongs_to_one_hop(self) -> None:
        hop = (b"Connection: keep-alive, X-Named", b"Keep-Alive: 5", b"TE: trailers", b"Upgrade: h2c", b"X-Named: 1")

        assert parse_request(request(*hop, b"Proxy-Authorization: x", b"Trailer: y", b"X: 1"), 100).fields == (b"X: 1",)

    @pytest.mark.parametrize(
        ("line", "fields", "keeps_alive"),
        [
            (b"GET / HTTP/1.1", (), True),
            (b"GET / HTTP/1.1", (b"Connection: Close",), False),
            (b"GET / HTTP/1.1", (b"Connection: x, close",), False),
            (b"GET / HTTP/1.0", (), False),
            (b"GET / HTTP/1.0", (b"Connection: keep-alive",), True),
        ],
    )
    def test_says_whether_the_connection_stays(self, line: bytes, fields: tuple[bytes, ...], keeps_alive: bool) -> None:
        assert parse_request(request(*fields, line=line), 100).keep_alive is keeps_alive

    def test_takes_the_authority_of_an_absolute_target_before_the_host_field(self) -> None:
        head = parse_request(request(line=b"GET http://other:1/p?q HTTP/1.1"), 100)

        assert (head.host, head.path, head.query) == (b"other:1", b"/p", b"?q")

    @pytest.mark.parametrize("name", [b"X_Forwarded_For", b"x-forwarded_proto", b"X_Request-Id", b"Proxy"])
    def test_drops_a_name_that_a_replica_could_take_for_the_gateways_word(self, name: bytes) -> None:
        """CGI-like servers read `_` as `-`, and `Proxy` as the environment's HTTP_PROXY."""
        head = parse_request(request(name + b": spoofed", b"User_Id: 7"), 100)

        assert head.fields == (b"User_Id: 7",)

    def test_remembers_no_long_names(self) -> None:
        """A sender could fill the memory of the process with names as long as heads."""
        tracemalloc.start()
        try:
            for number in range(1000):
                parse_request(request(b"%05d" % number * 2000 + b": x"), 100)
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept_bytes < 1_000_000

    def test_ignores_an_expectation_in_http_1_0(self) -> None:
        assert not parse_request(request(b"Expect: 100-continue", line=b"GET / HTTP/1.0"), 100).expects_continue

    @pytest.mark.parametrize(
        "raw",
        [
            request(host=False),
            request(b"Host: h"),
            *(request(b"Host: " + v, host=False) for v in (b"", b"a b", b"a/b", b"a@b", b"..", b"a:99999", b"[::1")),
            *(request(b"Content-Length: " + v) for v in (b"", b"+3", b"-3", b"0x3", b"3 3", b"3,3", b"3;", b"9" * 20)),
            request(b"Content-Length: 3", b"Content-Length: 3"),
            request(b"Content-Length: 3", b"Transfer-Encoding: chunked"),
            request(b"Content_Length: 3"),
            request(b"Transfer.Encoding: chunked"),
            request(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"),
            *(
                request(v)
                for v in (b"X : 1", b" X: 1", b"X", b": 1", b"X: a\x00b", b"X: a\rb", b"X: a\nb", b"X\x0b: 1")
            ),
            request(b"X: a", b" folded"),
            request(line=b"GET  / HTTP/1.1"),
            request(line=b"GET\t/\tHTTP/1.1"),
            request(line=b"GET / HTTP/1.1 "),
            request(line=b"GET /a b HTTP/1.1"),
            request(line=b"GET /\xe9 HTTP/1.1"),
            request(line=b"GET /#f HTTP/1.1"),
            request(line=b"GET /\\x HTTP/1.1"),
            request(line=b"GET p HTTP/1.1"),
            request(line=b"GET * HTTP/1.1"),
            request(line=b"GET http:///p HTTP/1.1"),
            request(line=b"GET http://u:p@h/p HTTP/1.1"),
            request(line=b"GET ftp://h/p HTTP/1.1"),
            request(line=b"G(T / HTTP/1.1"),
            request(line=b"G" * 33 + b" / HTTP/1.1"),
            request(line=b"GET / http/1.1"),
            request(line=b"GET /"),
        ],
    )
    def test_is_refused_as_400_when_it_can_be_read_in_two_ways(self, raw: bytes) -> None:
        assert refusal(raw)[0] == 400

    @pytest.mark.parametrize(
        "coding",
        [b"gzip", b"chunked\t", b"\tchunked", b"chunked, chunked", b"gzip, chunked", b"xchunked", b"chunked;q=1", b""],
    )
    def test_is_refused_when_its_transfer_coding_is_not_chunked(self, coding: bytes) -> None:
        assert refusal(request(b"Transfer-Encoding: " + coding))[0] == 501

    def test_is_refused_with_the_status_that_names_the_fault(self) -> None:
        assert refusal(request(line=b"GET / HTTP/2.0"))[0] == 505
        assert refusal(request(line=b"CONNECT /p HTTP/1.1"))[0] == 405
        assert refusal(request(line=b"post /p HTTP/1.1"))[0] == 501
        assert refusal(request(b"Expect: tea"))[0] == 417
        assert refusal(request(*[b"X: 1"] * 100)) == (
            431,
            "101 header fields; the gateway takes at most 100; send less or raise the limit",
        )

    def test_is_refused_with_a_sentence_that_shows_the_line(self) -> None:
        assert refusal(request(b"Foo : bar"))[1] == (
            "header line 'Foo : bar': it is not `name: value` without control bytes; correct it"
        )

    @given(st.binary(max_size=200))
    @example(PLAIN)
    def test_parses_or_is_refused_whatever_it_is(self, raw: bytes) -> None:
        with suppress(ProtocolError):
            parse_request(raw, 100)


class Recorder:
    """What llhttp reads."""

    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.body = b""
        self.completed = 0

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.completed += 1


field_text = st.binary(max_size=12) | st.sampled_from(
    [b"chunked", b"3", b"0", b"close", b"keep-alive, x", b"100-continue", b"h", b"a\r\n b", b"\t3", b"3 ", b"\x0b"]
)
names = st.sampled_from(
    [
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Host",
        b"Expect",
        b"X-A",
        b"TE",
        b"Content-Length ",
        b"\tX",
    ]
)
lines = st.sampled_from([b"POST /p HTTP/1.1", b"GET /p?q HTTP/1.0", b"PUT http://h/p HTTP/1.1", b"POST /p\t HTTP/1.1"])


class TestAgainstLlhttp:
    @settings(max_examples=400)
    @given(line=lines, fields=st.lists(st.tuples(names, field_text), max_size=5))
    def test_a_head_we_accept_is_accepted_there_with_the_same_framing(
        self, line: bytes, fields: list[tuple[bytes, bytes]]
    ) -> None:
        """A replica built on llhttp must never see another request than the gateway saw."""
        raw = b"\r\n".join((line, b"Host: h", *(n + b": " + v for n, v in fields), b""))
        try:
            head = parse_request(raw, 100)
        except ProtocolError:
            return
        body = b"0\r\n\r\n" if head.chunked else b"x" * head.content_length
        recorder = Recorder()

        httptools.HttpRequestParser(recorder).feed_data(raw + b"\r\n" + body)

        assert recorder.completed == 1
        assert len(recorder.body) == head.content_length
        assert len(recorder.fields) == len(fields) + 1


class TestResponseHead:
    def test_is_read_into_its_parts(self) -> None:
        head = parse_response(
            b"HTTP/1.1 200 OK\r\nA: b\r\nContent-Length: 5\r\nConnection: close, C\r\nC: d\r\n", False
        )

        assert (head.status, head.reason, head.fields) == (200, b"OK", (b"A: b", b"content-length: 5"))
        assert (head.content_length, head.chunked, head.keep_alive) == (5, False, False)

    @pytest.mark.parametrize("status", [204, 304])
    def test_has_no_body_with_a_status_that_forbids_one(self, status: int) -> None:
        head = parse_response(b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n" % status, False)

        assert (head.content_length, head.chunked) == (0, False)

    def test_of_a_head_request_keeps_the_length_as_a_field_and_has_no_body(self) -> None:
        head = parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", True)

        assert (head.fields, head.content_length, head.keep_alive) == ((b"content-length: 5",), 0, True)

    def test_without_a_length_is_read_until_the_connection_closes(self) -> None:
        head = parse_response(b"HTTP/1.1 200 OK\r\n", False)

        assert (head.content_length, head.keep_alive) == (-1, False)

    def test_of_an_interim_answer_has_no_body(self) -> None:
        head = parse_response(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 0\r\n", is_head=False)

        assert (head.fields, head.content_length, head.chunked) == ((b"Link: x",), 0, False)

    @pytest.mark.parametrize(
        "raw",
        [
            b"HTTP/1.1 103 X\r\nContent-Length: 5\r\n",
            b"HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n",
            b"HTTP/1.1 103 X\r\nConnection: close\r\n",
            b"HTTP/1.0 100 Continue\r\n",
        ],
    )
    def test_is_refused_when_an_interim_answer_looks_like_a_final_one(self, raw: bytes) -> None:
        with pytest.raises(ProtocolError):
            parse_response(raw, is_head=False)

    @pytest.mark.parametrize(
        "raw",
        [
            b"\x00garbage\r\n",
            b"HTTP/1.1 2000 OK\r\n",
            b"HTTP/1.1 99 Low\r\n",
            b"HTTP/2 200 OK\r\n",
            b"HTTP/1.1  200 OK\r\n",
            b"HTTP/1.1 200 OK\r\nA : b\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\rX: c\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 5\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n",
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n",
        ],
    )
    def test_is_refused_when_it_can_be_read_in_two_ways(self, raw: bytes) -> None:
        with pytest.raises(ProtocolError):
            parse_response(raw, False)


class TestEarlyFault:
    @pytest.mark.parametrize("partial", [b"\x16\x03\x01\x00", b"GET / HTTP/1.1\n", b"\n", b"GET / HTTP/1.1\r\nA: b\n"])
    def test_is_seen_before_the_head_is_complete(self, partial: bytes) -> None:
        assert early_fault(partial, 0) is not None

    @pytest.mark.parametrize("end", range(1, len(PLAIN)))
    def test_is_never_seen_in_the_beginning_of_a_good_head(self, end: int) -> None:
        assert early_fault(PLAIN[:end], 0) is None
