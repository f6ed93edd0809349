"""`tw passes`, `tw ops` and `tw chips`: what there is, here and in plugins."""

from __future__ import annotations

from dataclasses import MISSING, fields
from inspect import cleandoc

from tilewright.backends.chip import Chip, chip_names, load_chip
from tilewright.compiler.cli.output import print_json, print_table
from tilewright.compiler.workbench.legality import legality_table
from tilewright.dialects import plugins
from tilewright.dialects.documentation import op_reference, plugin_ops, render_op
from tilewright.dialects.errors import OptionError, PluginError
from tilewright.passes.registry import find_pass, find_pipeline, pass_names, pipeline_names

OWN_PACKAGE = "tilewright"


def pass_rows() -> list[dict[str, object]]:
    """Name, summary and options of every pass, and which package it is from; a plugin's pass that
    cannot be loaded is warned of."""
    givers = plugins.given("passes")
    rows: list[dict[str, object]] = []
    for name in sorted(pass_names()):
        try:
            pass_class = find_pass(name)
        except PluginError as error:
            plugins.warn(error)
            continue
        options = {
            field.name.replace("_", "-"): None if field.default is MISSING else field.default
            for field in fields(pass_class)
            if field.name != "name"
        }
        summary = " ".join(cleandoc(pass_class.__doc__ or "").partition("\n\n")[0].split())
        package = givers[name].package if name in givers else OWN_PACKAGE
        rows.append({"name": name, "summary": summary, "options": options, "package": package})
    return rows


def list_passes(name: str = "", *, json: bool) -> None:
    """Print every registered pass with its options and their defaults, and every named pipeline; or
    the whole documentation of one."""
    if name:
        _document_pass(name, json=json)
        return
    rows = pass_rows()
    if json:
        print_json(rows)
        return

    def cell(row: dict[str, object]) -> str:
        options = row["options"]
        assert isinstance(options, dict)
        return " ".join(f"{key}={value}" for key, value in options.items())

    print_table(
        ("pass", "options", "what it does"),
        [(r["name"], cell(r), _with_package(r["summary"], r["package"])) for r in rows],
    )
    print()
    print_table(("pipeline", "passes"), [(name, find_pipeline(name)) for name in pipeline_names()])


def _document_pass(name: str, *, json: bool) -> None:
    pipeline = find_pipeline(name)
    if pipeline is not None:
        document: dict[str, object] = {"name": name, "passes": pipeline}
        text = f"{name}: {pipeline}"
    else:
        documentation = cleandoc(find_pass(name).__doc__ or "")
        table = list(legality_table(name))
        document = {"name": name, "documentation": documentation, "legality": table}
        text = "\n".join([name, "", documentation, "", *table])
    if json:
        print_json(document)
    else:
        print(text)


def _with_package(summary: object, package: object) -> str:
    return f"{summary}" if package == OWN_PACKAGE else f"{summary} ({package})"


def list_ops(name: str, *, json: bool) -> None:
    """Print every op, or the whole documentation of one."""
    documents = op_reference()
    if name not in {document.name for document in documents}:
        documents += plugin_ops()
    if name:
        documents = [document for document in documents if document.name == name]
        if not documents:
            raise OptionError(f"no op {name!r}", why=plugins.left_out(), hint="tw ops lists them")
    if json:
        print_json(
            [
                {
                    "name": document.name,
                    "summary": document.summary,
                    "documentation": "\n".join(render_op(document)),
                }
                for document in documents
            ]
        )
    elif name:
        print("\n".join(render_op(documents[0])))
    else:
        print_table(("op", "what it does"), [(d.name, d.summary) for d in documents])


def chip_json(chip: Chip) -> dict[str, object]:
    """All figures of a chip, with sources."""
    values = {field.name: getattr(chip, field.name) for field in fields(Chip)}
    for key in ("matrix_width", "sources"):
        values[key] = dict(values[key])
    values["code_formats"] = [str(each) for each in chip.code_formats]
    return values


def _all_chips() -> list[Chip]:
    chips: list[Chip] = []
    for name in chip_names():
        try:
            chips.append(load_chip(name))
        except PluginError as error:
            plugins.warn(error)
    return chips


def list_chips(name: str, *, json: bool) -> None:
    """Print the chips by name, or every figure of one."""
    chips = [load_chip(name)] if name else _all_chips()
    if json:
        print_json([chip_json(chip) for chip in chips])
    elif name:
        values = chip_json(chips[0])
        sources = chips[0].sources
        print_table(
            ("figure", "value", "source"),
            [
                (key, f"{value:_}" if isinstance(value, int) else value, sources.get(key, ""))
                for key, value in values.items()
                if key != "sources"
            ],
        )
    else:
        print_table(
            ("chip", "lanes", "local memory", "f16 MAC/cycle", "clock", "DDR bytes/cycle"),
            [
                (
                    chip.name,
                    chip.lanes,
                    f"{chip.lanes * chip.lane_bytes // 2**20} MiB",
                    chip.lanes * chip.matrix_rows * chip.matrix_width["f16"],
                    f"{chip.clock_hz / 1e9:g} GHz",
                    f"{chip.dma_bytes_per_cycle:.1f}",
                )
                for chip in chips
            ],
        )
