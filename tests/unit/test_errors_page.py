"""docs/ERRORS.md against the code: every code that can be answered, with its status, and every exit code, is explained."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from worker_image.server.errors import EXIT_CODES, STATUS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ERRORS.md").read_text()
CODE = re.compile(r"[A-Z][A-Z_]+")


def section(title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    text = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def explained(who: str) -> set[tuple[int, str]]:
    """Status and code of each row that `who` answers with."""
    return {
        (int(status), row[1].strip("`")) for row in section("Answers") if who in row[2] for status in row[0].split(", ")
    }


def answered_by_the_gateway() -> set[tuple[int, str]]:
    """What `Refusal(status, code, …)`, `malformed(…, status, code)` and `too_large(status, …)` name in its source."""
    found: set[tuple[int, str]] = set()
    for path in (ROOT / "router").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                found |= _named(node)
    return found


def _named(call: ast.Call) -> set[tuple[int, str]]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [a.value for a in [*call.args, *(k.value for k in call.keywords)] if isinstance(a, ast.Constant)]
    statuses = [value for value in given if isinstance(value, int) and 400 <= value < 600]
    codes = [value for value in given if isinstance(value, str) and CODE.fullmatch(value)]
    if name == "too_large" and statuses:
        return {(statuses[0], "TOO_LARGE")}
    return {(statuses[0], codes[0])} if name in ("Refusal", "malformed") and statuses and codes else set()


def test_explains_every_answer_of_the_model_server() -> None:
    assert explained("model") == {(status, code) for code, status in STATUS.items()}


def test_explains_every_answer_of_the_gateway() -> None:
    wanted = answered_by_the_gateway()

    assert len(wanted) > 15
    assert wanted - explained("gateway") == set()
    assert {code for _, code in explained("gateway")} == {code for _, code in wanted}


def test_explains_every_exit_code_of_the_model_server() -> None:
    told = {(int(row[0]), row[1].strip("`")) for row in section("How a replica ended") if row[1]}

    assert told == {(exit_code, code) for code, exit_code in EXIT_CODES.items()}


def test_names_the_fields_of_an_answer() -> None:
    assert all(f'"{field}"' in PAGE.split("## Answers")[0] for field in ("error", "code", "request_id"))
