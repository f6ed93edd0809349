"""`tw passes`, `tw ops` and `tw chips`: what there is."""

from __future__ import annotations

from dataclasses import MISSING, fields

from tilewright.backends.chip import CHIP_NAMES, Chip, load_chip
from tilewright.compiler.cli.output import print_json, print_table
from tilewright.dialects.documentation import op_reference, render_op
from tilewright.dialects.errors import OptionError
from tilewright.passes.registry import PASSES


def pass_rows() -> list[dict[str, object]]:
    """Name, summary and options of every pass."""
    rows: list[dict[str, object]] = []
    for name in sorted(PASSES):
        pass_class = PASSES[name]()
        options = {
            field.name.replace("_", "-"): None if field.default is MISSING else field.default
            for field in fields(pass_class)
            if field.name != "name"
        }
        summary = (pass_class.__doc__ or "").strip().splitlines()[0]
        rows.append({"name": name, "summary": summary, "options": options})
    return rows


def list_passes(*, json: bool) -> None:
    """Print every registered pass with its options and their defaults."""
    rows = pass_rows()
    if json:
        print_json(rows)
        return

    def cell(row: dict[str, object]) -> str:
        options = row["options"]
        assert isinstance(options, dict)
        return " ".join(f"{key}={value}" for key, value in options.items())

    print_table(
        ("pass", "options", "what it does"), [(r["name"], cell(r), r["summary"]) for r in rows]
    )


def list_ops(name: str, *, json: bool) -> None:
    """Print every op, or the whole documentation of one."""
    documents = op_reference()
    if name:
        documents = [document for document in documents if document.name == name]
        if not documents:
            raise OptionError(f"no op {name!r}", hint="tw ops lists them")
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
    return values


def list_chips(name: str, *, json: bool) -> None:
    """Print the shipped chips, or every figure of one."""
    chips = [load_chip(each) for each in ([name] if name else CHIP_NAMES)]
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
