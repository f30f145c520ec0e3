"""The stages of a Dockerfile that one target needs: the legacy builder would build every stage above the target.

Reads `FROM` and `COPY --from=` alone, which is all by which our stages know each other. Pure: text in, text out.
"""

from __future__ import annotations

import re

_FROM = re.compile(r"^FROM\s+(?P<parent>\S+)(?:\s+AS\s+(?P<name>\S+))?\s*$", re.IGNORECASE)
_COPY = re.compile(r"^COPY\s+--from=(?P<stage>\S+)", re.IGNORECASE)


def needed(dockerfile: str, target: str) -> str:
    """`dockerfile` without the stages that `target` does not rest on. Unchanged when it has no such target."""
    head, stages = _split(dockerfile)
    by_name = dict(stages)
    if target not in by_name:
        return dockerfile
    keep: set[str] = set()
    wanted = [target]
    while wanted:
        name = wanted.pop()
        if name in by_name and name not in keep:
            keep.add(name)
            wanted += _rests_on(by_name[name])
    return head + "".join(text for name, text in stages if name in keep)


def _split(dockerfile: str) -> tuple[str, list[tuple[str, str]]]:
    """What precedes the first stage, and each stage's name and text."""
    head = ""
    stages: list[tuple[str, str]] = []
    for line in dockerfile.splitlines(keepends=True):
        if match := _FROM.match(line):
            stages.append((match["name"] or str(len(stages)), line))
        elif stages:
            name, text = stages[-1]
            stages[-1] = (name, text + line)
        else:
            head += line
    return head, stages


def _rests_on(stage: str) -> list[str]:
    lines = stage.splitlines()
    found = [match["parent"] for line in lines if (match := _FROM.match(line))]
    return found + [match["stage"] for line in lines if (match := _COPY.match(line))]
