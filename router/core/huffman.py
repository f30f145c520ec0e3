"""HPACK's Huffman code (RFC 7541 section 5.2 and appendix B), read a byte at a time.

The code is canonical: the lengths of its words say everything, since words of one length are numbered in the order of
their symbols. Reading is a walk through the tree of the code, of which each step takes a whole byte; a step is worked
out when it is first taken and remembered. Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

EOS: Final = 256
# The length in bits of each symbol's word, 0 to 255 and EOS, as (length, how many symbols in a row).
_RUNS: Final = (
    (13, 1), (23, 1), (28, 7), (24, 1), (30, 1), (28, 2), (30, 1), (28, 8), (30, 1), (28, 9), (6, 1), (10, 2), (12, 1),
    (13, 1), (6, 1), (8, 1), (11, 1), (10, 2), (8, 1), (11, 1), (8, 1), (6, 3), (5, 3), (6, 7), (7, 1), (8, 1), (15, 1),
    (6, 1), (12, 1), (10, 1), (13, 1), (6, 1), (7, 22), (8, 1), (7, 1), (8, 1), (13, 1), (19, 1), (13, 1), (14, 1),
    (6, 1), (15, 1), (5, 1), (6, 1), (5, 1), (6, 1), (5, 1), (6, 3), (5, 1), (7, 2), (6, 3), (5, 1), (6, 1), (7, 1),
    (6, 1), (5, 2), (6, 1), (7, 5), (15, 1), (11, 1), (14, 1), (13, 1), (28, 1), (20, 1), (22, 1), (20, 2), (22, 3),
    (23, 1), (22, 1), (23, 5), (24, 1), (23, 1), (24, 2), (22, 1), (23, 1), (24, 1), (23, 4), (21, 1), (22, 1), (23, 1),
    (22, 1), (23, 2), (24, 1), (22, 1), (21, 1), (20, 1), (22, 2), (23, 2), (21, 1), (23, 1), (22, 2), (24, 1), (21, 1),
    (22, 1), (23, 2), (21, 2), (22, 1), (21, 1), (23, 1), (22, 1), (23, 2), (20, 1), (22, 3), (23, 1), (22, 2), (23, 1),
    (26, 2), (20, 1), (19, 1), (22, 1), (23, 1), (22, 1), (25, 1), (26, 3), (27, 2), (26, 1), (24, 1), (25, 1), (19, 1),
    (21, 1), (26, 1), (27, 2), (26, 1), (27, 1), (24, 1), (21, 2), (26, 2), (28, 1), (27, 3), (20, 1), (24, 1), (20, 1),
    (21, 1), (22, 1), (21, 2), (23, 1), (22, 2), (25, 2), (24, 2), (26, 1), (23, 1), (26, 1), (27, 1), (26, 2), (27, 5),
    (28, 1), (27, 5), (26, 1), (30, 1),
)  # fmt: skip
LENGTHS: Final = tuple(length for length, count in _RUNS for _ in range(count))
# A string may end inside a word only where all bits since the last whole one are ones, and fewer than eight.
_PADDING_BITS: Final = 7


class _Step(NamedTuple):
    """What one byte leads to: the bytes that it completes, and the node after it. -1: there is no such word."""

    node: int
    symbols: bytes


def _tree() -> list[list[int]]:
    """For each node what its two bits lead to: another node, or ~symbol."""
    nodes = [[0, 0]]
    code = length = 0
    for symbol in sorted(range(EOS + 1), key=lambda each: (LENGTHS[each], each)):
        code <<= LENGTHS[symbol] - length
        length = LENGTHS[symbol]
        node = 0
        for at in range(length - 1, 0, -1):
            bit = code >> at & 1
            if not nodes[node][bit]:
                nodes[node][bit] = len(nodes)
                nodes.append([0, 0])
            node = nodes[node][bit]
        nodes[node][code & 1] = ~symbol
        code += 1
    return nodes


_NODES: Final = _tree()
_steps: Final[dict[int, _Step]] = {}  # by node << 8 | byte: 65,536 at most


def _padding_nodes() -> frozenset[int]:
    node, nodes = 0, {0}
    for _ in range(_PADDING_BITS):
        node = _NODES[node][1]
        nodes.add(node)
    return frozenset(nodes)


_ENDS: Final = _padding_nodes()


def decode(data: bytes) -> bytes | None:
    """None when it is no string of this code, or is padded with anything but fewer than eight ones."""
    node = 0
    pieces = []
    for byte in data:
        step = _steps.get(node << 8 | byte)
        if step is None:
            step = _steps[node << 8 | byte] = _walk(node, byte)
        node, symbols = step
        if node < 0:
            return None
        pieces.append(symbols)
    return b"".join(pieces) if node in _ENDS else None


def _walk(node: int, byte: int) -> _Step:
    symbols = bytearray()
    for at in range(7, -1, -1):
        node = _NODES[node][byte >> at & 1]
        if node < 0:
            if ~node == EOS:
                return _Step(-1, b"")
            symbols.append(~node)
            node = 0
    return _Step(node, bytes(symbols))
