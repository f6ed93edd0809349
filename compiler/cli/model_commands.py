"""The verbs of whoever compiles and runs models, and of whoever looks at the machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.compiler.cli.app import (
    QUANT_DEFAULT,
    QUANT_HELP,
    ActOption,
    ChipOption,
    JsonFlag,
    PromptOption,
    QuantCandidatesOption,
    QuantEmbeddingFlag,
    QuantHeadFlag,
    QuantRuleOption,
    QuantTableOption,
    QuantTargetOption,
    QuantTargetPerOption,
    RequantizeFlag,
    SeqOption,
    app,
    check_chosen_once,
    example,
    listed,
)


@app.command(
    "compile",
    epilog=example("tw compile chatglm2-6b --quant w8a16 --seq 512 -o chatglm2.twm"),
)
def compile_verb(
    source: Annotated[
        Path,
        typer.Argument(
            help="A Hugging Face checkpoint directory, or top IR in FILE.mlir with its weights "
            "in FILE.safetensors, or what a plugin's importer reads."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact to write (.twm).")],
    quant: Annotated[str | None, typer.Option("--quant", help=QUANT_HELP + QUANT_DEFAULT)] = None,
    seq: SeqOption = 512,
    act: ActOption = "f16",
    quant_head: QuantHeadFlag = False,
    quant_embedding: QuantEmbeddingFlag = False,
    quant_rule: QuantRuleOption = None,
    quant_table: QuantTableOption = None,
    quant_target: QuantTargetOption = "",
    quant_target_per: QuantTargetPerOption = "kind",
    quant_candidates: QuantCandidatesOption = "",
    requantize: RequantizeFlag = False,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", help="What tw calibrate wrote; int8 needs it.")
    ] = None,
    tune: Annotated[
        str,
        typer.Option(
            "--tune",
            help="Passes that round better, with --calibration: smooth-quant, awq-scale, gptq.",
        ),
    ] = "",
    chip: ChipOption = "bm1684x",
    top_passes: Annotated[
        str,
        typer.Option(
            "--top-passes", help="Passes on the model before conversion: 'pass{option=value},...'."
        ),
    ] = "",
    tpu_passes: Annotated[
        str, typer.Option("--tpu-passes", help="Passes on the converted model, in the same form.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    json: JsonFlag = False,
) -> None:
    """Compile a checkpoint or top IR into an artifact."""
    from tilewright.compiler.cli.compile_verb import run_compile
    from tilewright.compiler.importers.packed.schemes import default_quant
    from tilewright.compiler.pipeline import CompileOptions

    check_chosen_once(quant, quant_target)
    options = CompileOptions(
        quant or default_quant(source, act, requantize),
        act,
        quant_head,
        quant_embedding,
        chip,
        top_passes,
        tpu_passes,
        quant_rules=tuple(quant_rule or ()),
        quant_table=str(quant_table or ""),
        calibration=str(calibration or ""),
        tune=tune,
        quant_target=quant_target,
        quant_target_per=quant_target_per,
        quant_candidates=listed(quant_candidates),
        requantize=requantize,
    )
    run_compile(source, output, options, seq=seq, quiet=quiet, json=json)


@app.command(
    "run",
    short_help="Run an artifact on the simulated TPU.",
    epilog=example("tw run chatglm2.twm --prompt-ids 64790,64792,790 --max-new-tokens 8"),
)
def run_verb(
    model: Annotated[Path, typer.Argument(help="An artifact (.twm).")],
    prompt_ids: PromptOption = "",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", help="Tokens to generate.")
    ] = 8,
    function: Annotated[
        str, typer.Option("--function", help="Run this function on --inputs instead of generating.")
    ] = "",
    inputs: Annotated[
        Path | None, typer.Option("--inputs", help="An .npz file with the function's inputs.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="An .npz file for the outputs.")
    ] = None,
    ignore_eos: Annotated[
        bool, typer.Option("--ignore-eos", help="Do not stop at the model's end-of-sequence ids.")
    ] = False,
    backend: Annotated[
        str,
        typer.Option("--backend", help="What executes it: simulator, reference, or a plugin's."),
    ] = "simulator",
    json: JsonFlag = False,
) -> None:
    """Run an artifact on the simulated TPU: greedy token ids, cycles, token/s at its clock.

    Another backend computes the numbers in its own way; the cycles are always the chip's.
    """
    from tilewright.compiler.cli.run_verb import run_function, run_generation

    if function:
        run_function(model, function, inputs, output, backend=backend, json=json)
    else:
        run_generation(
            model, prompt_ids, max_new_tokens, ignore_eos=ignore_eos, backend=backend, json=json
        )


@app.command(
    "estimate",
    short_help="Predict size, fit and speed from a configuration alone.",
    epilog=example("tw estimate chatglm2-6b/config.json --quant f16,w8a16 --seq 512"),
)
def estimate_verb(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint directory or a config.json; no weights are needed.")
    ],
    quant: Annotated[
        str | None,
        typer.Option(
            "--quant",
            help=f"One or more, by commas: {QUANT_HELP} If left out: as the checkpoint is "
            "quantized already, else f16,w8a16.",
        ),
    ] = None,
    seq: SeqOption = 512,
    act: ActOption = "f16",
    quant_head: QuantHeadFlag = False,
    quant_embedding: QuantEmbeddingFlag = False,
    quant_rule: QuantRuleOption = None,
    quant_table: QuantTableOption = None,
    chip: ChipOption = "bm1684x",
    json: JsonFlag = False,
) -> None:
    """Predict size, fit, prefill time, token/s and what bounds them, from a configuration alone."""
    from tilewright.compiler.cli.estimate_verb import run_estimate
    from tilewright.compiler.pipeline import CompileOptions
    from tilewright.dialects.quantization import DEFAULT_SCHEME

    run_estimate(
        source,
        [] if quant is None else [mode.strip() for mode in quant.split(",")],
        CompileOptions(
            DEFAULT_SCHEME,
            act,
            quant_head,
            quant_embedding,
            chip,
            quant_rules=tuple(quant_rule or ()),
            quant_table=str(quant_table or ""),
        ),
        seq=seq,
        json=json,
    )


@app.command(
    "profile",
    short_help="Show where the cycles go, by layer and by kernel.",
    epilog=example("tw profile chatglm2.twm --function decode"),
)
def profile_verb(
    model: Annotated[Path, typer.Argument(help="An artifact (.twm).")],
    function: Annotated[
        str, typer.Option("--function", help="Which function; all of them if left out.")
    ] = "",
    trace: Annotated[
        Path | None, typer.Option("--trace", help="Write a Chrome trace (JSON) of the timeline.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Where the cycles go: per layer and per kernel, busy and waiting, share of the roofline."""
    from tilewright.compiler.cli.profile_verb import run_profile

    run_profile(model, function, trace=trace, json=json)


