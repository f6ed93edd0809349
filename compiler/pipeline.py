"""The compiler as one ordered list of passes, from the model's graph to the program of a chip.

    top module --convert-top-to-tpu--> tpu module --kernel passes--> records
               --plan_memory, link--> Program

`lower` and `build_program` are the two halves; between them stands the tpu module that the artifact
keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from tilewright.backends.chip import Chip, load_chip
from tilewright.backends.program import Program
from tilewright.compiler.link import link
from tilewright.compiler.memory_plan import MemoryPlan, plan_memory
from tilewright.compiler.workbench.runner import Instrument, PassRun, run_pipeline
from tilewright.dialects.errors import OptionError
from tilewright.passes.allocate_local_memory import AllocateLocalMemoryPass
from tilewright.passes.convert_top_to_tpu import ConvertTopToTpuPass, specialize_scales
from tilewright.passes.double_buffer import DoubleBufferPass
from tilewright.passes.emit_commands import EmitCommandsPass
from tilewright.passes.insert_waits import InsertWaitsPass
from tilewright.passes.tile_for_local_memory import TileForLocalMemoryPass

QUANT_MODES = ("f32", "f16", "bf16", "w8a16")


@dataclass(frozen=True)
class CompileOptions:
    """What the user chooses. `act` is the activation type of w8a16 (`f16` or `bf16`)."""

    quant: str = "w8a16"
    act: str = "f16"
    quant_head: bool = False
    quant_embedding: bool = False
    chip: str = "bm1684x"

    def __post_init__(self) -> None:
        if self.quant not in QUANT_MODES:
            raise OptionError(
                f"unknown quantization {self.quant!r}", hint=f"one of {', '.join(QUANT_MODES)}"
            )
        if self.act not in ("f16", "bf16"):
            raise OptionError(f"unknown activation type {self.act!r} for w8a16", hint="f16 or bf16")
        if self.quant != "w8a16" and (self.quant_head or self.quant_embedding):
            raise OptionError(
                f"--quant-head and --quant-embedding need --quant w8a16, not {self.quant}"
            )


@dataclass(frozen=True)
class Built:
    """A program with the memory plan it was linked under."""

    program: Program
    plan: MemoryPlan
    chip: Chip


def kernel_passes(chip: str) -> tuple[ModulePass, ...]:
    """From the tpu module to encoded records, in order."""
    return (
        TileForLocalMemoryPass(chip=chip),
        DoubleBufferPass(),
        AllocateLocalMemoryPass(chip=chip),
        InsertWaitsPass(),
        EmitCommandsPass(),
    )


def lower(module: ModuleOp, options: CompileOptions, *, f32_scales: Iterable[str] = ()) -> ModuleOp:
    """The tpu module of a top module, which is left as it is.

    `f32_scales` are the source keys whose scales are stored as f32 (docs/numerics.md: subnormal f16
    scale).
    """
    lowered = module.clone()
    specialize_scales(lowered, frozenset(f32_scales))
    conversion = ConvertTopToTpuPass(
        quant=options.quant,
        act=options.act,
        quant_head=options.quant_head,
        quant_embedding=options.quant_embedding,
    )
    run_passes(lowered, (conversion,))
    return lowered


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
