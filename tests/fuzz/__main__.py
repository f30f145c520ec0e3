"""`make fuzz`: every target in turn, guided by coverage where Atheris is installed, for `--seconds` in all.

Ends with the number of cases and what was reached, and with 1 when something did not hold: then it prints the line that
belongs in `corpus/TARGET.txt`, where every test run plays it from then on.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .corpus import HERE, WORDS, keep, kept, seeds
from .mutating import mutated
from .targets import TARGETS

# How much of the time each gets: whole gateways have the most to reach.
SHARES = {
    "client": 8, "replica": 6, "frames": 6, "chunks": 2, "fields": 2, "messages": 1, "heads": 2, "paths": 1, "tables": 1,
    "tables_near": 1,
}  # fmt: skip
# A case that takes longer than this hangs.
CASE_S = 20
KEPT_BYTES = 60_000  # of one target's corpus file: it is read by people


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="only this; may be repeated")
    parser.add_argument("--keep", action="store_true", help="write the inputs that reach something new into the corpus")
    options = parser.parse_args()
    chosen = options.target or list(TARGETS)
    whole = sum(SHARES[name] for name in chosen)
    run = guided if importlib.util.find_spec("atheris") else unguided
    print(f"fuzz: {'guided by Atheris' if run is guided else 'no Atheris here: mutating without coverage'}", flush=True)
    failed = [name for name in chosen if not run(name, options.seconds * SHARES[name] / whole, options.keep)]
    print(f"fuzz: failed: {', '.join(failed)}" if failed else "fuzz: clean")
    return 1 if failed else 0


def guided(name: str, seconds: float, is_kept: bool) -> bool:
    with tempfile.TemporaryDirectory(prefix="modelfleet-fuzz-") as place:
        corpus, words, cases = Path(place, "corpus"), Path(place, "words"), seeds(name)
        corpus.mkdir()
        for number, case in enumerate(cases):
            (corpus / f"{number}").write_bytes(case)
        words.write_text("".join(f'"{quoted(word)}"\n' for word in WORDS))
        flags = [
            f"-dict={words}",
            "-max_len=2048",
            f"-timeout={CASE_S}",
            f"-artifact_prefix={place}/",
            "-print_final_stats=1",
        ]
        output = libfuzzer(name, corpus, f"-max_total_time={max(1, int(seconds))}", *flags)
        for path in (*Path(place).glob("crash-*"), *Path(place).glob("timeout-*")):
            return report(name, path.read_bytes(), output[-3000:])
        count = re.search(r"number_of_executed_units: (\d+)", output)
        reached = re.findall(r"cov: (\d+) ft: (\d+)", output)
        if count is None:
            return report(name, b"", output[-3000:])
        print(f"fuzz: {name}: {count[1]} cases, {reached[-1] if reached else '?'} edges and features", flush=True)
        if is_kept:
            given = {str(number) for number in range(len(cases))}
            keep_few(name, [path.read_bytes() for path in corpus.iterdir() if path.name not in given])
    return True


def quoted(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def libfuzzer(name: str, corpus: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "tests.fuzz.one", name, str(corpus), *arguments]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    ).stdout


def keep_few(name: str, found: list[bytes]) -> None:
    """Besides what was kept before, the shortest that reached something new, up to a size that can be read."""
    chosen = kept(name)
    for case in sorted(found, key=len):
        if sum(len(repr(one)) + 1 for one in chosen) + len(repr(case)) > KEPT_BYTES:
            break
        chosen.append(case)
    keep(name, chosen)
    print(f"fuzz: {name}: {len(found)} inputs reached something new; {len(chosen)} are kept in {HERE / name}.txt")


def unguided(name: str, seconds: float, is_kept: bool) -> bool:
    chance, cases, count = random.Random(), seeds(name), 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        case = mutated(chance, cases)
        count += 1
        try:
            TARGETS[name](case)
        except Exception as exc:
            return report(name, case, repr(exc))
    print(f"fuzz: {name}: {count} cases", flush=True)
    return True


def report(name: str, case: bytes, why: str) -> bool:
    print(f"fuzz: {name} does not hold:\n{why}\nfuzz: the line for tests/fuzz/corpus/{name}.txt:\n{case!r}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
