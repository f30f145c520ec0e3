"""What may be wrong with one field or one chunked body, whoever sends it: names and bytes, for both directions.

A mutation keeps its meaning for some lax reader; `hidden` is what that reader would take for the next message.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# Every control byte, and of the others those that some charset takes for a space, a line end, a hyphen or a letter.
_ODD: Final = (*range(0x21), 0x7F, 0x80, 0x82, 0x85, 0x96, 0xA0, 0xAD, 0xC0, 0xFF)
BYTES: Final = [bytes([byte]) for byte in _ODD]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def mutated(name: bytes, value: bytes) -> Iterator[tuple[str, bytes]]:
    """A field under every byte that some parser takes for a space, an end or nothing, in each place of it."""
    middle = name.index(b"-")
    for byte in BYTES:
        mark = byte.hex()
        yield f"before-name-{mark}", byte + name + b": " + value
        yield f"in-name-{mark}", name[:middle] + byte + name[middle + 1 :] + b": " + value
        yield f"after-name-{mark}", name + byte + b": " + value
        yield f"before-value-{mark}", name + b":" + byte + value
        yield f"after-value-{mark}", name + b": " + value + byte
    for join in (b"\r\n ", b"\r\n\t", b"\n ", b"\n\t", b"\r ", b"\n\x0b", b"\r\n\r", b"\r\n\x00"):
        yield f"folded-{join.hex()}", name + b":" + join + value
        yield f"folded-name-{join.hex()}", name + join + b": " + value
        yield f"behind-{join.hex()}", b"X: x" + join + name + b": " + value
    for word, made in (
        ("upper", name.upper()), ("lower", name.lower()), ("percent", name.replace(b"-", b"%2d")),
        ("backslash", name.replace(b"-", b"\\")), ("underscore", name.replace(b"-", b"_")),
        ("dot", name.replace(b"-", b".")), ("twice-dash", name.replace(b"-", b"--")), ("junk", name + b" x"),
        ("digit", name + b"1"), ("unicode-k", name.replace(b"c", b"\xc4\x87")), ("quoted", b'"' + name + b'"'),
        ("long-s", name.replace(b"s", b"\xc5\xbf")),
    ):  # fmt: skip
        yield word, made + b": " + value
    for word, made in (("no-space", b":"), ("two-colons", b"::"), ("colon-inside", b": :"), ("no-colon", b" ")):
        yield word, name + made + value
    yield "connection-names-it", b"Connection: " + name + b"\r\n" + name + b": " + value
    yield "x-prefix", b"X-" + name + b": " + value
    yield "behind-cr", b"X: x\r" + name + b": " + value
    yield "behind-lf", b"X: x\n" + name + b": " + value
    yield "behind-empty-name", b": x\r\n" + name + b": " + value
    yield "behind-no-colon", b"nothing\r\n" + name + b": " + value


def codings() -> Iterator[tuple[str, bytes]]:
    for value in (
        b"", b",", b",chunked", b"chunked,", b"chunked, ", b"chunked,chunked", b"identity", b"identity, chunked",
        b"chunked, identity", b"gzip, chunked", b"gzip", b"x", b"xchunked", b"chunkedx", b"chunk", b"chunked;a=b",
        b"chunked ;", b"chunked;", b'"chunked"', b"'chunked'", b"CHUNKED", b"cHuNkEd", b"chunked x", b"x chunked",
        b"chun ked", b"ch\x96nked", b"chunked\xa0", b"\xa0chunked", b"\xffchunked\xff", b"(x)chunked", b"chunked(x)",
        b"deflate,  chunked", b"identity, chunked, identity", b"%63hunked", b"chu\\nked", b"[chunked]", b"{chunked}",
    ):  # fmt: skip
        yield f"value-{value.hex()}", b"Transfer-Encoding: " + value
    for first, second in (
        (b"chunked", b"chunked"), (b"x", b"chunked"), (b"chunked", b"x"), (b"identity", b"chunked"), (b"", b"chunked"),
        (b"chunked", b""), (b"chunked", b"identity"), (b"gzip", b"chunked"),
    ):  # fmt: skip
        made = b"Transfer-Encoding: " + first + b"\r\ntransfer-encoding: " + second
        yield f"twice-{first.decode()}-{second.decode()}", made
        apart = b"Transfer-Encoding: " + first + b"\r\nX: x\r\nTRANSFER-ENCODING: " + second
        yield f"apart-{first.decode()}-{second.decode()}", apart


def wrong_lengths(size: int) -> tuple[bytes, ...]:
    """Values of Content-Length that somebody reads as `size`, as nothing, or as another number."""
    text = b"%d" % size
    return (
        b"", b" ", b"0x%x" % size, b"0X%x" % size, b"+" + text, b"-" + text, b"-0", b"+0", b"-1", text + b"-", text + b".0",
        text + b"e0", text[:1] + b"_" + text[1:], text[:1] + b" " + text[1:], text[:1] + b"," + text[1:], text + b"," + text,
        text + b", " + text, text + b", 0", b"0, " + text, b"0," + text, text + b";0", text + b" 0", text + b"x",
        b"x" + text, b'"' + text + b'"', b"0" * 8 + text, b"0" * 30 + text, b"0o" + text, b"0b11", b"1" + b"0" * 19,
        b"18446744073709551616", b"18446744073709551%d" % (616 + size), b"4294967296", b"9223372036854775808",
        b"%d" % (2**64 + size), b"%d" % (2**32 + size), text + b"\xa0", b"\xa0" + text, b"\xd9\xa1", b"\xef\xbc\x91",
        text + b"\x00", b"1e2", b"NaN", b"inf", b"(0)" + text, text + b"(0)", b"$" + text, b"0.5", text + b",", b"," + text,
    )  # fmt: skip


def chunk_bodies(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """Chunks whose lines end, or whose data end, elsewhere for another reader."""
    yield from (*_size_lines(hidden), *_extensions(hidden), *_data_ends(hidden), *_trailers(hidden))


def _size_lines(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    rest = b"0\r\n\r\n"
    for byte in BYTES:
        mark = byte.hex()
        yield f"before-size-{mark}", byte + b"5\r\nhello\r\n" + rest
        yield f"after-size-{mark}", b"5" + byte + b"\r\nhello\r\n" + rest
        yield f"in-size-{mark}", b"0" + byte + b"5\r\nhello\r\n" + rest
        yield f"after-last-size-{mark}", b"5\r\nhello\r\n0" + byte + b"\r\n\r\n" + hidden
        yield f"before-last-size-{mark}", b"5\r\nhello\r\n" + byte + b"0\r\n\r\n" + hidden
    for size in (
        b"", b"0x5", b"0X5", b"+5", b"-5", b"5h", b"5.0", b"5,5", b"0_5", b"05", b"0" * 15 + b"5", b"0" * 16 + b"5",
        b"0" * 400 + b"5", b"fffffffffffffffff", b"10000000000000005", b"100000005", b"8000000000000005",
        b"ffffffffffffffff", b"7fffffffffffffff", b"-1", b"g", b"Z", b"5 5", b"5\t5", b"\xd9\xa5", b"5;", b"5=", b"5,",
        b"(x)5", b"5(x)", b'"5"', b"5\\", b"0x", b"1e", b"five", b"5\x005", b"%35",
    ):  # fmt: skip
        yield f"size-{size.hex()[:40]}-{len(size)}", size + b"\r\nhello\r\n" + rest
        yield f"size-and-hidden-{size.hex()[:40]}-{len(size)}", size + b"\r\n" + hidden + b"\r\n" + rest
    for zero in (b"00", b"0" * 16, b"0" * 17, b"0;x", b"0 ;x", b"0;", b"-0", b"+0", b"0x0", b"0\t", b"", b"\r\n0"):
        yield f"zero-{zero.hex()}", b"5\r\nhello\r\n" + zero + b"\r\n\r\n" + hidden


def _extensions(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """TERM.EXT and EXT.TERM: a byte that ends the line for one reader and belongs to the extension for the other."""
    inside = chunk(hidden)
    for end in (*BYTES, b"\rX", b"\r\r", b"\n\r", b"\n\n", b"\r\n "):
        mark = end.hex()
        yield f"term.ext-{mark}", b"5;" + end + b"hello\r\n" + b"0\r\n\r\n" + hidden
        yield f"ext.term-{mark}", b"2;" + end + b"xx\r\n" + inside[:20] + b"\r\n0\r\n\r\n" + hidden
        yield f"ext-name-{mark}", b"5;a" + end + b"=b\r\nhello\r\n0\r\n\r\n" + hidden
        yield f"before-ext-{mark}", b"5" + end + b";a\r\nhello\r\n0\r\n\r\n" + hidden
    for ext in (b";a", b";a=b", b';a="b"', b';a="\\""', b';a="', b';a="\r\n"', b";;", b";=", b";a=b;c", b" ;a", b"\t;a", b"; a",
                b";a = b", b";" + b"a" * 4000, b";" + b"a" * 5000, b";\xff", b"=", b",a"):  # fmt: skip
        yield f"ext-{ext.hex()[:40]}-{len(ext)}", b"5" + ext + b"\r\nhello\r\n0\r\n\r\n"
        yield f"last-ext-{ext.hex()[:40]}-{len(ext)}", b"5\r\nhello\r\n0" + ext + b"\r\n\r\n" + hidden


def _data_ends(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    """TERM.SPILL, ONE.TWO and their reverse: what stands where the CRLF behind the data must be."""
    for end in (b"", b"\n", b"\r", b"\r\r", b"\n\r", b"\n\n", b"X", b"XX", b"\rX", b"X\n", b" \r\n", b"\r\n\r\n", b"\x00\x00",
                b"\r\x00", b"0", b"\r\n ", b";\r\n"):  # fmt: skip
        mark = end.hex() or "none"
        yield f"spill-{mark}", b"5\r\nhello" + end + b"0\r\n\r\n" + hidden
        yield f"spill-size-{mark}", b"5\r\nhello" + end + b"2\r\nxx\r\n0\r\n\r\n" + hidden
        yield f"size-line-end-{mark}", b"5" + end + b"hello\r\n0\r\n\r\n" + hidden
        yield f"last-line-end-{mark}", b"5\r\nhello\r\n0" + end + b"\r\n" + hidden
        yield f"body-end-{mark}", b"5\r\nhello\r\n0\r\n" + end + hidden
    for told, data in ((4, b"hello"), (6, b"hello"), (0, b"hello"), (7, b"hello\r\n0\r\n\r\n"), (3, b"\r\n\r\n")):
        yield f"told-{told}-of-{len(data)}", b"%x\r\n%b\r\n0\r\n\r\n" % (told, data) + hidden


def _trailers(hidden: bytes) -> Iterator[tuple[str, bytes]]:
    for block in (
        b"X: y\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: other\r\n", b"X:POST / HTTP/1.1\r\n",
        b"GET /models/m/hidden HTTP/1.1\r\n", b" X: y\r\n", b"X : y\r\n", b"X: y\n", b"X: y\r", b"X\r\n", b": y\r\n", b"X: \x00\r\n",
        b"X: y\r\n z\r\n", b"X: y\n\n", b"X: y\r\n\n", b"\n", b"\r", b"\r\r\n", b"X: a\r\nX: b\r\n", b"X: " + b"a" * 9000 + b"\r\n",
        b"a: b\r\n" * 2000, b"\x00\r\n", b"X: y\r\n\r", b"Connection: close\r\n", b"Expect: 100-continue\r\n",
    ):  # fmt: skip
        yield f"trailer-{block.hex()[:40]}-{len(block)}", b"5\r\nhello\r\n0\r\n" + block + b"\r\n" + hidden
        yield f"trailer-alone-{block.hex()[:40]}-{len(block)}", b"0\r\n" + block + b"\r\n" + hidden
