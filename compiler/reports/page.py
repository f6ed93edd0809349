"""A report as one HTML page that needs no network: plots, and a table to sort and filter.

The page is `page.html` with the rows in it as JSON. Names of the model reach the page as text
alone; equal reports give equal bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from tilewright.compiler.reports.model_error import ModelErrors
from tilewright.compiler.reports.sensitivity_run import Sensitivity

_IN_SCRIPT = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
"""What could end a script element, or its lines, inside of a JSON string."""
Row = Mapping[str, object]


@dataclass(frozen=True)
class Column:
    """A column of the table: the row's field, what stands above it, and digits of numbers."""

    id: str
    label: str
    help: str
    digits: int | None = None
    """None for text."""


@dataclass(frozen=True)
class Page:
    """What a page shows. Rows have `name`, `scheme`, `order`, `snr_db`, `predicted_snr_db`, `share`
    and `channels` (a histogram: pairs of dB and channels), and what `columns` name."""

    title: str
    note: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    by_layer: str
    order: str
    share_axis: str
    share_note: str
    foot: str = ""
    sort: str = "snr_db"

    def html(self) -> str:
        """The page as text."""
        document = {
            "columns": [vars(column) for column in self.columns],
            "rows": list(self.rows),
            "sort": self.sort,
            "foot": self.foot,
            "plots": {
                "by_layer": self.by_layer,
                "order": self.order,
                "share_axis": self.share_axis,
                "share_note": self.share_note,
            },
        }
        data = json.dumps(document, ensure_ascii=False, allow_nan=False).translate(_IN_SCRIPT)
        parts = {"TITLE": escape(self.title), "NOTE": escape(self.note), "DATA": data}
        template = files("tilewright.compiler.reports").joinpath("page.html").read_text("utf-8")
        return re.sub(f"@({'|'.join(parts)})@", lambda at: parts[at[1]], template)


def channel_histogram(channel_snr_db: Sequence[float]) -> list[tuple[int, int]]:
    """How many channels have an SNR in `[dB, dB + 1)`: pairs by rising dB. Channels without an
    error, or without a signal, are left out."""
    counts: dict[int, int] = {}
    for snr in channel_snr_db:
        if math.isfinite(snr):
            counts[math.floor(snr)] = counts.get(math.floor(snr), 0) + 1
    return sorted(counts.items())


def sensitivity_page(report: Sensitivity) -> str:
    """The page of `tw sensitivity`."""
    columns = [
        Column("name", "layer", "the key of its weight"),
        Column("scheme", "scheme", "how the weight is stored"),
        Column("bits_per_weight", "bits a weight", "codes, scales and zero points", 2),
        Column("gaussian_weight_snr_db", "weight SNR, dB: Gaussian", "closed formula", 1),
        Column(
            "predicted_weight_snr_db", "weight SNR: own ranges", "closed formula, this weight's", 1
        ),
        Column("weight_snr_db", "weight SNR: measured", "of the weight", 1),
        Column("predicted_snr_db", "output SNR, dB: predicted", "steps and input energies", 1),
        Column("snr_db", "output SNR: measured", "on the layer's inputs", 1),
        Column("cosine", "cosine", "of the output with the exact one", 6),
        Column("worst_channel", "worst channel", "the output channel of lowest SNR", 0),
        Column("worst_channel_snr_db", "its SNR, dB", "against its own signal", 1),
        Column("share_percent", "share, %", "of the error of all layers in the scheme", 1),
        Column("widest", "widest inputs", "inputs whose weights set the most ranges"),
    ]
    if any(row.end_to_end is not None for row in report.rows):
        columns += [
            Column("model_snr_db", "model SNR, dB", "of the output, only this quantized", 1),
            Column("model_kl", "model KL, nats", "of the predictions, only this quantized", 4),
        ]
    order: dict[str, int] = {}
    for key in report.order:
        order.setdefault(key, len(order))
    rows: list[Row] = []
    for row in report.rows:
        end = row.to_json()["end_to_end"]
        rows.append(
            {
                **row.to_json(),
                "name": row.key,
                "order": order[row.key],
                "share_percent": 100 * row.share if math.isfinite(row.share) else None,
                "share": row.share if math.isfinite(row.share) else 0.0,
                "channels": channel_histogram(row.channel_snr_db),
                "widest": ", ".join(f"{k} ({100 * s:.0f} %)" for k, s in row.range_inputs),
                "model_snr_db": end["snr_db"] if isinstance(end, dict) else None,
                "model_kl": end["kl_nats"] if isinstance(end, dict) else None,
            }
        )
    refused = "; ".join(f"{e.key} in {e.scheme} ({e.why})" for e in report.not_possible)
    return Page(
        f"Sensitivity of {report.model} to quantization",
        f"What the output of each linear layer loses if its weight is stored in a scheme, on "
        f"{report.tokens:,} rows of {report.samples} samples. SNR is 10 log10(signal / error), in "
        "dB. The prediction is the closed formula: errors uniform in a step of the group's range.",
        columns,
        rows,
        by_layer="Output SNR by layer and scheme",
        order="layers in order of execution",
        share_axis="share of the error of all layers in the scheme (%)",
        share_note="Error over signal of the layer's output, relative to the sum over all layers.",
        foot=f"Not possible: {refused}" if refused else "",
    ).html()


def errors_page(model: str, artifact: str, errors: ModelErrors) -> str:
    """The page of `tw compare --source`."""
    columns = [
        Column("function", "function", "which function of the model"),
        Column("name", "op", "in the words of the source model"),
        Column("op", "kind", "the machine's op"),
        Column("scheme", "scheme", "of its weight, or the type of its result"),
        Column("predicted_snr_db", "SNR, dB: predicted", "closed formulas, composed", 1),
        Column("snr_db", "SNR: measured", "against the float model, errors accumulated", 1),
        Column("cosine", "cosine", "with the float model's values", 6),
        Column("own_snr_db", "SNR: by itself", "what the layer makes of the inputs it got", 1),
        Column("share_percent", "share, %", "of the errors that layers make", 1),
        Column("worst_channel", "worst channel", "the output channel of lowest SNR", 0),
        Column("worst_channel_snr_db", "its SNR, dB", "against its own signal", 1),
    ]
    rows: list[Row] = [
        {
            **row.to_json(),
            "name": row.key.name,
            "order": row.order,
            "share": row.share or 0.0,
            "share_percent": None if row.share is None else 100 * row.share,
            "channels": channel_histogram([float(each) for each in row.sums.channel_snr_db]),
        }
        for row in errors.rows.values()
    ]
    return Page(
        f"{model}: {artifact} against the float model",
        "The values of every op on the simulated machine against those of the unquantized float "
        "model on the same inputs; errors accumulate. SNR is 10 log10(signal / error), in dB.",
        columns,
        rows,
        by_layer="SNR along the model",
        order="ops in order of execution",
        share_axis="share of the errors that the layers make (%)",
        share_note="The error a layer makes of the inputs it got, relative to the sum over layers.",
    ).html()
