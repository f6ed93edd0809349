"""A package installed into a folder, and the tools of this environment run with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PIP = (
    *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
    *("--no-deps", "--no-build-isolation", "--no-index"),
)
TW = (sys.executable, "-c", "from tilewright.compiler.cli import main; main()")


@dataclass(frozen=True)
class Installation:
    """`site` is on the module path of every command; they run in `folder`."""

    folder: Path
    site: Path
    source: Path

    def run(self, *command: object) -> subprocess.CompletedProcess[str]:
        """A command of this environment, with the package."""
        return subprocess.run(
            [str(part) for part in command],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.site)},
            capture_output=True,
            text=True,
            check=False,
        )

    def output(self, *command: object) -> str:
        """What a command prints that succeeds without a word on stderr."""
        done = self.run(*command)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout

    def tw(self, *arguments: object) -> str:
        """What `tw` prints."""
        return self.output(*TW, *arguments)

    def json(self, *arguments: object) -> Any:
        """The document that `tw` prints."""
        return json.loads(self.tw(*arguments, "--json"))

    def tool(self, name: str, *arguments: object) -> str:
        """What a command beside this Python prints."""
        return self.output(Path(sys.executable).with_name(name), *arguments)


def install(package: Path, folder: Path) -> Installation:
    """Install a copy of `package`, without the network, into a folder of its own."""
    installation = Installation(folder, folder / "site", folder / "source")
    shutil.copytree(package, installation.source, ignore=shutil.ignore_patterns("__pycache__"))
    installation.output(*PIP, "--target", installation.site, installation.source)
    return installation
