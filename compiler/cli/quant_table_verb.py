"""`tw quant-table`: which weight gets which scheme, as a table to edit."""

from __future__ import annotations

from pathlib import Path

from tilewright.compiler.cli.output import megabytes, print_json
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.pipeline import CompileOptions, chosen_schemes
from tilewright.compiler.quantization.linear_weights import linear_weights
from tilewright.compiler.quantization.sizes import bits_per_weight, stored_bytes
from tilewright.compiler.quantization.table import format_table, write_table


def run_quant_table(
    source: Path, output: Path | None, options: CompileOptions, *, seq: int, json: bool
) -> None:
    """Write or print the table that `options` give."""
    model = open_source(source, seq)
    weights = linear_weights(model.module)
    assigned = chosen_schemes(weights, options)
    bits = bits_per_weight(weights, assigned)
    size = sum(stored_bytes(weights[key], quant) for key, quant in assigned.items())
    title = f"{model.name}: {len(assigned)} weights, {bits:.2f} bits a weight, {megabytes(size)}"
    if output is not None:
        write_table(output, weights, assigned, title=title)
    if json:
        print_json(
            {
                "table": None if output is None else str(output),
                "weights": assigned,
                "bits_per_weight": bits,
                "weight_bytes": size,
            }
        )
    elif output is None:
        print(format_table(weights, assigned, title=title), end="")
    else:
        print(f"{output}: {title.partition(': ')[2]}")
