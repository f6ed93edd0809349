"""Writes the generated pages of docs/reference: `ops.md`, `passes.md`, `rules.md`,
`errors.md`.

    python -m tilewright.compiler.reference_pages docs/reference

A test compares them with what is generated: after a change of a docstring, `make docs`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path

from xdsl.passes import ModulePass

from tilewright.compiler.error_catalogue import errors_page
from tilewright.compiler.output import write_atomically
from tilewright.compiler.workbench.rule_checking.finding import LOWERINGS, RuleGroup, rule_groups
from tilewright.compiler.workbench.rule_checking.texts import first_line, rule_text
from tilewright.dialects.documentation import render_markdown
from tilewright.dialects.errors import OptionError
from tilewright.passes.registry import PASSES, STAGES
from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class PassDoc:
    """What the reference says of a pass."""

    name: str
    class_name: str
    summary: str
    """The first paragraph of its docstring."""
    description: str
    """The rest, as markdown: an example, what it requires and guarantees, options, rules."""
    options: Mapping[str, str]
    """Defaults by name, as they are written in a pipeline; empty where there is none."""
    legal: tuple[str, ...]
    """What a module may consist of after it; empty if it keeps the stage."""

    @property
    def signature(self) -> str:
        """As `tw opt -p` takes it: `name{option=default}`."""
        options = " ".join(f"{name}={default}" for name, default in self.options.items())
        return f"{self.name}{{{options}}}" if options else self.name


def document_pass(name: str) -> PassDoc:
    """The documentation of a registered pass; raises `KeyError` where there is none."""
    pass_class = PASSES[name]()
    summary, _, description = inspect.cleandoc(pass_class.__doc__ or "").partition("\n\n")
    legal = STAGES[name].legal if name in STAGES else ()
    return PassDoc(
        name,
        pass_class.__name__,
        " ".join(summary.split()),
        _with_rules(pass_class, description.strip()),
        _options(pass_class),
        legal,
    )


def _with_rules(pass_class: type[ModulePass], description: str) -> str:
    """`description`, and a list of the rules of a pass that has them in a file."""
    if not issubclass(pass_class, RulePass) or pass_class.rules_file is None:
        return description
    return f"{description}\n\nRules:\n\n{pass_class.rule_list()}".strip()


def _options(pass_class: type[ModulePass]) -> dict[str, str]:
    options: dict[str, str] = {}
    for field in fields(pass_class):
        default = "" if field.default is MISSING else field.default
        text = str(default).lower() if isinstance(default, bool) else str(default)
        options[field.name.replace("_", "-")] = text
    return options


def passes_page() -> str:
    """`docs/reference/passes.md`: every registered pass, in the order of the pipeline."""
    documents = [document_pass(name) for name in PASSES]
    return "\n".join(_passes(documents)).rstrip() + "\n"


def _passes(documents: list[PassDoc]) -> Iterator[str]:
    yield "# Passes\n"
    yield "Generated from the docstrings of `passes/`; do not edit.\n"
    yield "In the order of the pipeline. `tw opt -p` takes any list of them.\n"
    yield "| pass | what it does |"
    yield "| --- | --- |"
    for document in documents:
        yield f"| [`{document.name}`](#{document.name}) | {document.summary} |"
    yield ""
    for document in documents:
        yield f"## {document.name}\n"
        yield f"{document.summary}\n"
        yield f"`{document.signature}`\n"
        yield f"{document.description}\n"
        if document.legal:
            names = ", ".join(f"`{name}`" for name in document.legal)
            yield f"Ops that may remain after it: {names}.\n"


def rules_page() -> str:
    """`docs/reference/rules.md`: every rule of the passes made of rules, and every lowering."""
    return "\n".join(_rules()).rstrip() + "\n"


def _rules() -> Iterator[str]:
    groups = [group for name in PASSES for group in _own_groups(name)]
    yield "# Rules\n"
    yield "Generated from the rules of `passes/`; do not edit. docs/rules.md is the language.\n"
    for group in groups:
        yield f"## {group.name}\n"
        rows = {rule.name: rule for rule in group.rules}
        yield "| name | at | what it does |"
        yield "| --- | --- | --- |"
        for rule in rows.values():
            yield f"| `{rule.name}` | `{rule.root_op.op.name}` | {_cell(first_line(rule))} |"
        yield ""
        texts = [text for rule in rows.values() if (text := rule_text(rule))]
        if texts:
            yield "```rules\n" + "\n\n".join(texts) + "\n```\n"


def _own_groups(name: str) -> tuple[RuleGroup, ...]:
    if name != LOWERINGS and not issubclass(PASSES[name](), RulePass):
        return ()
    return rule_groups(name)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {
    "ops.md": render_markdown,
    "passes.md": passes_page,
    "rules.md": rules_page,
    "errors.md": errors_page,
}
"""What is generated, by the name of its file."""


def write_pages(folder: Path) -> None:
    """Write all pages into `folder`; raises `OptionError` where that is no folder."""
    if not folder.is_dir():
        raise OptionError(f"{folder} is not a folder", hint="docs/reference")
    for name, render in PAGES.items():
        write_atomically(folder / name, render())


if __name__ == "__main__":
    write_pages(Path(sys.argv[1]))
