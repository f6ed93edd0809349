"""The compiler as one ordered list of passes, from the model's graph to the program of a chip.

    top module --top passes, convert-top-to-tpu, tpu passes--> tpu module
               --kernel passes--> records --plan_memory, link--> Program

`lower` and `build_program` are the two halves; between them stands the tpu module that the artifact
keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.passes import ModulePass

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.program import Program
from tilewright.compiler.importers.packed.schemes import keep_packed
from tilewright.compiler.link import link
from tilewright.compiler.memory_plan import MemoryPlan, plan_memory
from tilewright.compiler.quantization.assignment import (
    QuantChoice,
    assign_schemes,
    check_schemes,
    explicit_marks,
)
from tilewright.compiler.quantization.goal import PER, Target
from tilewright.compiler.quantization.linear_weights import LinearWeight, linear_weights
from tilewright.compiler.quantization.rules import QuantRule, canonical
from tilewright.compiler.quantization.table import read_table
from tilewright.compiler.quantization.tuning_passes import tuning_passes
from tilewright.compiler.workbench.pipelines import passes_from_text, pipeline_text
from tilewright.compiler.workbench.runner import Instrument, PassRun, run_pipeline
from tilewright.dialects.errors import IRError, OptionError
from tilewright.dialects.levels import level_of
from tilewright.dialects.quantization import DENSE, check_quant
from tilewright.dialects.scopes import where_of
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass
from tilewright.passes.decompose_composites import DecomposeCompositesPass
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.emit_commands import EmitCommandsPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.lowerings.conversion import CALIBRATION_ATTRIBUTE
from tilewright.passes.registry import STAGES
from tilewright.passes.specialize_weights import (
    QUANT_ATTRIBUTE,
    SCALE_ATTRIBUTE,
    specialize_weights,
)
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass

NO_CALIBRATION = "none: costs only"
"""What stands for a digest where a program is only timed: its numbers are never computed."""

_STRUCTURE = frozenset(("builtin.module", "func.func", "func.return"))


@dataclass(frozen=True)
class CompileOptions:
    """What the user chooses.

    `quant` is a scheme or dense type for all linear layers (`tilewright.dialects.quantization`);
    `act` is the type of activations (`f16` or `bf16`) where they are quantized. A `quant_table`
    (the path of a file) says it for each weight instead, and `quant_rules` for those that they
    match, the last one first. `calibration` is the path of what `tw calibrate` wrote, `tune` the
    passes that change weights by what it says of their inputs (`awq-scale,gptq`). A `quant_target`
    (`4.5bpw`, `5GB`, `10tok/s`) chooses the schemes of linear layers among `quant_candidates`, for
    each kind of weight or for each layer (`quant_target_per`). `requantize` says that weights which
    the checkpoint holds quantized are quantized anew. `top_passes` and `tpu_passes` are pipelines,
    as `tw opt -p` takes them, that run on the module before and after `convert-top-to-tpu`.
    """

    quant: str = "w8a16"
    act: str = "f16"
    quant_head: bool = False
    quant_embedding: bool = False
    chip: str = "bm1684x"
    top_passes: str = ""
    tpu_passes: str = ""
    quant_rules: tuple[str, ...] = ()
    quant_table: str = ""
    calibration: str = ""
    tune: str = ""
    quant_target: str = ""
    quant_target_per: str = "kind"
    quant_candidates: tuple[str, ...] = ()
    requantize: bool = False

    def __post_init__(self) -> None:
        check_quant(self.quant)
        if self.act not in ("f16", "bf16"):
            raise OptionError(f"unknown activation type {self.act!r}", hint="f16 or bf16")
        if self.quant in DENSE and (self.quant_head or self.quant_embedding):
            raise OptionError(
                f"--quant-head and --quant-embedding need a quantized --quant, not {self.quant}"
            )
        lowering_passes(self)  # wrong passes are an error before the model is read
        self.rules()
        self._check_target()
        if self.tune:
            tuning_passes(self.tune)
        if self.tune and not self.calibration:
            raise OptionError(
                "--tune needs a --calibration",
                why="these passes look at what a layer's inputs are like",
                hint="run tw calibrate MODEL --data FILE --statistics (--hessian for gptq)",
            )

    def _check_target(self) -> None:
        if self.quant_target_per not in PER:
            raise OptionError(
                f"--quant-target-per {self.quant_target_per!r}", hint=" or ".join(PER)
            )
        for name in self.quant_candidates:
            canonical(name)
        if self.quant_target:
            Target.parse(self.quant_target)
        elif self.quant_candidates:
            raise OptionError("--quant-candidates is for a --quant-target")
        if self.quant_target and self.quant_table:
            raise OptionError(
                "a quantization table leaves nothing to decide",
                hint="--quant-target or --quant-table",
            )

    @property
    def choice(self) -> QuantChoice:
        """What the options say of all weights, but for the table and the rules."""
        compute = self.quant if self.quant in DENSE else self.act
        return QuantChoice(self.quant, compute, self.quant_head, self.quant_embedding)

    def rules(self) -> tuple[QuantRule, ...]:
        """The rules for single weights; raises `OptionError` for one that is none."""
        return tuple(QuantRule.parse(text) for text in self.quant_rules)


@dataclass(frozen=True)
class Built:
    """A program with the memory plan it was linked under."""

    program: Program
    plan: MemoryPlan
    chip: Chip


@dataclass(frozen=True)
class LoweringPasses:
    """From the top module to the tpu module: the user's passes on both sides of the conversion."""

    top: tuple[ModulePass, ...]
    conversion: ConvertTopToTpuPass
    tpu: tuple[ModulePass, ...]

    def names(self) -> list[str]:
        """As the manifest lists them: the user's with their options, which stand nowhere else."""
        return [
            *(pipeline_text([each]) for each in self.top),
            self.conversion.name,
            *(pipeline_text([each]) for each in self.tpu),
        ]


