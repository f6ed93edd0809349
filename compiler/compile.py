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
    model_fingerprint,
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
    run_passes,
)
from tilewright.compiler.quantization.choose import ChosenSchemes, choose_schemes
from tilewright.compiler.quantization.linear_weights import linear_weights, listed_kinds
from tilewright.compiler.quantization.tuned import tune
from tilewright.compiler.quantization.tuning_report import TuningReport
from tilewright.compiler.weight_requests import weight_requests
from tilewright.compiler.weights.dequantized import DequantizedWeights
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
    chosen: ChosenSchemes | None
    """What a `quant_target` chose, if there was one."""
    tuning: TuningReport | None
    stages_s: Mapping[str, float]


OnStage = Callable[[str, float], None]

INT8 = "int8"
"""The scheme whose layers need ranges of activations."""
_ONLY_IF_GIVEN = frozenset(
    ("top_passes", "tpu_passes", "quant_rules", "quant_table", "calibration", "tune", "requantize")
)
"""Options that the manifest lists only where they are used."""
_OF_A_TARGET = frozenset(("quant_target", "quant_target_per", "quant_candidates"))
"""Options in whose place the manifest has what was chosen."""


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
    on_choice: Callable[[ChosenSchemes], None] | None = None,
) -> Compiled:
    """Compile `source` into the artifact `output`, which appears only when it is complete.

    Weights stream through small buffers from the checkpoint into the artifact. `on_choice` hears
    what a `quant_target` has chosen. Raises what the stages raise: see docs/exit_codes.md.
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
        chosen = _chosen(model, container, options)
        if chosen is not None:
            stage("quant-target", perf_counter() - start)
            if on_choice is not None:
                on_choice(chosen)
            start = perf_counter()
        assigned = None if chosen is None else chosen.assigned
        packed = model.kept_as_packed(options.requantize)
        ready = prepared(model, container, options, assigned)
        stage("tune", perf_counter() - start)
        start = perf_counter()
        tpu_module = lower(model.module, options, packed=packed, assigned=assigned)
        stage("lower", perf_counter() - start)
        built = build_program(tpu_module, options.chip, on_pass=stage)
        start = perf_counter()
        requests = weight_requests(built.plan, model.tables())
        stored = writer.write_weights(
            ready.weights, requests, ranges=ready.ranges, progress=on_weight
        )
        stage("weights", perf_counter() - start)
        f32_scales = [
            slot.key
            for slot in built.plan.weights.values()
            if slot.form == "scale" and stored.scale_elements[slot.name] != slot.element
        ]
        if f32_scales:
            tpu_module = lower(
                model.module, options, f32_scales=f32_scales, packed=packed, assigned=assigned
            )
            built = build_program(tpu_module, options.chip, on_pass=stage)
        start = perf_counter()
        writer.finish(
            built.program,
            print_module(tpu_module),
            built.chip,
            model={
                **describe(model, seq),
                "fingerprint": model_fingerprint(model.module, container),
            },
            options=_recorded(options, chosen, ready),
            pipeline=",".join(
                [
                    *lowering_passes(options).names(),
                    *(each.name for each in kernel_passes(options.chip)),
                ]
            ),
            inputs=dict(ready.weights.fingerprints()),
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
        chosen,
        ready.tuning,
        stages,
    )


def _chosen(
    model: ImportedModel, weights: WeightSource, options: CompileOptions
) -> ChosenSchemes | None:
    """What the target chooses, if there is one, for the module as the user's passes leave it."""
    if not options.quant_target:
        return None
    module = model.module.clone()
    run_passes(module, lowering_passes(options).top)
    return choose_schemes(model, replace(options, top_passes=""), module=module, source=weights)


@dataclass(frozen=True)
class Prepared:
    """Weights as they are to be stored, and what they are to be stored with."""

    weights: WeightSource
    calibration: Calibration | None = None
    """As its file has it."""
    tuning: TuningReport | None = None

    @property
    def ranges(self) -> Ranges:
        """What the tables of int8 layers are made of: the calibration's, or as tuning left them."""
        if self.calibration is None:
            return {}
        found = self.calibration.ranges if self.tuning is None else self.tuning.ranges
        return {key: (each.input_absmax, each.output_absmax) for key, each in found.items()}


def prepared(
    model: ImportedModel,
    weights: WeightSource,
    options: CompileOptions,
    assigned: Mapping[str, str] | None = None,
) -> Prepared:
    """The weights as they are to be stored, tuned if the options say so, and the calibration.

    `assigned` is the scheme of each weight if it has been chosen already. That `model.module` may
    be lowered to int8 with the calibration is put down in it: the digest there, in the manifest and
    in the calibration's file is one. Raises `OptionError` where the calibration is one of another
    model, lacks a layer that is to be int8 or what a tuning pass needs, or is missing though a
    layer is to be int8; `ModelReadError` where it cannot be read.
    """
    schemes = assigned
    if schemes is None:
        packed = model.kept_as_packed(options.requantize)
        schemes = chosen_schemes(linear_weights(model.module), options, packed)
    source = DequantizedWeights(weights) if options.requantize else weights
    int8 = [key for key, quant in schemes.items() if quant == INT8]
    if not options.calibration:
        if int8:
            raise OptionError(
                f"{len(int8)} layers are to be {INT8} without a calibration",
                where="\n".join(listed_kinds(int8)),
                why="the scales of their inputs and outputs follow from data",
                hint="run tw calibrate MODEL --data FILE, and give what it writes as --calibration",
            )
        return Prepared(source)
    calibration = load_calibration(Path(options.calibration))
    check_model(calibration, model.module, weights)
    mark_calibrated(model.module, calibration, int8)
    if not options.tune:
        return Prepared(source, calibration)
    element = element_by_name(options.choice.compute)
    tuned, report = tune(
        model.module,
        source,
        calibration,
        options.tune,
        schemes.__getitem__,
        scale_element=element,
    )
    return Prepared(tuned, calibration, report)


def _recorded(
    options: CompileOptions, chosen: ChosenSchemes | None, ready: Prepared
) -> dict[str, Any]:
    """The options as the manifest has them: lists of passes, rules and files only if given; of a
    target what was chosen; of a calibration its ranges, and the proof that it ran, as in its file;
    of tuning what it has done, and the ranges as it left them."""
    recorded = {
        name: value
        for name, value in asdict(options).items()
        if name not in _OF_A_TARGET and (value or name not in _ONLY_IF_GIVEN)
    }
    if chosen is not None:
        candidates = list(options.quant_candidates)
        recorded["quant_target"] = {**chosen.to_json(), "candidates": candidates}
    if ready.calibration is not None:
        recorded["calibration"] = calibration_record(ready.calibration)
    if ready.tuning is not None:
        recorded["tune"] = ready.tuning.to_json()
    return recorded
