"""What the supervisor and its processes say to each other, besides the shared page.

A process reads its `Job` as the first line of its standard input and orders as later lines; the end of that input is
the supervisor's end. Two releases may talk here during a hot restart: fields are only added, with a default.
"""

from __future__ import annotations

from typing import Final

import msgspec

from router.config import Config

# Orders.
SERVE: Final = b"serve"  # accept connections
RETIRE: Final = b"retire"  # successors serve: take nothing new, finish what clients have

# Exit codes of a process.
EXIT_UNREADY: Final = 3  # it could not come to serve; its log says why


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One process of the gateway. File descriptors are those it inherits.

    `row` is its place in the shared page. With `await_table` it serves only once it has a routing table, because those
    before it had one. `bells` wake the process of each row; `supervisor_bell` the supervisor.
    """

    config: Config
    row: int
    generation: int
    supervisor_pid: int
    started_at: float
    public: list[int]
    private: list[int]
    page: int
    accounts: int
    bells: dict[int, int]
    supervisor_bell: int
    await_table: bool = False
    rpc: list[int] = []


class WorkerState(msgspec.Struct, frozen=True):
    """A process that goes on while its supervisor executes itself anew."""

    pid: int
    row: int
    index: int
    generation: int
    orders: int  # the file descriptor of its standard input's other end


class SupervisorState(msgspec.Struct, frozen=True, kw_only=True):
    """What a supervisor hands to itself across `execv`. `layout` is the shared page's."""

    layout: int
    generation: int
    config: msgspec.Raw
    processes: int
    started_at: float
    public: list[int]
    private: list[int]
    page: int
    accounts: int
    bells: dict[int, int]
    bell: int
    workers: list[WorkerState]
    rpc: list[int] = []
