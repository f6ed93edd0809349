"""From a checkpoint (or top IR with its weights) to an artifact on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

from tilewright.compiler.artifact import ArtifactWriter
from tilewright.compiler.calibration import (
    Calibration,
    calibration_record,
    check_model,
    load_calibration,
    mark_calibrated,
)
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.language_model import ImportedModel, LanguageModel
from tilewright.compiler.pipeline import (
    CompileOptions,
    build_program,
    chosen_schemes,
    kernel_passes,
    lower,
    lowering_passes,
)
from tilewright.compiler.quantization.linear_weights import linear_weights, listed_kinds
from tilewright.compiler.quantization.tuned import tune
from tilewright.compiler.quantization.tuning_report import TuningReport
from tilewright.compiler.weight_requests import weight_requests
from tilewright.compiler.weights.materialize import WeightProgress
from tilewright.compiler.weights.parts import Ranges
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.context import print_module
from tilewright.dialects.element_types import element_by_name
from tilewright.dialects.errors import OptionError, StorageError


@dataclass(frozen=True)
class Compiled:
    """What a compilation made. Bytes on disk, seconds by stage."""

    path: Path
    artifact_bytes: int
    weight_bytes: int
    memory_bytes: int
    kernels: int
    launches: Mapping[str, int]
    f32_scales: int
    tuning: TuningReport | None
    stages_s: Mapping[str, float]


OnStage = Callable[[str, float], None]

INT8 = "int8"
"""The scheme whose layers need ranges of activations."""
_ONLY_IF_GIVEN = ("top_passes", "tpu_passes", "quant_rules", "quant_table", "calibration", "tune")
"""Options that the manifest lists only where they are used."""


def describe(model: ImportedModel, seq: int) -> dict[str, Any]:
    """What the manifest says of a model."""
    if isinstance(model, LanguageModel):
        return {"name": model.name, "seq": seq, **asdict(model.summary)}
    return {"name": model.name}


def compile_to_artifact(
    source: Path,
    output: Path,
    options: CompileOptions,
    *,
    seq: int,
    on_stage: OnStage | None = None,
    on_weight: Callable[[WeightProgress], None] | None = None,
) -> Compiled:
    """Compile `source` into the artifact `output`, which appears only when it is complete.

    Weights stream through small buffers from the checkpoint into the artifact. Raises what the
    stages raise: see docs/exit_codes.md.
    """
    stages: dict[str, float] = {}

    def stage(name: str, seconds: float) -> None:
        stages[name] = stages.get(name, 0.0) + seconds
        if on_stage is not None:
            on_stage(name, seconds)

    if not output.parent.is_dir():
        raise StorageError(
            f"the folder of the output does not exist: {output.parent}", where=str(output)
        )
    start = perf_counter()
    model = open_source(source, seq)
    with model.open_weights() as container, ArtifactWriter(output) as writer:
        stage("import", perf_counter() - start)
        start = perf_counter()
        source_weights, calibration, tuning = prepared(model, container, options)
        stage("tune", perf_counter() - start)
        start = perf_counter()
        tpu_module = lower(model.module, options, packed=model.packed)
        stage("lower", perf_counter() - start)
        built = build_program(tpu_module, options.chip, on_pass=stage)
        start = perf_counter()
        requests = weight_requests(built.plan, model.tables())
        stored = writer.write_weights(
            source_weights, requests, ranges=_ranges(calibration), progress=on_weight
        )
        stage("weights", perf_counter() - start)
        f32_scales = [
            slot.key
            for slot in built.plan.weights.values()
            if slot.form == "scale" and stored.scale_elements[slot.name] != slot.element
        ]
        if f32_scales:
            tpu_module = lower(model.module, options, f32_scales=f32_scales, packed=model.packed)
            built = build_program(tpu_module, options.chip, on_pass=stage)
        start = perf_counter()
        writer.finish(
            built.program,
            print_module(tpu_module),
            built.chip,
            model=describe(model, seq),
            options=_recorded(options, calibration, tuning),
            pipeline=",".join(
                [
                    *lowering_passes(options).names(),
                    *(each.name for each in kernel_passes(options.chip)),
                ]
            ),
            inputs=dict(source_weights.fingerprints()),
        )
    stage("write", perf_counter() - start)
    return Compiled(
        output,
        output.stat().st_size,
        stored.size_bytes,
        built.plan.used_bytes,
        len(built.program.kernels),
        {function.name: len(function.launches) for function in built.program.functions},
        len(f32_scales),
        tuning,
        stages,
    )


def prepared(
    model: ImportedModel, weights: WeightSource, options: CompileOptions
) -> tuple[WeightSource, Calibration | None, TuningReport | None]:
    """The weights as they are to be stored, and what they are to be stored with: tuned, if the
    options say so, and the calibration as it then is.

    What `model.module` may be lowered to with the calibration is put down in it. Raises
    `OptionError` where the calibration is one of another model, lacks a layer that is to be int8 or
    what a tuning pass needs, or is missing though a layer is to be int8; `ModelReadError` where it
    cannot be read.
    """
    linear = linear_weights(model.module)
    schemes = chosen_schemes(linear, options, model.packed)
    int8 = [key for key, quant in schemes.items() if quant == INT8]
    if not options.calibration:
        if int8:
            raise OptionError(
                f"{len(int8)} layers are to be {INT8} without a calibration",
                where="\n".join(listed_kinds(int8)),
                why="the scales of their inputs and outputs follow from data",
                hint="run tw calibrate MODEL --data FILE, and give what it writes as --calibration",
            )
        return weights, None, None
    calibration = load_calibration(Path(options.calibration))
    check_model(calibration, model.module, weights)
    tuning = None
    if options.tune:
        element = element_by_name(options.choice.compute)
        weights, tuning = tune(
            model.module,
            weights,
            calibration,
            options.tune,
            schemes.__getitem__,
            scale_element=element,
        )
        calibration = replace(calibration, ranges=tuning.ranges)
    mark_calibrated(model.module, calibration, int8)
    return weights, calibration, tuning


def _ranges(calibration: Calibration | None) -> Ranges:
    """The ranges that the weight store makes tables of int8 layers of."""
    found = {} if calibration is None else calibration.ranges
    return {key: (each.input_absmax, each.output_absmax) for key, each in found.items()}


def _recorded(
    options: CompileOptions, calibration: Calibration | None, tuning: TuningReport | None
) -> dict[str, Any]:
    """The options as the manifest has them: lists of passes, rules and files only if given; of a
    calibration its ranges, and the proof that it ran; of tuning what it has done."""
    recorded = {
        name: value
        for name, value in asdict(options).items()
        if value or name not in _ONLY_IF_GIVEN
    }
    if calibration is not None:
        recorded["calibration"] = calibration_record(calibration)
    if tuning is not None:
        recorded["tune"] = tuning.to_json()
    return recorded
