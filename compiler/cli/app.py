"""The verbs of `tw`. Each imports what it needs when it runs: `tw --help` answers at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.compiler.cli.settings import Settings

app = typer.Typer(
    name="tw",
    help="Compile models to the command streams of a simulated TPU, and run them: "
    "the numbers and the cycles.",
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

PipelineOption = Annotated[
    str, typer.Option("-p", "--passes", help="'pass{option=value},...', as tw opt takes them.")
]


def _example(command: str) -> str:
    """The end of a verb's help; `\\b` keeps the line as it is."""
    return f"\b\nExample:\n  {command}"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tw {version('tilewright')}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where in Tilewright an error comes from.")
    ] = False,
    load: Annotated[
        list[Path] | None,
        typer.Option(
            "--load",
            metavar="FILE",
            help="Use what is in this .py or .rules file, too; behind the verb as well.",
        ),
    ] = None,
) -> None:
    """Compile models to the command streams of a simulated TPU, and run them."""
    context.obj.traceback = traceback
    if load:
        from tilewright.dialects.plugins import load_file

        for file in load:
            load_file(file)


@app.command(
    "compile",
    epilog=_example("tw compile chatglm2-6b --quant w8a16 --seq 512 -o chatglm2.twm"),
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
    from tilewright.compiler.pipeline import CompileOptions

    options = CompileOptions(quant, act, quant_head, quant_embedding, chip, top_passes, tpu_passes)
    run_compile(source, output, options, seq=seq, quiet=quiet, json=json)


@app.command(
    "run",
    short_help="Run an artifact on the simulated TPU.",
    epilog=_example("tw run chatglm2.twm --prompt-ids 64790,64792,790 --max-new-tokens 8"),
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
    "compare",
    short_help="Check every op on the simulator against float64.",
    epilog=_example("tw compare chatglm2.twm --prompt-ids 1,2,3"),
)
def compare_verb(
    model: Annotated[Path, typer.Argument(help="An artifact (.twm).")],
    prompt_ids: PromptOption = "",
    function: Annotated[
        str, typer.Option("--function", help="Which function; all of them if left out.")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of made-up inputs.")] = 0,
    all_ops: Annotated[
        bool, typer.Option("--all", help="A row for every op, not one for each kind of op.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Check every op on the simulator against float64: cosine, SNR, worst error against its bound.

    Ends with exit code 8 and names the first op out of bound, in the model's words.
    """
    from tilewright.compiler.cli.compare_verb import run_compare

    run_compare(model, prompt_ids, function, seed=seed, all_ops=all_ops, json=json)


@app.command(
    "estimate",
    short_help="Predict size, fit and speed from a configuration alone.",
    epilog=_example("tw estimate chatglm2-6b/config.json --quant f16,w8a16 --seq 512"),
)
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
    """Predict size, fit, prefill time, token/s and what bounds them, from a configuration alone."""
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


@app.command(
    "profile",
    short_help="Show where the cycles go, by layer and by kernel.",
    epilog=_example("tw profile chatglm2.twm --function decode"),
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
    epilog=_example("tw inspect chatglm2.twm --commands w8a16_matmul"),
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
    "opt",
    short_help="Run passes on IR text.",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def opt_verb(context: typer.Context) -> None:
    """Run passes on IR text: tw opt FILE.mlir -p 'pass{option=value},...' (tw opt --help)."""
    from tilewright.compiler.cli.opt_verb import run_opt

    code = run_opt(list(context.args))
    if code:
        raise typer.Exit(code)


@app.command(
    "trace",
    short_help="Show which pattern rewrites which op into what.",
    epilog=_example("tw trace model.mlir -p compile --html trace.html"),
)
def trace_verb(
    source: Annotated[str, typer.Argument(help="An IR file; - reads stdin.")],
    passes: Annotated[
        str, typer.Option("-p", "--passes", help="'pass{option=value},...', as tw opt takes them.")
    ] = "compile",
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page to step through, before and after.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show every step of every pattern: the op it rewrites, its source line, what it makes."""
    from tilewright.compiler.cli.trace_verb import run_trace

    run_trace(source, passes, html, json=json)


@app.command(
    "replay",
    short_help="Show a failure of a pass again.",
    epilog=_example("tw replay tilewright-reproducers/double-buffer-miscompilation"),
)
def replay_verb(
    folder: Annotated[Path, typer.Argument(help="A reproducer, as tw opt --reproducers writes.")],
    json: JsonFlag = False,
) -> None:
    """Run the failing pass of a reproducer again: ends with the failure's exit code, or 0 if it is
    gone."""
    from tilewright.compiler.cli.failure_verbs import run_replay

    code = run_replay(folder, json=json)
    if code:
        raise typer.Exit(code)


@app.command(
    "bisect",
    short_help="Find the first bad pass and its first bad step.",
    epilog=_example("tw bisect model.mlir -p compile"),
)
def bisect_verb(
    target: Annotated[Path, typer.Argument(help="A reproducer, or an IR file.")],
    passes: PipelineOption = "",
    json: JsonFlag = False,
) -> None:
    """Find the first pass that fails or changes what the model computes, and its first bad step."""
    from tilewright.compiler.cli.failure_verbs import run_bisect

    run_bisect(target, passes, json=json)


@app.command(
    "reduce",
    short_help="Shrink a model while a pass fails on it in the same way.",
    epilog=_example("tw reduce model.mlir -p compile -o small.mlir"),
)
def reduce_verb(
    target: Annotated[Path, typer.Argument(help="A reproducer, or an IR file.")],
    passes: PipelineOption = "",
    output: Annotated[
        str, typer.Option("-o", "--output", help="Where to write the IR; - is stdout.")
    ] = "-",
    reproducers: Annotated[
        str, typer.Option("--reproducers", help="Write a reproducer into this folder; or none.")
    ] = "tilewright-reproducers",
    json: JsonFlag = False,
) -> None:
    """Shrink a model while a pass fails on it in the same way: fewer functions, ops and sizes."""
    from tilewright.compiler.cli.failure_verbs import run_reduce

    run_reduce(target, passes, output, reproducers, json=json)


@app.command(
    "passes",
    epilog=_example("tw passes double-buffer"),
)
def passes_verb(
    name: Annotated[str, typer.Argument(help="A pass or pipeline; all if left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the passes with their options, or document one."""
    from tilewright.compiler.cli.catalog_verbs import list_passes

    list_passes(name, json=json)


@app.command(
    "rules",
    short_help="List rewrite rules, or check each on its own.",
    epilog=_example("tw rules check mine.rules"),
)
def rules_verb(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[check|list|show] [FILE|PASS|PIPELINE]... [NAME]",
            help="*.rules files, .py files with passes, passes or pipelines; for show the name of "
            "a rule behind them.",
        ),
    ] = None,
    rule: Annotated[str, typer.Option("--rule", help="check: only the rule of this name.")] = "",
    examples: Annotated[
        int, typer.Option("--examples", min=1, help="check: instances of each rule.")
    ] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="check: of the instances.")] = 0,
    json: JsonFlag = False,
) -> None:
    """List rewrite rules, show one, or check each on its own.

    check makes up instances of a rule's pattern, runs them in float64 before and after the rule,
    and ends with exit code 13 and the smallest counterexample where they differ.
    """
    from tilewright.compiler.cli.rules_verb import run_rules

    run_rules(words or [], rule, examples=examples, seed=seed, json=json)


@app.command(
    "ops",
    epilog=_example("tw ops tpu.W8A16MatMul"),
)
def ops_verb(
    name: Annotated[str, typer.Argument(help="An op, e.g. tpu.W8A16MatMul; all if left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the ops of all dialects, or document one."""
    from tilewright.compiler.cli.catalog_verbs import list_ops

    list_ops(name, json=json)


@app.command(
    "chips",
    epilog=_example("tw chips bm1684x"),
)
def chips_verb(
    name: Annotated[str, typer.Argument(help="A chip or chip file; all if left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the chips, or every figure of one with its source."""
    from tilewright.compiler.cli.catalog_verbs import list_chips

    list_chips(name, json=json)


@app.command(
    "new-pass",
    short_help="Write a new pass with its tests and documentation row.",
    epilog=_example("tw new-pass fuse-bias --package acme --dir acme-tilewright"),
)
def new_pass_verb(
    name: Annotated[str, typer.Argument(help="The pass's name, verb first: fuse-bias.")],
    rules: Annotated[
        bool, typer.Option("--rules", help="Write it in the rewrite language.")
    ] = False,
    folder: Annotated[
        Path, typer.Option("--dir", help="A checkout of Tilewright, or your package's folder.")
    ] = Path(),
    package: Annotated[
        str, typer.Option("--package", help="Make a package of this name in the folder.")
    ] = "",
    json: JsonFlag = False,
) -> None:
    """Write a new pass: its file, lit test, numeric test and documentation row.

    The pass is small and works; its tests pass. In a checkout of Tilewright it becomes one of its
    passes, anywhere else one of a package with a plugin.
    """
    from tilewright.compiler.cli.new_pass_verb import run_new_pass

    run_new_pass(name, folder, package, rules=rules, json=json)


@app.command(
    "doctor",
    short_help="Check this installation.",
    epilog=_example("tw doctor"),
)
def doctor_verb(json: JsonFlag = False) -> None:
    """Check this installation: versions, kernels' compilation, a small compile and run."""
    from tilewright.compiler.cli.doctor_verb import run_doctor

    code = run_doctor(json=json)
    if code:
        raise typer.Exit(code)


def invoke(arguments: list[str], settings: Settings) -> int:
    """Run the verb that `arguments` name; returns 0 or raises, `SystemExit` included.

    The options before the verb are put into `settings`.
    """
    try:
        app(args=arguments, prog_name="tw", obj=settings)
    except SystemExit as end:
        if end.code:
            raise
    return 0
