"""How long `tw --help`, `tw opt` on a small file and importing the compiler take, whole processes.

`xdsl-opt` on a module of its own dialects stands beside `tw opt`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import median

from timing import report, seconds

ROUNDS = 9
HELP_LIMIT_S = 0.3
OPT_LIMIT_S = 0.6
SMALL = "func.func @f() { func.return }"
IMPORT_LIMIT_S = 0.5


def main() -> None:
    """Print medians beside their limits, and an empty interpreter for comparison."""
    tw = Path(sys.executable).with_name("tw")
    commands = {
        "python -c pass": ([sys.executable, "-c", "pass"], float("inf")),
        "tw --help": ([str(tw), "--help"], HELP_LIMIT_S),
        "tw opt": ([str(tw), "opt"], OPT_LIMIT_S),
        "xdsl-opt": ([str(tw.with_name("xdsl-opt"))], float("inf")),
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
            subprocess.run(command, input=SMALL, text=True, check=True, stdout=subprocess.DEVNULL)

        run()
        report(name, median(seconds(run) for _ in range(ROUNDS)), limit, "s")


if __name__ == "__main__":
    main()