@app.command(
    "inspect",
    short_help="Show what an artifact holds, or a kernel's commands.",
    epilog=example("tw inspect chatglm2.twm --commands w8a16_matmul"),
)
def inspect_verb(
    model: Annotated[Path, typer.Argument(help="An artifact (.twm).")],
    commands: Annotated[
        str, typer.Option("--commands", help="Disassemble this kernel (a name or its start).")
    ] = "",
    module: Annotated[bool, typer.Option("--module", help="Print the tpu module.")] = False,
    json: JsonFlag = False,
) -> None:
    """Show an artifact's manifest, memory plan and kernels, or one kernel's commands."""
    from tilewright.compiler.cli.inspect_verb import run_inspect

    run_inspect(model, commands, module=module, json=json)


@app.command(
    "chips",
    epilog=example("tw chips bm1684x"),
)
def chips_verb(
    name: Annotated[str, typer.Argument(help="A chip or chip file; all if left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the chips, or every figure of one with its source."""
    from tilewright.compiler.cli.catalog_verbs import list_chips

    list_chips(name, json=json)


@app.command(
    "doctor",
    short_help="Check this installation.",
    epilog=example("tw doctor"),
)
def doctor_verb(json: JsonFlag = False) -> None:
    """Check this installation: versions, kernels' compilation, a small compile and run."""
    from tilewright.compiler.cli.doctor_verb import run_doctor

    code = run_doctor(json=json)
    if code:
        raise typer.Exit(code)
