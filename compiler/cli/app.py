"""The verbs of `tw`. Every verb imports what it needs when it runs, so that `tw --help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="tw",
    help="Compile models to the command streams of a simulated TPU, and run them: the numbers and the cycles.",
    epilog="Start with:  tw compile CHECKPOINT --quant w8a16 --seq 512 -o model.twm",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON document (docs/json.md) instead of text.")
]
ChipOption = Annotated[
    str, typer.Option("--chip", help="A chip's name (tw chips) or the path of a chip file.")
]
SeqOption = Annotated[
    int, typer.Option("--seq", help="Positions: the padded prompt's and the KV cache's length.")
]
PromptOption = Annotated[
    str, typer.Option("--prompt-ids", help="Token ids of the prompt, separated by commas.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tw {version('tilewright')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Compile models to the command streams of a simulated TPU, and run them."""


@app.command("compile")
def compile_verb(
    source: Annotated[
        Path,
        typer.Argument(
            help="A Hugging Face checkpoint directory, or top IR (.mlir) with FILE.safetensors beside it."
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The artifact to write (.twm).")],
    quant: Annotated[
        str, typer.Option("--quant", help="f32, f16, bf16 or w8a16 (int8 weights).")
    ] = "w8a16",
    seq: SeqOption = 512,
    act: Annotated[
        str, typer.Option("--act", help="Activation type of w8a16: f16 or bf16.")
    ] = "f16",
    quant_head: Annotated[
        bool, typer.Option("--quant-head", help="Quantize the output head too (w8a16).")
    ] = False,
    quant_embedding: Annotated[
        bool, typer.Option("--quant-embedding", help="Quantize the embedding too (w8a16).")
    ] = False,
    chip: ChipOption = "bm1684x",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    json: JsonFlag = False,
) -> None:
    """Compile a checkpoint or top IR into an artifact.

    Example: tw compile chatglm2-6b --quant w8a16 --seq 512 -o chatglm2.twm
    """
    from tilewright.compiler.cli.compile_verb import run_compile
    from tilewright.compiler.pipeline import CompileOptions

    options = CompileOptions(quant, act, quant_head, quant_embedding, chip)
    run_compile(source, output, options, seq=seq, quiet=quiet, json=json)


@app.command("run")
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
    json: JsonFlag = False,
) -> None:
    """Run an artifact on the simulated TPU: greedy token ids, cycles, and token/s at the chip's clock.

    Example: tw run chatglm2.twm --prompt-ids 64790,64792,790 --max-new-tokens 8
    """
    from tilewright.compiler.cli.run_verb import run_function, run_generation

    if function:
        run_function(model, function, inputs, output, json=json)
    else:
        run_generation(model, prompt_ids, max_new_tokens, ignore_eos=ignore_eos, json=json)


@app.command("compare")
def compare_verb(
    model: Annotated[Path, typer.Argument(help="An artifact (.twm).")],
    prompt_ids: PromptOption = "",
    function: Annotated[
        str, typer.Option("--function", help="Which function; all of them if left out.")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Seed of made-up inputs.")] = 0,
    all_ops: Annotated[
        bool, typer.Option("--all", help="A row for every op, not one for each kind of op.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check every op on the simulator against float64: cosine, SNR, worst error against its bound.

    Ends with exit code 8 and names the first op out of bound, in the model's words.
    Example: tw compare chatglm2.twm --prompt-ids 1,2,3
    """
    from tilewright.compiler.cli.compare_verb import run_compare

    run_compare(model, prompt_ids, function, seed=seed, all_ops=all_ops, json=json)


@app.command("estimate")
def estimate_verb(
    source: Annotated[
        Path, typer.Argument(help="A checkpoint directory or a config.json; no weights are needed.")
    ],
    quant: Annotated[
        str, typer.Option("--quant", help="One or more of f32, f16, bf16, w8a16, by commas.")
    ] = "f16,w8a16",
    seq: SeqOption = 512,
    quant_head: Annotated[
        bool, typer.Option("--quant-head", help="Quantize the output head too (w8a16).")
    ] = False,
    quant_embedding: Annotated[
        bool, typer.Option("--quant-embedding", help="Quantize the embedding too (w8a16).")
    ] = False,
    chip: ChipOption = "bm1684x",
    json: JsonFlag = False,
) -> None:
    """Predict size, fit, prefill time, token/s and what bounds them, from a configuration alone.

    Example: tw estimate chatglm2-6b/config.json --quant f16,w8a16 --seq 512
    """
    from tilewright.compiler.cli.estimate_verb import run_estimate

    run_estimate(
        source,
        [mode.strip() for mode in quant.split(",")],
        seq=seq,
        quant_head=quant_head,
        quant_embedding=quant_embedding,
        chip=chip,
        json=json,
    )


@app.command("profile")
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
    """Where the cycles go: per layer and per kernel, busy and waiting, share of the roofline.

    Example: tw profile chatglm2.twm --function decode
    """
    from tilewright.compiler.cli.profile_verb import run_profile

    run_profile(model, function, trace=trace, json=json)


@app.command("inspect")
def inspect_verb(
    model: Annotated[Path, typer.Argument(help="An artifact (.twm).")],
    commands: Annotated[
        str, typer.Option("--commands", help="Disassemble this kernel (a name or its start).")
    ] = "",
    module: Annotated[bool, typer.Option("--module", help="Print the tpu module.")] = False,
    json: JsonFlag = False,
) -> None:
    """Show an artifact's manifest, memory plan and kernels, or one kernel's commands.

    Example: tw inspect chatglm2.twm --commands w8a16_matmul
    """
    from tilewright.compiler.cli.inspect_verb import run_inspect

    run_inspect(model, commands, module=module, json=json)


@app.command(
    "opt",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def opt_verb(context: typer.Context) -> None:
    """Run passes on IR text: tw opt FILE.mlir -p 'pass{option=value},...' (tw opt --help).

    Example: tw opt model.mlir -p 'convert-top-to-tpu{quant=w8a16},tile-for-local-memory'
    """
    from tilewright.compiler.cli.opt_verb import run_opt

    code = run_opt(list(context.args))
    if code:
        raise typer.Exit(code)


@app.command("passes")
def passes_verb(json: JsonFlag = False) -> None:
    """List the passes with their options."""
    from tilewright.compiler.cli.catalog_verbs import list_passes

    list_passes(json=json)


@app.command("ops")
def ops_verb(
    name: Annotated[str, typer.Argument(help="An op, e.g. tpu.W8A16MatMul; all if left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the ops of all dialects, or document one."""
    from tilewright.compiler.cli.catalog_verbs import list_ops

    list_ops(name, json=json)


@app.command("chips")
def chips_verb(
    name: Annotated[str, typer.Argument(help="A chip or chip file; all if left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the chips, or every figure of one with its source."""
    from tilewright.compiler.cli.catalog_verbs import list_chips

    list_chips(name, json=json)


@app.command("doctor")
def doctor_verb(json: JsonFlag = False) -> None:
    """Check this installation: versions, kernels' compilation, a small compile and run."""
    from tilewright.compiler.cli.doctor_verb import run_doctor

    code = run_doctor(json=json)
    if code:
        raise typer.Exit(code)


def invoke(arguments: list[str]) -> int:
    """Run the verb that `arguments` name; returns the exit code. Tilewright's own errors pass through."""
    try:
        app(args=arguments, prog_name="tw")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    return 0
