"""What a failure leaves behind: a folder with all that is needed to see it again.

    input.mlir       what the pipeline began with
    before.mlir      what the failing pass was given
    after.mlir       what it has made of that, if it finished
    inputs.npz       the arguments of the public functions that differences were found with
    files/           the files that were loaded (`tw --load FILE`), as they were, with the modules
                     that they import from beside them, and the rules of their passes
    reproducer.json  the failure, the pipeline, seed and case of inputs, versions
    README.md        the command that replays it

The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.compiler.output import storage_errors
from tilewright.compiler.workbench.bisect import bisect_steps
from tilewright.compiler.workbench.equivalence import CheckOptions, chip_of, module_before
from tilewright.compiler.workbench.failures import Failure, failure_of
from tilewright.compiler.workbench.inputs import GeneratedInputs, InputCase
from tilewright.compiler.workbench.pipelines import passes_from_text, pipeline_text
from tilewright.compiler.workbench.runner import Instrument, PassRun
from tilewright.dialects.context import parse_module, print_module
from tilewright.dialects.errors import ModelReadError, TilewrightError
from tilewright.dialects.plugins import PluginFile, installed_plugins, load_file, loaded_files
from tilewright.passes.rules.rule_pass import RulePass

INPUT, BEFORE, AFTER = "input.mlir", "before.mlir", "after.mlir"
INPUTS, DESCRIPTION, README = "inputs.npz", "reproducer.json", "README.md"
FILES = "files"
FORMAT = 1
"""Of `reproducer.json`."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Reproducer:
    """A failure with what is needed to see it again."""

    failure: Failure
    input: ModuleOp
    before: ModuleOp
    passes: tuple[ModulePass, ...]
    """The whole pipeline; the failing pass is number `failure.pass_number` of it."""
    options: CheckOptions
    versions: Mapping[str, str] = field(default_factory=lambda: versions_here())
    plugins: tuple[str, ...] = field(
        default_factory=lambda: tuple(plugin.name for plugin in installed_plugins())
    )
    files: tuple[PluginFile, ...] = field(default_factory=loaded_files)
    after: ModuleOp | None = None

    @property
    def failing_pass(self) -> ModulePass:
        return self.passes[self.failure.pass_number - 1]

    def write(self, folder: Path) -> Path:
        """Write it into a new folder inside `folder`, which is returned. Raises `StorageError`."""
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            partial = folder / f".{secrets.token_hex(4)}.partial"
            try:
                partial.mkdir()
                self._fill(partial)
                return _take_name(partial, folder, self._name())
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise

    def _name(self) -> str:
        return f"{self.failure.pass_name}-{self.failure.kind.replace(' ', '-')}"

    def _fill(self, folder: Path) -> None:
        (folder / INPUT).write_text(print_module(self.input), "utf-8")
        (folder / BEFORE).write_text(print_module(self.before), "utf-8")
        if self.after is not None:
            (folder / AFTER).write_text(print_module(self.after), "utf-8")
        for path, source in _sources(self.files).items():
            kept = folder / FILES / path
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_bytes(source)
        with (folder / INPUTS).open("wb") as file:
            arrays = argument_arrays(self.input, self.options)
            np.savez_compressed(file, allow_pickle=False, **arrays)
        text = json.dumps(self._description(), indent=2, ensure_ascii=False)
        (folder / DESCRIPTION).write_text(text + "\n", "utf-8")
        (folder / README).write_text(self._readme(), "utf-8")

    def _description(self) -> dict[str, object]:
        first = self.failure.pass_number - 1
        return {
            "format": FORMAT,
            "failure": self.failure.to_json(),
            "pipeline": pipeline_text(self.passes, all_options=True),
            "failing_pass": pipeline_text(self.passes[first : first + 1], all_options=True),
            "pipeline_from_failing_pass": pipeline_text(self.passes[first:], all_options=True),
            "chip": chip_of(self.passes).name,
            "seed": self.options.seed,
            "cases": list(self.options.cases),
            "versions": dict(self.versions),
            "plugins": list(self.plugins),
            "files": [each.package for each in self.files],
        }

    def _readme(self) -> str:
        failure = self.failure
        step = f", pattern {failure.pattern} at {failure.op}" if failure.pattern else ""
        return (
            f"# {failure.kind} in {failure.pass_name}{step}\n\n"
            f"```\n{failure.message}\n```\n\n"
            "Replay it, here in this folder:\n\n"
            "```\ntw replay .\n```\n\n"
            "`tw opt --run-reproducer .` is the same. `tw bisect .` finds the first bad step of "
            "the pass, `tw reduce .` the smallest model that still fails.\n"
        )

    @staticmethod
    def read(folder: Path) -> Reproducer:
        """The reproducer in `folder`; its files are loaded, but not over those of the same name
        that are. Raises `ModelReadError` where there is none, or it is not whole, and what its
        files and its IR raise when they are read."""
        document = _document(folder)
        _load_files(folder, document.get("files"))
        failure = document.get("failure")
        pipeline, seed, cases = (document.get(key) for key in ("pipeline", "seed", "cases"))
        if (
            not isinstance(failure, dict)
            or not isinstance(pipeline, str)
            or not isinstance(seed, int)
            or not isinstance(cases, list)
        ):
            raise ModelReadError("the reproducer is not whole", where=str(folder / DESCRIPTION))
        known = {case: case for case in get_args(InputCase)}
        versions, plugins = document.get("versions"), document.get("plugins")
        return Reproducer(
            Failure.from_json(failure),
            _read_module(folder / INPUT),
            _read_module(folder / BEFORE),
            tuple(passes_from_text(pipeline)),
            CheckOptions(seed, tuple(known[case] for case in cases if case in known)),
            {str(k): str(v) for k, v in versions.items()} if isinstance(versions, dict) else {},
            tuple(str(name) for name in plugins) if isinstance(plugins, list) else (),
        )


