"""A folder left out of `packages` works in an editable install and vanishes from the wheel: so they
are compared here.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
ROOMS = ("dialects", "backends", "passes", "compiler", "testing")


def _setuptools() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["setuptools"]


def test_packages_listed_equal_the_folders():
    listed = set(_setuptools()["packages"])
    folders = {
        ".".join(("tilewright", *path.parent.relative_to(ROOT).parts))
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    assert listed == folders


def test_every_package_has_an_init_and_every_room_its_type_marker():
    for name in _setuptools()["packages"]:
        folder = ROOT.joinpath(*name.split(".")[1:])
        assert (folder / "__init__.py").is_file(), name
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file()


def test_type_checkers_see_the_rooms():
    for room in ROOMS:
        link = ROOT / "typings" / "tilewright" / room
        assert link.is_symlink()
        assert link.resolve() == (ROOT / room).resolve()


def test_data_files_of_packages_are_in_the_wheel_patterns():
    patterns = {pattern.lstrip("*") for pattern in _setuptools()["package-data"]["*"]}
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and path.suffix not in (".py", ".pyc", ".nbi", ".nbc"):
                assert path.suffix in patterns or path.name in patterns, path
