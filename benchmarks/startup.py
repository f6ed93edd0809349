"""How long `tw --help` and importing the compiler take, as whole processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

from timing import report, seconds

ROUNDS = 9
HELP_LIMIT_S = 0.3
IMPORT_LIMIT_S = 0.5


def main() -> None:
    """Print medians beside their limits, and an empty interpreter for comparison."""
    tw = Path(sys.executable).with_name("tw")
    commands = {
        "python -c pass": ([sys.executable, "-c", "pass"], float("inf")),
        "tw --help": ([str(tw), "--help"], HELP_LIMIT_S),
        "import tilewright.compiler": (
            [sys.executable, "-c", "import tilewright.compiler"],
            IMPORT_LIMIT_S,
        ),
        "import tilewright.compiler.dsl and .executable": (
            [
                sys.executable,
                "-c",
                "import tilewright.compiler.dsl, tilewright.compiler.executable",
            ],
            float("inf"),
        ),
    }
    for name, (command, limit) in commands.items():

        def run(command: list[str] = command) -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        run()
        report(name, median(seconds(run) for _ in range(ROUNDS)), limit, "s")


if __name__ == "__main__":
    main()
