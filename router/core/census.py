"""How many connections there are, in all and from one address.

Pure. An address is what one person can hold many of cheaply: an IPv4 address, or the /64 network of an IPv6 address.
Loopback is not counted by address, for a proxy on this machine stands for all of its clients.
"""

from __future__ import annotations

import ipaddress

from router.core import errors
from router.core.errors import Refusal


def origin_of(address: str) -> str:
    """What an address is counted under, "" for what is not counted."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if ip.is_loopback:
        return ""
    return str(ip) if ip.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))


class Census:
    """Counts those who came and did not leave. `enter` and `leave` come in pairs with the same origin."""

    def __init__(self, most: int, most_per_origin: int) -> None:
        self._most = most
        self._most_per_origin = most_per_origin
        self._all = 0
        self._by_origin: dict[str, int] = {}

    def enter(self, origin: str) -> Refusal | None:
        """Counts one more, or says why not."""
        if self._all >= self._most:
            return errors.connections_taken(self._most)
        if origin:
            count = self._by_origin.get(origin, 0)
            if count >= self._most_per_origin:
                return errors.connections_of_address_taken(origin, self._most_per_origin)
            self._by_origin[origin] = count + 1
        self._all += 1
        return None

    def leave(self, origin: str) -> None:
        self._all -= 1
        if origin:
            left = self._by_origin[origin] - 1
            if left:
                self._by_origin[origin] = left
            else:
                del self._by_origin[origin]
