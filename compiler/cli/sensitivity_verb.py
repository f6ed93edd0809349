"""`tw sensitivity`: what each layer would lose in each scheme."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import perf_counter

from tilewright.compiler.calibration import load_calibration, load_data
from tilewright.compiler.cli.output import log, percent, print_json, print_table
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.output import write_atomically
from tilewright.compiler.quantization.linear_weights import listed_kinds
from tilewright.compiler.reports.sensitivity import LayerFigures
from tilewright.compiler.reports.sensitivity_run import Sensitivity, sensitivity
from tilewright.dialects.element_types import BF16, F16
from tilewright.dialects.errors import OptionError

_ACTIVATIONS = {"f16": F16, "bf16": BF16}


def run_sensitivity(
    source: Path,
    data: Path | None,
    schemes: Sequence[str],
    *,
    calibration: Path | None,
    html: Path | None,
    seq: int,
    act: str,
    samples: int | None,
    function: str,
    end_to_end: bool,
    top: int,
    quiet: bool,
    json: bool,
) -> None:
    """Measure, print the table or JSON, and write the page."""
    if act not in _ACTIVATIONS:
        raise OptionError(
            f"--act {act}: schemes have 16-bit activations", hint=" or ".join(_ACTIVATIONS)
        )
    if top < 1:
        raise OptionError(f"--top is {top}, at least 1 is needed", hint="leave it out for 20")
    start = perf_counter()
    model = open_source(source, seq)
    loaded = None if data is None else load_data(data, model, function=function, limit=samples)

    def step(line: str) -> None:
        if not quiet:
            log(f"{line} ({perf_counter() - start:.1f} s)")

    report = sensitivity(
        model,
        loaded,
        schemes,
        calibration=None if calibration is None else load_calibration(calibration),
        end_to_end=end_to_end,
        element=_ACTIVATIONS[act],
        on_step=step,
    )
    if html is not None:
        from tilewright.compiler.reports.page import sensitivity_page

        write_atomically(html, sensitivity_page(report).encode())
    if json:
        print_json(report.to_json())
        return
    _print(report, top, html)


def _print(report: Sensitivity, top: int, html: Path | None) -> None:
    shown = report.rows[:top]
    has_end = any(row.end_to_end is not None for row in shown)
    columns = [
        *("layer", "scheme", "bits", "weight SNR: gauss", "formula", "measured"),
        *("output SNR: formula", "measured", "cosine", "worst channel", "share", "widest inputs"),
    ]
    if has_end:
        columns += ["model SNR", "model KL"]
    if shown:
        print_table(columns, [_cells(row, has_end) for row in shown])
        if len(report.rows) > len(shown):
            print(f"(the {len(shown)} worst of {len(report.rows)})")
        print(
            "SNR in dB, worst first: a layer's output keeps 10 log10(signal / error), over "
            f"{report.tokens:,} rows in {report.samples} samples; share: of the error of all "
            "layers in the scheme; widest inputs: those whose weights set the most ranges."
        )
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in report.not_possible:
        reasons.setdefault((each.scheme, each.why), []).append(each.key)
    for (scheme, why), keys in reasons.items():
        print(f"not possible in {scheme}: {', '.join(listed_kinds(keys))}: {why}")
    if html is not None:
        print(f"written to {html}")


def _cells(row: LayerFigures, has_end: bool) -> list[object]:
    end = row.end_to_end
    cells: list[object] = [
        row.key.removesuffix(".weight"),
        row.scheme,
        f"{row.bits_per_weight:.2f}",
        f"{row.gaussian_weight_snr_db:.1f}",
        f"{row.predicted_weight_snr_db:.1f}",
        f"{row.weight_snr_db:.1f}",
        f"{row.predicted_snr_db:.1f}",
        f"{row.snr_db:.1f}",
        f"{row.cosine:.6f}",
        f"{row.worst_channel} ({row.worst_channel_snr_db:.1f})",
        percent(row.share),
        " ".join(f"{k}:{100 * share:.0f}%" for k, share in row.range_inputs[:4]),
    ]
    if has_end:
        cells.append("-" if end is None else f"{end.snr_db:.1f}")
        cells.append("-" if end is None or end.kl_nats is None else f"{end.kl_nats:.2e}")
    return cells
