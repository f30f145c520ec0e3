"""Wheels on this host's disk that a build would not see: its container knows nothing of a local `find-links`.

Says where pip was told to look (`PIP_FIND_LINKS` and pip's own files), and which wheels there a build has a use for:
those that its requirements name, and what those in turn require. Some packages come best this way: a build of PyTorch
for CPUs alone, or what a company keeps for itself.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

_SETTINGS = ("find-links", "index-url", "extra-index-url", "trusted-host", "cert")
_SECTIONS = ("global", "install")
_WHEEL = re.compile(r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-\d[^-]*)?-(?P<python>[^-]+)-[^-]+-(?P<platform>[^-]+)\.whl")
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^]]*\])?\s*(?:==\s*(?P<version>[^\s;,\\*]+))?")


class Wanted(NamedTuple):
    """A package by its normalised name; `version` is "" where any will do."""

    name: str
    version: str


def with_pip_files(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ`, and as variables of pip what its configuration files say where no variable does."""
    said: dict[str, str] = {}
    for file in _pip_files(environ):
        said |= _settings_of(file)
    return {**said, **environ}


def matching(environ: Mapping[str, str], requirements: Iterable[str]) -> list[Path]:
    """The wheels in this host's `find-links` that builds of `requirements` (texts of such files) may want."""
    wheels = [wheel for directory in _directories(environ) for wheel in sorted(directory.glob("*.whl"))]
    wanted = {each for text in requirements for each in _named_in(text)}
    found: dict[str, Path] = {}
    while wanted:
        new = {wheel.name: wheel for wheel in wheels if wheel.name not in found and _is_wanted(wheel, wanted)}
        found |= new
        wanted = {each for wheel in new.values() for each in _required_by(wheel)}
    return list(found.values())


def _directories(environ: Mapping[str, str]) -> Iterator[Path]:
    for place in environ.get("PIP_FIND_LINKS", "").split():
        path = Path(unquote(urlsplit(place).path)) if place.startswith("file:") else Path(place).expanduser()
        if path.is_dir():
            yield path


def _is_wanted(wheel: Path, wanted: set[Wanted]) -> bool:
    """By name and version. Whether it fits the image's Python is pip's to say: this host may have another one."""
    match = _WHEEL.fullmatch(wheel.name)
    if match is None or not ("linux" in match["platform"] or match["platform"] == "any"):
        return False
    name, public = normalised(match["name"]), match["version"].partition("+")[0]
    return any(Wanted(name, version) in wanted for version in ("", public, match["version"]))


def _named_in(text: str) -> Iterator[Wanted]:
    for line in text.splitlines():
        if match := _REQUIREMENT.match(line):
            yield Wanted(normalised(match["name"]), "" if "*" in line else match["version"] or "")


def _required_by(wheel: Path) -> Iterator[Wanted]:
    try:
        with zipfile.ZipFile(wheel) as archive:
            (metadata,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
            text = archive.read(metadata).decode()
    except (OSError, ValueError, zipfile.BadZipFile):
        return  # pip will say what is wrong with it
    for line in text.partition("\n\n")[0].splitlines():
        field, _, requirement = line.partition(": ")
        if field == "Requires-Dist" and "extra ==" not in requirement:
            # Its own bounds are looked at by pip.
            yield from (Wanted(each.name, "") for each in _named_in(requirement))


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    """pip's own order, later ones win: https://pip.pypa.io/en/stable/topics/configuration/"""
    named = environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        return []
    home = Path(environ.get("HOME") or "/nonexistent")
    shared = [Path(directory, "pip/pip.conf") for directory in environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    own = [home / ".pip/pip.conf", Path(environ.get("XDG_CONFIG_HOME") or home / ".config", "pip/pip.conf")]
    return [*shared, Path("/etc/pip.conf"), *own, Path(sys.prefix, "pip.conf"), *([Path(named)] if named else [])]


def _settings_of(file: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(file.read_text(), str(file))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}  # absent, or not pip's: pip itself complains of it
    sections = [parser[section] for section in _SECTIONS if parser.has_section(section)]
    found = {key: section[key] for section in sections for key in _SETTINGS if key in section}
    return {f"PIP_{key.upper().replace('-', '_')}": value for key, value in found.items()}
