"""The listening sockets of a gateway: for each of its processes one on the public port, the private one and gRPC's.

Owns their making. They share a port by SO_REUSEPORT, so that the kernel spreads connections over the processes. Only
the supervisor makes and closes them: a closed one resets the connections that wait in its accept queue, so they outlive
every process that accepts from them.
"""

from __future__ import annotations

import contextlib
import socket

from router.config import Config

BACKLOG = 4096


class Listeners:
    """`public[i]`, `private[i]` and, where there is gRPC, `rpc[i]` belong together.

    They are bound here; the first process that accepts from one makes it listen, so that no connection comes to a
    socket that nobody serves.
    """

    def __init__(
        self, public: list[socket.socket], private: list[socket.socket], rpc: list[socket.socket] | None = None
    ) -> None:
        self.public = public
        self.private = private
        self.rpc = rpc or []

    @classmethod
    def open(cls, config: Config) -> Listeners:
        """The first of each; raises `OSError`."""
        rpc = [] if config.grpc_port is None else [_listen(config.host, config.grpc_port)]
        return cls([_listen(config.host, config.port)], [_listen(config.metrics_host, config.metrics_port)], rpc)

    @classmethod
    def inherited(cls, public: list[int], private: list[int], rpc: list[int]) -> Listeners:
        return cls(*([socket.socket(fileno=fd) for fd in fds] for fds in (public, private, rpc)))

    @property
    def fds(self) -> list[int]:
        return [each.fileno() for each in (*self.public, *self.private, *self.rpc)]

    def grow(self, count: int) -> None:
        """At least `count` of each. There are never fewer again: see the module's text."""
        for sockets in filter(None, (self.public, self.private, self.rpc)):
            host, port = sockets[0].getsockname()[:2]
            while len(sockets) < count:
                sockets.append(_listen(host, port))

    def of(self, index: int, processes: int) -> tuple[list[int], list[int], list[int]]:
        """The file descriptors that process `index` of `processes` accepts from: together they leave none out."""
        public, private, rpc = (
            [each.fileno() for each in sockets[index::processes]] for sockets in (self.public, self.private, self.rpc)
        )
        return public, private, rpc

    def close_public(self) -> None:
        for each in (*self.public, *self.rpc):
            each.close()


def bind_problem(host: str, port: int) -> str:
    """Why nobody should listen on `host:port`, "" when it is free: SO_REUSEPORT would share it in silence."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as exc:
            return (exc.strerror or str(exc)).lower()
    return ""


def _listen(host: str, port: int) -> socket.socket:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    with contextlib.ExitStack() as undo:
        listener = undo.enter_context(socket.socket(family, socket.SOCK_STREAM))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.setblocking(False)
        undo.pop_all()
    return listener
