"""The supervisor: it owns the gateway's sockets and shared memory, and keeps the processes that serve running.

It carries no request and is never in a request's way. It replaces a process that ended, and at SIGHUP executes itself
anew with everything it owns, starts a new generation of processes, and lets the old one finish: no socket is closed, so
no connection is lost. Whatever fails on that way leaves the old generation serving. `worker.py` is what it starts,
docs/decisions/0010 says why it is so.

    SIGHUP -> a trial of code and settings -> execv -> new generation STARTING -> all READY -> all SERVING, the old
                  | fails: stay                            | fails: end it, stay               one RETIRING
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from router.config import Config
from router.cores import processes_for
from router.job import RETIRE, SERVE, Job, SupervisorState, WorkerState
from router.listeners import Listeners
from router.log import EventLog
from router.page import LAYOUT, ROWS, Field, Page, Phase

STATE_VARIABLE: Final = "MODELFLEET_GATEWAY_STATE"
# A process that ended is replaced at once; one that ends again and again, later and later.
BACKOFF_S: Final = 0.1
MAX_BACKOFF_S: Final = 5.0
# Who served for so long is no failed start.
SETTLED_S: Final = 10.0
# A new generation serves by then, or it is given up: longer than a process waits for its routing table.
READY_TIMEOUT_S: Final = 30.0
TRIAL_TIMEOUT_S: Final = 15.0
# After a process's own drain timeout, for its last steps.
KILL_AFTER_S: Final = 5.0

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


@dataclass(slots=True)
class Worker:
    """A process of the gateway, as its supervisor sees it."""

    pid: int
    row: int
    index: int  # among those of its generation
    generation: int
    orders: int
    ordered: bytes = b""  # the last order it got
    started: float = field(default_factory=time.monotonic)
    kill_at: float = float("inf")


@dataclass(slots=True)
class Generation:
    """Processes that were started with the same settings."""

    number: int
    config: Config
    processes: int
    began: float = field(default_factory=time.monotonic)
    failures: dict[int, int] = field(default_factory=dict)  # by index, in a row
    not_before: dict[int, float] = field(default_factory=dict)


class Supervisor:
    """One gateway."""

    def __init__(self, config: Config, log: EventLog, listeners: Listeners, page: Page, accounts: int) -> None:
        self._log = log
        self._listeners = listeners
        self._page = page
        self._accounts = accounts
        self._bells: dict[int, int] = {}
        self._bell = _make_bell()
        self._started_at = time.time()
        self._workers: dict[int, Worker] = {}
        self._current = Generation(1, config, processes_for(config))
        self._coming: Generation | None = None
        self._trial: tuple[subprocess.Popen[bytes], float] | None = None
        self._is_restart_wanted = False
        self._has_served = False
        self._stop_by = float("inf")
        self._exit_code = 0
        # Of any generation that may still run: another one's settings must not cut its requests short.
        self._longest_drain_s = config.limits.drain_timeout_s

    @classmethod
    def fresh(cls, config: Config, log: EventLog) -> Supervisor:
        """Raises `OSError` when it cannot listen."""
        return cls(config, log, Listeners.open(config), Page.make(), _make_accounts())

    @classmethod
    def revived(cls, state: SupervisorState, config: Config | None, log: EventLog) -> Supervisor:
        """The supervisor after it executed itself. `config`: of the generation to start; None: its settings are bad."""
        before = msgspec.json.decode(state.config, type=Config)
        listeners = Listeners.inherited(state.public, state.private, state.rpc)
        self = cls(before, log, listeners, Page(state.page), state.accounts)
        os.close(self._bell)
        self._bell, self._bells, self._started_at = state.bell, dict(state.bells), state.started_at
        self._current = Generation(state.generation, before, state.processes)
        self._workers = {each.pid: Worker(each.pid, each.row, each.index, each.generation, each.orders)
                         for each in state.workers}  # fmt: skip
        self._has_served = True
        for fd in self._fds():
            os.set_inheritable(fd, False)
        if config is not None:
            self._coming = Generation(state.generation + 1, config, processes_for(config))
        return self

    def run(self) -> int:
        """Supervises until it is told to end; returns the exit code."""
        with _signals_as_bytes() as inbox, selectors.DefaultSelector() as selector:
            selector.register(inbox, selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while True:
                self._step()
                if self._is_stopping and not self._workers:
                    self._log.info("gateway ended")
                    return self._exit_code
                selector.select(self._timeout())
                self._listen_to(_drain(inbox))
                _silence(self._bell)

    # what happened

    @property
    def _is_stopping(self) -> bool:
        return self._stop_by != float("inf")

    def _listen_to(self, signals: bytes) -> None:
        if {signal.SIGTERM, signal.SIGINT} & {*signals}:
            self._stop()
        if signal.SIGHUP in signals:
            self._is_restart_wanted = True

    def _reap(self) -> None:
        for pid in list(self._workers):
            try:
                ended, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                ended, status = pid, 0
            if ended:
                self._bury(self._workers.pop(pid), os.waitstatus_to_exitcode(status))

    def _bury(self, worker: Worker, code: int) -> None:
        """A process ended: its row counts nothing any more, and its place may be taken again."""
        phase = self._page.get(worker.row, Field.PHASE)
        os.close(worker.orders)
        self._page.end(worker.row)
        self._ring_all()
        if self._is_stopping or (phase == Phase.RETIRING and code == 0):
            return
        if self._coming is not None and worker.generation == self._coming.number:
            self._give_up(f"a process of it ended at its start with code {code}")
        elif worker.generation != self._current.number:
            self._log.warning("gateway process ended", worker=worker.pid, code=code)
        elif not self._has_served:
            self._log.error("gateway process ended at its start", worker=worker.pid, code=code)
            self._exit_code = 1
            self._stop()
        else:
            self._log.error("gateway process ended; another takes its place", worker=worker.pid, code=code)
            self._delay(self._current, worker)

    @staticmethod
    def _delay(generation: Generation, worker: Worker) -> None:
        now = time.monotonic()
        failures = 0 if now - worker.started > SETTLED_S else generation.failures.get(worker.index, 0)
        generation.failures[worker.index] = failures + 1
        if failures:
            generation.not_before[worker.index] = now + min(MAX_BACKOFF_S, BACKOFF_S * 2.0**failures)

    # what to do

    def _step(self) -> None:
        self._reap()
        now = time.monotonic()
        for worker in self._workers.values():
            if now >= min(worker.kill_at, self._stop_by):
                os.kill(worker.pid, signal.SIGKILL)
        if self._is_stopping:
            return
        self._staff(self._current, now)
        if self._coming is not None:
            self._bring_in(self._coming, now)
        elif self._trial is not None:
            self._judge_trial(*self._trial, now)
        elif self._is_restart_wanted:
            self._is_restart_wanted = False
            self._trial = _start_trial(), now + TRIAL_TIMEOUT_S
        self._put_to_work(now)

    def _staff(self, generation: Generation, now: float) -> None:
        """Starts the processes that a generation lacks."""
        present = {worker.index for worker in self._of(generation)}
        for index in range(generation.processes):
            if index not in present and now >= generation.not_before.get(index, 0.0):
                self._start(generation, index)

    def _bring_in(self, generation: Generation, now: float) -> None:
        """Starts the coming generation; it is the current one once all of it could serve."""
        if now - generation.began > READY_TIMEOUT_S:
            self._give_up(f"it was not ready within {READY_TIMEOUT_S:.0f} s")
            return
        self._staff(generation, now)
        if self._count(generation, Phase.READY) == generation.processes:
            self._longest_drain_s = max(self._longest_drain_s, generation.config.limits.drain_timeout_s)
            self._current, self._coming = generation, None

    def _put_to_work(self, now: float) -> None:
        """Whoever of the current generation is ready serves; when all of it does, those before it may go."""
        current = self._current
        for worker in self._of(current):
            if self._page.get(worker.row, Field.PHASE) == Phase.READY:
                self._order(worker, SERVE)
        if self._count(current, Phase.SERVING) < current.processes:
            return
        self._has_served = True
        before = [w for w in self._workers.values() if w.generation < current.number and w.ordered != RETIRE]
        for worker in before:
            self._order(worker, RETIRE)
            worker.kill_at = now + self._longest_drain_s + KILL_AFTER_S
        if self._page.generation != current.number:
            self._page.generation = current.number
            self._log.info("gateway serves", generation=current.number, processes=current.processes)

    def _of(self, generation: Generation) -> list[Worker]:
        return [worker for worker in self._workers.values() if worker.generation == generation.number]

    def _count(self, generation: Generation, phase: Phase) -> int:
        return sum(self._page.get(worker.row, Field.PHASE) == phase for worker in self._of(generation))

    @staticmethod
    def _order(worker: Worker, order: bytes) -> None:
        if worker.ordered != order:
            worker.ordered = order
            with contextlib.suppress(BrokenPipeError, BlockingIOError):  # it ended, or hears nothing: its end is seen
                os.write(worker.orders, order + b"\n")

    def _give_up(self, reason: str) -> None:
        """The coming generation cannot serve: the current one goes on."""
        generation, self._coming = self._coming, None
        if generation is None:
            return
        self._log.error(
            "gateway not restarted; the processes before it go on", generation=generation.number, reason=reason
        )
        for worker in self._workers.values():
            if worker.generation == generation.number:
                worker.kill_at = time.monotonic() + KILL_AFTER_S
                os.kill(worker.pid, signal.SIGTERM)

    def _stop(self) -> None:
        if self._is_stopping:
            return
        self._stop_by = time.monotonic() + self._longest_drain_s + KILL_AFTER_S
        # Ours first: who connects after a process closed its own must be refused, not left to wait.
        self._listeners.close_public()
        for worker in self._workers.values():
            os.kill(worker.pid, signal.SIGTERM)

    def _timeout(self) -> float | None:
        """How long there is nothing to do unless something happens."""
        times = [self._stop_by, *(worker.kill_at for worker in self._workers.values())]
        times += [at for at in self._current.not_before.values() if at > time.monotonic()]
        if self._coming is not None:
            times.append(self._coming.began + READY_TIMEOUT_S)
        if self._trial is not None:
            times.append(self._trial[1])
        earliest = min(times)
        return None if earliest == float("inf") else max(0.0, earliest - time.monotonic()) + 0.001

    # processes

    def _start(self, generation: Generation, index: int) -> None:
        row = next(row for row in range(ROWS) if self._page.get(row, Field.PHASE) == Phase.NONE)
        self._listeners.grow(generation.processes)
        # Those of the whole generation and of the next: a process can ring only what it inherited.
        for other in range(max(row + 1, 2 * generation.processes)):
            if other not in self._bells:
                self._bells[other] = _make_bell()
        public, private, rpc = self._listeners.of(index, generation.processes)
        job = Job(
            config=generation.config,
            row=row,
            generation=generation.number,
            supervisor_pid=os.getpid(),
            started_at=self._started_at,
            public=public,
            private=private,
            rpc=rpc,
            page=self._page.fd,
            accounts=self._accounts,
            bells=self._bells,
            supervisor_bell=self._bell,
            await_table=self._has_tables(),
        )
        # Those that run must know of it before it is there: they count together from then on.
        self._page.start(row, generation.number)
        self._ring_all()
        process = subprocess.Popen(
            [sys.executable, "-m", "router.worker"],
            stdin=subprocess.PIPE,
            pass_fds=(*public, *private, *rpc, self._page.fd, self._accounts, self._bell, *self._bells.values()),
        )
        assert process.stdin is not None
        orders = os.dup(process.stdin.fileno())
        process.stdin.close()
        os.set_blocking(orders, False)
        os.write(orders, msgspec.json.encode(job) + b"\n")
        process.returncode = 0  # it is reaped here, not by `subprocess`
        self._workers[process.pid] = Worker(process.pid, row, index, generation.number, orders)

    def _has_tables(self) -> bool:
        """Whether anybody serves by a table: then nobody may serve without."""
        return any(self._page.get(worker.row, Field.TABLES) for worker in self._workers.values())

    def _ring_all(self) -> None:
        for worker in self._workers.values():
            os.eventfd_write(self._bells[worker.row], 1)

    # a hot restart

    def _judge_trial(self, trial: subprocess.Popen[bytes], until: float, now: float) -> None:
        """Goes on once the trial has shown that this code and these settings start."""
        code = trial.poll()
        if code is None:
            if now >= until:
                trial.kill()
            return
        self._trial = None
        assert trial.stdout is not None
        said = trial.stdout.read()[-2000:].decode(errors="replace").strip().splitlines()
        trial.stdout.close()
        if code:
            reason = said[-1] if said else f"the trial of the new settings ended with code {code}"
            self._log.error("gateway not restarted; it goes on as it is", reason=reason)
        else:
            self._execute_anew()

    def _execute_anew(self) -> None:
        """Becomes what stands on disk now. Returns only when that fails."""
        state = SupervisorState(
            layout=LAYOUT,
            generation=self._current.number,
            config=msgspec.Raw(msgspec.json.encode(self._current.config)),
            processes=self._current.processes,
            started_at=self._started_at,
            public=[each.fileno() for each in self._listeners.public],
            private=[each.fileno() for each in self._listeners.private],
            rpc=[each.fileno() for each in self._listeners.rpc],
            page=self._page.fd,
            accounts=self._accounts,
            bells=self._bells,
            bell=self._bell,
            workers=[WorkerState(w.pid, w.row, w.index, w.generation, w.orders) for w in self._workers.values()],
        )
        self._log.info("gateway restarting", generation=self._current.number + 1)
        # A signal that comes in between waits: the mask outlives `execv`, a handler does not.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        for fd in self._fds():
            os.set_inheritable(fd, True)
        try:
            environment = {**os.environ, STATE_VARIABLE: msgspec.json.encode(state).decode()}
            os.execve(sys.executable, sys.orig_argv, environment)
        except OSError as exc:
            for fd in self._fds():
                os.set_inheritable(fd, False)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            self._log.error("gateway not restarted; it goes on as it is", reason=str(exc))

    def _fds(self) -> list[int]:
        orders = [worker.orders for worker in self._workers.values()]
        return [*self._listeners.fds, self._page.fd, self._accounts, self._bell, *self._bells.values(), *orders]


def _start_trial() -> subprocess.Popen[bytes]:
    """Reads the settings with the code as it is now, in a process of its own: a bad one ends nobody else."""
    return subprocess.Popen(
        [sys.executable, *sys.orig_argv[1:], "--check"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@contextlib.contextmanager
def _signals_as_bytes() -> Iterator[int]:
    """The read end of a pipe that gets a byte for each signal that came."""
    inbox, outbox = os.pipe()
    for fd in (inbox, outbox):
        os.set_blocking(fd, False)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(outbox, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield inbox
    finally:
        signal.set_wakeup_fd(-1)
        os.close(inbox)
        os.close(outbox)


def _drain(fd: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 4096)
    return b""


def _make_bell() -> int:
    return os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)


def _silence(bell: int) -> None:
    with contextlib.suppress(BlockingIOError):
        os.eventfd_read(bell)


def _make_accounts() -> int:
    return os.memfd_create("modelfleet-accounts", os.MFD_CLOEXEC)


def take_state() -> SupervisorState | None:
    """What this process was before it executed itself anew; None for a fresh start."""
    raw = os.environ.pop(STATE_VARIABLE, None)
    return msgspec.json.decode(raw, type=SupervisorState) if raw else None
