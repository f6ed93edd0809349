"""The installed packages that name an entry point group.

`importlib.metadata` answers the same, but takes ten times as long: it is imported with all that it
needs, and reads every package's metadata.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """An installed package with its entry points of one group: `module:attribute` by name."""

    name: str
    version: str
    entry_points: Mapping[str, str]


def packages_with(group: str) -> Iterator[Package]:
    """The packages in the folders of `sys.path` with entry points of `group`, in that order.

    Of two with one name the first counts, as it does for imports. Packages in zip files are not
    looked into.
    """
    seen: set[str] = set()
    for folder in _metadata_folders():
        points = _section(_read(f"{folder}/entry_points.txt"), group)
        if not points:
            continue
        header = _header(_read(f"{folder}/METADATA") or _read(f"{folder}/PKG-INFO"))
        name = header.get("name", os.path.basename(folder).partition("-")[0])
        if name not in seen:
            seen.add(name)
            yield Package(name, header.get("version", "unknown"), points)


def _metadata_folders() -> Iterator[str]:
    for directory in dict.fromkeys(sys.path):
        try:
            names = sorted(os.listdir(directory or "."))
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                yield f"{directory or '.'}/{name}"


def _read(path: str) -> str:
    """The text of a file; empty where there is none that can be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _section(text: str, group: str) -> dict[str, str]:
    """The lines `name = value` under `[group]` of an `entry_points.txt`; extras are left out."""
    if f"[{group}]" not in text:
        return {}
    found: dict[str, str] = {}
    section = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("["):
            section = line.strip("[]").strip()
        elif section == group and line and line[0] not in "#;":
            name, _, value = line.partition("=")
            found[name.strip()] = value.partition("[")[0].strip()
    return found


def _header(text: str) -> dict[str, str]:
    """The fields before the first empty line of core metadata, by name in small letters."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        if not line:
            break
        name, _, value = line.partition(":")
        fields.setdefault(name.lower(), value.strip())
    return fields