def kernel_passes(chip: str) -> tuple[ModulePass, ...]:
    """From the tpu module to encoded records, in order."""
    return (
        DecomposeCompositesPass(),
        TileForLocalMemoryPass(chip=chip),
        DoubleBufferPass(),
        AllocateLocalMemoryPass(chip=chip),
        InsertWaitsPass(),
        EmitCommandsPass(),
    )


def lowering_passes(options: CompileOptions) -> LoweringPasses:
    """From the top module to the tpu module, in order.

    Raises `OptionError` for the text of passes that is wrong.
    """
    return LoweringPasses(
        _chosen(options.top_passes, "--top-passes"),
        ConvertTopToTpuPass(
            quant=options.quant,
            act=options.act,
            quant_head=options.quant_head,
            quant_embedding=options.quant_embedding,
        ),
        _chosen(options.tpu_passes, "--tpu-passes"),
    )


def _chosen(text: str, option: str) -> tuple[ModulePass, ...]:
    """The passes that the user wants beside those of the compiler."""
    try:
        passes = tuple(passes_from_text(text))
    except OptionError as error:
        where = f"{option} {text!r}"
        raise OptionError(error.what, where=where, why=error.why, hint=error.hint) from error
    for each in passes:
        if each.name in STAGES:
            raise OptionError(
                f"{each.name} cannot be among the passes of {option}",
                where=f"{option} {text!r}",
                why="the compiler runs it itself, on all of the module",
                hint="tw opt runs passes in any order",
            )
    return passes


def chosen_schemes(
    weights: Mapping[str, LinearWeight],
    options: CompileOptions,
    packed: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The scheme (or dense type) of each weight of linear layers, head and embedding.

    `packed` are the schemes of the weights that the checkpoint holds quantized already. Raises
    `OptionError` for a table or rule that does not go with the model, and where a weight cannot be
    stored so; `UnsupportedError` where the chip lacks the scheme.
    """
    table = read_table(Path(options.quant_table), weights) if options.quant_table else None
    assigned = assign_schemes(weights, options.choice, table=table, rules=options.rules())
    if packed:
        assigned = keep_packed(packed, assign_schemes(weights, options.choice), assigned)
    check_schemes(weights, assigned, options.choice, options.chip)
    return assigned


def lower(
    module: ModuleOp,
    options: CompileOptions,
    *,
    f32_scales: Iterable[str] = (),
    calibration: str = "",
    packed: Mapping[str, str] | None = None,
    assigned: Mapping[str, str] | None = None,
) -> ModuleOp:
    """The tpu module of a top module, which is left as it is.

    `f32_scales` are the source keys whose scales are stored as f32 (docs/numerics.md: subnormal f16
    scale); `calibration` is the digest of the calibration that ran, unless `mark_calibrated` has
    put it down in the module: without one, layers are not lowered to int8. `packed` is as in
    `chosen_schemes`; `assigned` is what that has given, if it has been asked. Raises what it and
    the passes raise; `IRError` too where the user's passes leave ops that do not belong there.
    """
    lowered, passes = module.clone(), lowering_passes(options)
    run_passes(lowered, passes.top)
    if passes.top:
        _check_level(lowered, "top", f"--top-passes {options.top_passes!r}")
    weights = linear_weights(lowered)
    if assigned is None:
        assigned = chosen_schemes(weights, options, packed)
    marks = {
        key: {QUANT_ATTRIBUTE: quant}
        for key, quant in explicit_marks(weights, assigned, options.choice).items()
    }
    for key in f32_scales:
        marks.setdefault(key, {})[SCALE_ATTRIBUTE] = "f32"
    specialize_weights(lowered, marks)
    if calibration:
        lowered.attributes[CALIBRATION_ATTRIBUTE] = StringAttr(calibration)
    run_passes(lowered, (passes.conversion, *passes.tpu))
    if passes.tpu:
        _check_level(lowered, "tpu", f"--tpu-passes {options.tpu_passes!r}")
    return lowered


def _check_level(module: ModuleOp, level: str, passes: str) -> None:
    """Check that only functions of one level's ops are left after the user's passes."""
    for op in module.walk():
        if op.name not in _STRUCTURE and level_of(op) != level:
            raise IRError(
                f"{op.name} may not remain after {passes}",
                where=where_of(op),
                why=f"these passes are for modules of {level} ops and leave such",
            )


def build_program(
    tpu_module: ModuleOp,
    chip_name: str,
    *,
    check_fit: bool = True,
    on_pass: Callable[[str, float], None] | None = None,
) -> Built:
    """The program of a tpu module (which is left as it is) for a chip: kernels, memory plan,
    launches.

    Raises `FitError`, `UnsupportedError` and `IRError` as the passes do.
    """
    chip = load_chip(chip_name)
    module = tpu_module.clone()
    run_passes(module, kernel_passes(chip_name), on_pass=on_pass)
    plan = plan_memory(module, chip, check_fit=check_fit)
    return Built(link(module, plan, chip), plan, chip)


def run_passes(
    module: ModuleOp,
    passes: Iterable[ModulePass],
    *,
    on_pass: Callable[[str, float], None] | None = None,
) -> None:
    """Run passes in order, verified; `on_pass` hears of each, with its seconds."""
    run_pipeline(module, passes, () if on_pass is None else (_Seconds(on_pass),))


@dataclass
class _Seconds(Instrument):
    """Tells how long each pass took, its verification included."""

    on_pass: Callable[[str, float], None]

    def after_pass(self, run: PassRun) -> None:
        self.on_pass(run.name, run.pass_s + run.verify_s)