@dataclass
class ReproducerWriter(Instrument):
    """Finds the step of a failing pass that is at fault, says so in the error, and writes a
    reproducer into `folder` (None: writes nothing). It must stand before other instruments that
    raise."""

    folder: Path | None
    options: CheckOptions = field(default_factory=CheckOptions)
    find_step: bool = True
    written: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._input: ModuleOp | None = None
        self._passes: tuple[ModulePass, ...] = ()

    def begin(self, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
        self._input, self._passes = module.clone(), tuple(passes)

    def pass_failed(self, run: PassRun, error: Exception) -> None:
        if self._input is None:
            return
        failure = failure_of(error, run.pass_, run.number)
        before = module_before(self._input, self._passes, run.number)
        if self.find_step:
            found = bisect_steps(failure, run.pass_, before, self.options, inputs_of=self._input)
            failure = found.failure
        if isinstance(error, TilewrightError) and failure.pattern:
            step = f"{failure.pattern} (step {failure.step} of {failure.steps}) at {failure.op}"
            error.where = f"{error.where}; by {step}" if error.where else f"by {step}"
        if self.folder is None:
            return
        finished = failure.kind in ("miscompilation", "illegal IR")
        self.written = Reproducer(
            failure,
            self._input,
            before,
            self._passes,
            self.options,
            after=run.module if finished else None,
        ).write(self.folder)

    def kept(self) -> str | None:
        return None if self.written is None else f"tw replay {self.written} shows it again"


def argument_arrays(module: ModuleOp, options: CheckOptions) -> dict[str, Array]:
    """The arguments of the public functions, by `case.function.index`."""
    inputs = [GeneratedInputs(module, seed=options.seed, case=case) for case in options.cases]
    return {f"{each.case}.{name}": a for each in inputs for name, a in each.arrays().items()}


def versions_here() -> dict[str, str]:
    """The versions that a failure may depend on."""
    names = ("tilewright", "xdsl", "numpy")
    return {**{name: version(name) for name in names}, "python": platform.python_version()}


def _take_name(partial: Path, folder: Path, name: str) -> Path:
    """Rename a finished folder to the first of NAME, NAME-2, NAME-3 that is free."""
    number = 1
    while True:
        final = folder / (name if number == 1 else f"{name}-{number}")
        number += 1
        if final.exists():
            continue
        try:
            os.rename(partial, final)
        except OSError:
            if not final.exists():
                raise
        else:
            return final


def _document(folder: Path) -> dict[str, object]:
    path = folder / DESCRIPTION
    try:
        document: object = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelReadError(
            "there is no reproducer to read",
            where=str(path),
            why=str(error),
            hint=f"a reproducer is a folder with {DESCRIPTION}, which tw opt --check-each-pass "
            "writes when a pass fails",
        ) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ModelReadError("the reproducer is of another format", where=str(path))
    return {str(key): value for key, value in document.items()}


def _sources(files: Sequence[PluginFile]) -> dict[Path, bytes]:
    """What files consist of, by paths in one folder: the modules that they import from beside them
    and the rules of passes, too. Of these, what has gone is left out."""
    needed = {
        path.relative_to(each.path.parent): path.read_bytes()
        for each in files
        for path in (*each.beside().values(), *_rule_files(each))
        if path.is_file()
    }
    return {**needed, **{Path(each.package): each.source for each in files}}


def _rule_files(file: PluginFile) -> Iterator[Path]:
    """The files of rules below a file's folder that it gives, or that passes there name."""
    folder = file.path.parent
    paths = [] if file.plugin is None else [path.resolve() for path in file.plugin.rules]
    for name, source in file.beside().items():
        for value in vars(sys.modules[name]).values():
            if isinstance(value, type) and issubclass(value, RulePass) and value.rules_file:
                paths.append((source.parent / value.rules_file).resolve())
    return (path for path in paths if path.is_relative_to(folder))


def _load_files(folder: Path, names: object) -> None:
    """Load the files of a reproducer; a user who loads one that is mended tries that."""
    loaded = {each.package for each in loaded_files()}
    for name in names if isinstance(names, list) else ():
        if str(name) not in loaded:
            load_file(folder / FILES / Path(str(name)).name)


def _read_module(path: Path) -> ModuleOp:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelReadError("the IR cannot be read", where=str(path), why=str(error)) from error
    return parse_module(text, str(path))
