"""`tw doctor`: is this installation sound?"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

from tilewright.compiler.cli.output import print_json, print_table
from tilewright.dialects.errors import InternalError, OptionError, TilewrightError
from tilewright.dialects.plugins import Installed, Kind, discover, require_modules

PACKAGES = (
    *("tilewright", "xdsl", "numpy", "numba", "ml-dtypes", "msgspec", "typer"),
    *("lark", "hypothesis", "threadpoolctl"),
)
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


def run_doctor(*, json: bool) -> int:
    """Print what was checked; returns 0 if all is well, else 1."""
    checks = [
        _check("python", _python),
        *[_check(f"package {name}", lambda name=name: version(name)) for name in PACKAGES],
        _check("chips", _chips),
        _check("passes and ops", _catalogue),
        *[_check(f"plugin {each.name}", lambda each=each: _plugin(each)) for each in discover()],
        _check("compile, run, compare", _small_model),
    ]
    ok = all(check.ok for check in checks)
    if json:
        print_json(
            {
                "ok": ok,
                "checks": [{"name": c.name, "ok": c.ok, "detail": c.detail} for c in checks],
            }
        )
    else:
        print_table(("check", "ok", "detail"), [(c.name, c.ok, c.detail) for c in checks])
    return 0 if ok else 1


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except TilewrightError as error:
        why = f" ({' '.join(error.why.split())})" if error.why else ""
        return Check(name, False, f"[{error.code}] {error.what}{why}")
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}")


def _python() -> str:
    if sys.version_info[:2] < OLDEST_PYTHON:
        raise RuntimeError(f"Python 3.11 or newer is needed, this is {platform.python_version()}")
    return f"{platform.python_version()} on {platform.machine()}"


def _chips() -> str:
    from tilewright.backends.chip import CHIP_NAMES, load_chip

    return ", ".join(load_chip(name).name for name in CHIP_NAMES)


def _catalogue() -> str:
    from tilewright.dialects.documentation import op_reference
    from tilewright.passes.registry import PASSES

    for load in PASSES.values():
        load()
    return f"{len(PASSES)} passes, {len(op_reference())} ops"


def _plugin(each: Installed) -> str:
    """Load everything that a plugin gives, and say how much that is."""
    from tilewright.backends.chip import load_chip
    from tilewright.compiler.execution.registry import find_backend
    from tilewright.compiler.importers.registry import importer
    from tilewright.compiler.workbench.pipelines import passes_from_text
    from tilewright.dialects.context import dialect_of_plugin
    from tilewright.passes.registry import find_pass

    if each.plugin is None:
        raise each.error or InternalError(f"{each.label} has neither a plugin nor an error")
    require_modules(each)
    loaders: dict[Kind, Callable[[str], object]] = {
        "dialects": dialect_of_plugin,
        "passes": find_pass,
        "pipelines": passes_from_text,
        "chips": load_chip,
        "importers": importer,
        "backends": find_backend,
    }
    given: list[str] = []
    for kind, load in loaders.items():
        names = each.plugin.names(kind)
        for name in names:
            load(name)
        if names:
            given.append(f"{kind} {', '.join(names)}")
    for file in each.plugin.rules:
        if not file.is_file():
            raise OptionError(f"{each.label}: there is no rules file {file}")
    if each.plugin.rules:
        given.append(f"rules {', '.join(file.name for file in each.plugin.rules)}")
    return f"{each.package} {each.version}: {'; '.join(given) or 'nothing'}"


def _small_model() -> str:
    from tilewright.compiler.artifact import open_artifact
    from tilewright.compiler.cli.run_verb import language_model_of
    from tilewright.compiler.compare import compare_function, first_out_of_bound
    from tilewright.compiler.compile import compile_to_artifact
    from tilewright.compiler.importers.synthetic import CHATGLM_DEMO, write_checkpoint
    from tilewright.compiler.pipeline import CompileOptions
    from tilewright.dialects.context import parse_module

    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, path = Path(folder) / "model", Path(folder) / "model.twm"
        write_checkpoint(checkpoint, {**CHATGLM_DEMO, "num_layers": 1})
        compile_to_artifact(checkpoint, path, CompileOptions(), seq=16)
        artifact = open_artifact(path)
        language_model = language_model_of(artifact, path)
        module = parse_module(artifact.module_text, "module.mlir")
        inputs = language_model.prefill_inputs([1, 2, 3])
        _, rows = compare_function(language_model.session, module, "prefill", inputs)
    worst = first_out_of_bound(rows)
    if worst is not None:
        raise RuntimeError(f"{worst.name} is {worst.ratio:.2f} times its error bound")
    return f"{len(rows)} ops within their bounds, {perf_counter() - start:.1f} s"
