"""`tw new-pass`: a pass with its lit test, its numeric test and its row in the documentation.

In this repository it also gets its row in `passes/registry.py`; anywhere else it goes into a
package with a plugin, which is made around the first pass. All files are new: nothing is ever
overwritten, and if anything fails nothing is left.
"""

from __future__ import annotations

import keyword
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from shlex import quote
from string import Template
from typing import Any

from tilewright.compiler.cli.output import print_json
from tilewright.compiler.cli.source_edits import (
    add_row,
    dictionary_of,
    imports,
    keyword_dictionary,
)
from tilewright.compiler.output import storage_errors, write_atomically
from tilewright.dialects import plugins
from tilewright.dialects.errors import InternalError, OptionError
from tilewright.passes.registry import pass_names, pipeline_names

LONGEST_NAME = 40
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LINE = 100
_REGISTRY = Path("passes", "registry.py")
_REFERENCE = Path("docs", "reference")
_FRESH_IMPORTS = "tilewright.compiler.reference_pages"


@dataclass
class Plan:
    """What is going to be written: files by path, and what follows them."""

    names: Mapping[str, str]
    """What the templates are filled in with."""
    new: dict[Path, str] = field(default_factory=dict[Path, str])
    changed: dict[Path, str] = field(default_factory=dict[Path, str])
    finish: Callable[[], None] | None = None
    """The last step; `finishing` are the folders that it changes files of."""
    finishing: tuple[Path, ...] = ()
    then: str = ""
    """What the user does next: a command."""

    def add(self, path: Path, template: str) -> None:
        """Write a template, filled in."""
        text = resources.files("tilewright.compiler.cli.templates").joinpath(f"{template}.template")
        self.new[path] = Template(text.read_text("utf-8")).substitute(self.names)


def run_new_pass(name: str, folder: Path, package: str, *, rules: bool, json: bool) -> None:
    """Write the files of the pass `name` and print which.

    Raises `OptionError` for a name that cannot be one or is taken, for a folder that is neither a
    checkout nor a package while no `package` is named, and where a file exists already.
    """
    _require_name(name)
    if (folder / _REGISTRY).is_file() and (folder / _REFERENCE).is_dir():
        plan = _in_repository(name, folder, package, rules=rules)
    else:
        plan = _in_package(name, folder, package, rules=rules)
    carry_out(plan)
    if json:
        new, changed = ([str(path) for path in paths] for paths in (plan.new, plan.changed))
        print_json({"pass": name, "new": new, "changed": changed})
        return
    for path in plan.new:
        print(f"new      {path}")
    for path in plan.changed:
        print(f"changed  {path}")
    if plan.then:
        print(f"next     {plan.then}")


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME or keyword.iskeyword(_stem(name)):
        raise OptionError(
            f"{name!r} is no name for a pass",
            why=f"a name is small letters and digits in words joined by -, at most {LONGEST_NAME}",
            hint="verb first: tw new-pass fuse-bias",
        )
    if name in pass_names() or name in pipeline_names():
        raise OptionError(f"there is a pass or pipeline {name!r} already", hint="tw passes")


def _stem(name: str) -> str:
    return name.replace("-", "_")


