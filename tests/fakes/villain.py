"""A model that does what its caller says, and most of it is bad: for tests of what everybody else notices.

`ask(...)` builds the tensor. "well" is answered with 1.0 for each row; `SOURCE` says what the other words do.
"""

from __future__ import annotations

from typing import Any

SOURCE = '''
import ctypes, os, socket, subprocess, sys, threading, time

class Model:
    inputs = [{"name": "act", "datatype": "BYTES", "shape": [-1]}]
    warmup_example = {"act": ["well"]}

    def load(self, path):
        self.path, self.leaked, self.calls = path, [], 0

    def predict(self, inputs):
        acts = [str(act) for act in inputs["act"]]
        for act in acts:
            if act in GARBAGE:
                return GARBAGE[act](len(acts))
            getattr(self, act)()
        return [1.0] * len(acts)

    def well(self): ...

    def pause(self):
        print("pausing", flush=True)
        time.sleep(0.5)

    def raises(self): raise RuntimeError("the weights are cursed")
    def fails_slowly(self):
        time.sleep(0.3)
        raise RuntimeError("cursed, after all")

    def refuses(self): raise ValueError("too cold for this model")
    def exits(self): sys.exit(3)
    def interrupts(self): raise KeyboardInterrupt
    def exits_at_once(self): os._exit(3)
    def crashes(self): ctypes.string_at(0)

    def sleeps(self):
        print("sleeping", flush=True)
        time.sleep(3600)

    def deadlocks(self):
        print("deadlocked", flush=True)
        ctypes.PyDLL(None).sleep(3600)

    def every_third(self):
        self.calls += 1
        if self.calls % 3 == 0:
            raise RuntimeError("every third time")

    def leaks(self):
        # urandom, for a page of zeros costs nothing
        self.leaked.append(os.urandom(32 << 20))

    def forks(self):
        """Children that outlive their parent's wish: each sleeps on."""
        for _ in range(500):
            if os.fork() == 0:
                time.sleep(3600)
                os._exit(0)

    def orphans(self):
        """A child whose own child ends without anybody who waits for it."""
        if (child := os.fork()) == 0:
            if os.fork() == 0:
                os._exit(0)
            os._exit(0)
        os.waitpid(child, 0)

    def counts_zombies(self):
        states = [open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[0] for pid in os.listdir("/proc") if pid.isdigit()]
        if "Z" in states:
            raise RuntimeError(f"{states.count('Z')} zombies")

    def writes(self):
        for place in (self.path / "model.py", "/opt/modelfleet/x"):
            open(place, "a")

    def fills_tmp(self):
        try:
            with open("/tmp/full", "wb") as file:
                for _ in range(100):
                    file.write(bytes(1 << 20))
        finally:
            os.unlink("/tmp/full")

    def connects(self): socket.create_connection(("1.1.1.1", 53), timeout=5)

    def prints(self):
        for _ in range(40):
            sys.stdout.write(("x" * 1023 + "\\n") * 1024)

    def ignores_sigterm(self):
        """From a thread Python refuses to; the C library does not."""
        ctypes.CDLL(None).signal(15, ctypes.c_void_p(1))

    def leaves_threads(self):
        for _ in range(3):
            threading.Thread(target=time.sleep, args=(3600,), daemon=False).start()

    def closes_stderr(self):
        os.close(2)
        sys.stderr = None

    def monkeypatches(self):
        import json, logging
        time.sleep = json.dumps = logging.Logger.handle = print = None

class Odd:
    def __str__(self): return "odd"

GARBAGE = {
    "answers_none": lambda rows: None,
    "answers_too_few": lambda rows: [1.0] * (rows - 1) if rows > 1 else [],
    "answers_too_many": lambda rows: [1.0] * (rows + 1),
    "answers_one_number": lambda rows: 1.0,
    "answers_ragged": lambda rows: [[1.0], [1.0, 2.0]],
    "answers_objects": lambda rows: [Odd()] * rows,
    "answers_nan": lambda rows: [float("nan")] * rows,
    "answers_a_module": lambda rows: os,
    "answers_sets": lambda rows: {"output": {1, 2, 3}},
}
'''


def ask(*acts: str) -> dict[str, Any]:
    """A request with one row for each act."""
    return {"inputs": [{"name": "act", "datatype": "BYTES", "shape": [len(acts)], "data": list(acts)}]}