def _class_name(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-")) + "Pass"


def _pass_template(*, rules: bool) -> str:
    return "pass_of_rules" if rules else "pass"


# In this repository.


def _in_repository(name: str, folder: Path, package: str, *, rules: bool) -> Plan:
    if package:
        raise OptionError(
            f"{folder} is a checkout of Tilewright: --package {package} has no place there",
            hint="--dir FOLDER says where the package is to be",
        )
    _require_running_checkout(folder)
    plan = Plan({"name": name, "class_name": _class_name(name)})
    plan.add(folder / "passes" / f"{_stem(name)}.py", _pass_template(rules=rules))
    plan.add(folder / "tests" / "filecheck" / "passes" / f"{name}.mlir", "lit_test")
    plan.add(folder / "tests" / "passes" / f"test_{_stem(name)}.py", "numeric_test")
    registry = folder / _REGISTRY
    source = registry.read_text("utf-8")
    table = dictionary_of(source, "PASSES")
    if table is None:
        raise InternalError(f"{registry} has no dictionary PASSES")
    call = f'"{name}": _lazy("{_stem(name)}", "{_class_name(name)}")'
    plan.changed[registry] = add_row(source, table, _wrapped(call, 8))
    plan.finish = lambda: _regenerate(folder / _REFERENCE)
    plan.finishing = (folder / _REFERENCE,)
    return plan


def _wrapped(row: str, indent: int) -> str:
    """A row `"name": function(arguments)` within the length of a line, comma included."""
    if indent + len(row) + 1 <= _LINE:
        return row
    head, _, arguments = row.partition("(")
    return f"{head}(\n    {arguments.removesuffix(')')}\n)"


def _require_running_checkout(folder: Path) -> None:
    from tilewright.passes import registry

    if not (folder / _REGISTRY).samefile(registry.__file__):
        raise OptionError(
            f"{folder} is another checkout than the one that runs",
            why=f"tw is of {Path(registry.__file__).parents[1]}",
            hint="run the tw of that checkout",
        )


def _regenerate(pages: Path) -> None:
    """Write the reference pages, by a process that imports the new pass."""
    command = [sys.executable, "-m", _FRESH_IMPORTS, str(pages)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InternalError("the reference cannot be generated", why=done.stderr.strip())


# In a package of one's own.


def _in_package(name: str, folder: Path, package: str, *, rules: bool) -> Plan:
    project = folder / "pyproject.toml"
    if not project.is_file():
        return _new_package(name, folder, package, rules=rules)
    if package:
        raise OptionError(
            f"there is a package in {folder} already",
            hint="leave --package out to add a pass to it",
        )
    entry = _entry_point(project)
    module, file = _module_file(folder, entry.partition(":")[0], project)
    source = file.read_text("utf-8")
    row = f'"{name}": {_loader(module, name)}'
    table = keyword_dictionary(source, "Plugin", "passes")
    if table is None or not imports(source, "tilewright.dialects.plugins", "lazy"):
        raise OptionError(
            f"{file} has no passes={{...}} in its Plugin(...), or does not import lazy",
            where=str(file),
            hint=f"write passes={{{row}}} and import lazy beside Plugin, or begin with passes={{}} "
            "and run this again",
        )
    plan = Plan({"name": name, "class_name": _class_name(name)})
    _add_pass(plan, folder, file.parent, rules=rules)
    plan.changed[file] = add_row(source, table, _wrapped(row, 8))
    page = folder / "docs" / "passes.md"
    if page.is_file():
        line = f"| `{name}` | Remove negations of negations. |\n"
        plan.changed[page] = page.read_text("utf-8").rstrip("\n") + "\n" + line
    else:
        plan.names = {**plan.names, "distribution": folder.resolve().name}
        plan.add(page, "passes_page")
    return plan


def _add_pass(plan: Plan, folder: Path, code: Path, *, rules: bool) -> None:
    name = plan.names["name"]
    plan.add(code / f"{_stem(name)}.py", _pass_template(rules=rules))
    plan.add(folder / "tests" / "filecheck" / f"{name}.mlir", "lit_test")
    plan.add(folder / "tests" / f"test_{_stem(name)}.py", "numeric_test")


def _loader(module: str, name: str) -> str:
    return f'lazy("{module}.{_stem(name)}:{_class_name(name)}")'


def _new_package(name: str, folder: Path, package: str, *, rules: bool) -> Plan:
    if not package:
        raise OptionError(
            f"{folder} is neither a checkout of Tilewright nor a package with a plugin",
            hint=f"tw new-pass {name} --package acme makes one there",
        )
    if not _NAME.fullmatch(package) or keyword.iskeyword(_stem(package)):
        raise OptionError(
            f"{package!r} is no name for a package",
            why="a name is small letters and digits in words joined by -",
        )
    if package in {each.name for each in plugins.discover()}:
        raise OptionError(f"a plugin {package!r} is installed already", hint="tw doctor")
    distribution = f"{package}-tilewright"
    module = _stem(distribution)
    loader = _wrapped(f'"{name}": {_loader(module, name)}', 8).partition(": ")[2]
    plan = Plan(
        {
            "name": name,
            "class_name": _class_name(name),
            "distribution": distribution,
            "package": module,
            "plugin": package,
            "loader": loader.replace("\n", "\n        "),
        }
    )
    plan.add(folder / "pyproject.toml", "pyproject")
    plan.add(folder / module / "__init__.py", "plugin")
    plan.new[folder / module / "py.typed"] = ""
    _add_pass(plan, folder, folder / module, rules=rules)
    plan.add(folder / "tests" / "filecheck" / "lit.cfg", "lit_config")
    plan.add(folder / "tests" / "test_filecheck.py", "lit_runner")
    plan.add(folder / "docs" / "passes.md", "passes_page")
    there = "" if folder == Path() else f"cd {quote(str(folder))} && "
    plan.then = f"{there}pip install -e '.[test]' && pytest"
    return plan


def _entry_point(project: Path) -> str:
    """What the one entry point of the plugin group names."""
    try:
        document: Any = tomllib.loads(project.read_text("utf-8"))
        points = document["project"]["entry-points"][plugins.GROUP]
        (target,) = points.values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(
            "the package has no plugin",
            where=str(project),
            why=f"{type(error).__name__}: {error}",
            hint=f'[project.entry-points."{plugins.GROUP}"] holds one line: acme = "acme:PLUGIN"',
        ) from error
    return str(target)


def _module_file(folder: Path, module: str, project: Path) -> tuple[str, Path]:
    """The package that the new module goes into, and the file that the plugin stands in."""
    parts = module.split(".")
    for root in (folder, folder / "src"):
        package = root.joinpath(*parts, "__init__.py")
        if package.is_file():
            return module, package
        file = root.joinpath(*parts[:-1], f"{parts[-1]}.py")
        if file.is_file() and len(parts) > 1:
            return ".".join(parts[:-1]), file
    raise OptionError(
        f"the plugin's module {module} is not found",
        where=str(project),
        hint=f"it is looked for in {folder} and {folder / 'src'}",
    )


# Writing: all, or nothing.


def carry_out(plan: Plan) -> None:
    """Write what a plan says; raises `OptionError` where a file exists, and leaves nothing half."""
    existing = [path for path in plan.new if path.exists()]
    if existing:
        raise OptionError(
            f"{existing[0]} exists already",
            why="nothing is overwritten, and nothing was written",
        )
    with _undone_on_failure(plan) as written:
        for path, text in plan.new.items():
            with storage_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("x", encoding="utf-8") as file:
                    written.append(path)
                    file.write(text)
        for path, text in plan.changed.items():
            write_atomically(path, text)
        if plan.finish is not None:
            plan.finish()


@contextmanager
def _undone_on_failure(plan: Plan) -> Generator[list[Path]]:
    """Leave everything as it was if anything fails inside; the list takes the files written."""
    kept = [*plan.changed, *(file for each in plan.finishing for file in each.iterdir())]
    before = {path: path.read_bytes() for path in kept if path.is_file()}
    folders = {folder for path in plan.new for folder in path.parents if not folder.exists()}
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):
                folder.rmdir()
        for path, data in before.items():
            if path.read_bytes() != data:
                path.write_bytes(data)
        raise
