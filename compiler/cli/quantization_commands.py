"""The verbs of whoever quantizes models, and wants to know what that costs."""

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
    "calibrate",
    short_help="Take the ranges of a model's layers on data, for int8.",
    epilog=example("tw calibrate chatglm2-6b --data tokens.jsonl --method kl -o m.calib.json"),
)
def calibrate_verb(
    source: Annotated[Path, typer.Argument(help="A model, as for tw compile.")],
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            help="Token ids (.txt, .json, .jsonl, .npy), or a function's inputs (.npz).",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The calibration to write (.calib.json).")
    ],
    method: Annotated[
        str, typer.Option("--method", help="minmax, percentile, kl or mse.")
    ] = "minmax",
    percentile: Annotated[
        float | None, typer.Option("--percentile", help="For that method; 99.99 if left out.")
    ] = None,
    seq: SeqOption = 512,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Use the first so many; all if left out.")
    ] = None,
    function: Annotated[
        str, typer.Option("--function", help="Which function .npz inputs are for.")
    ] = "",
    statistics: Annotated[
        bool,
        typer.Option("--statistics", help="Keep the inputs' size by channel (.calib.safetensors)."),
    ] = False,
    hessian: Annotated[
        bool, typer.Option("--hessian", help="Keep the inputs' second moments, too, as GPTQ needs.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    json: JsonFlag = False,
) -> None:
    """Run a model on data in floating point and write the ranges of its linear layers."""
    from tilewright.compiler.cli.calibrate_verb import run_calibrate

    run_calibrate(
        source,
        data,
        output,
        method=method,
        percentile=percentile,
        seq=seq,
        samples=samples,
        function=function,
        statistics=statistics,
        hessian=hessian,
        quiet=quiet,
        json=json,
    )


@app.command(
    "compare",
    short_help="Check every op against float64, the float model, or another artifact.",
    epilog=example("tw compare chatglm2.twm --source chatglm2-6b --data tokens.jsonl"),
)
def compare_verb(
    model: Annotated[Path, typer.Argument(help="An artifact (.twm).")],
    source: Annotated[
        Path | None,
        typer.Option(
            "--source",
            help="What it was compiled from: also show each op's error against the unquantized "
            "float model.",
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option("--against", help="An older artifact: show what has become worse."),
    ] = None,
    tolerance: Annotated[
        str,
        typer.Option(
            "--tolerance",
            help="How much worse than --against it may be: limits of snr, cosine, output-snr, "
            "output-cosine and perplexity.",
        ),
    ] = "snr=0.5dB,cosine=1e-4",
    data: Annotated[
        Path | None,
        typer.Option("--data", help="Token ids, or a function's inputs (.npz), to run on."),
    ] = None,
    samples: Annotated[
        int | None, typer.Option("--samples", help="Use the first so many; all if left out.")
    ] = None,
    prompt_ids: PromptOption = "",
    function: Annotated[
        str, typer.Option("--function", help="Which function; all of them if left out.")
    ] = "",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of made-up inputs.")] = 0,
    all_ops: Annotated[
        bool, typer.Option("--all", help="A row for every op, not one for each kind of op.")
    ] = False,
    sort: Annotated[
        str, typer.Option("--sort", help="Rows of --source: by snr, share or order.")
    ] = "snr",
    html: Annotated[
        Path | None,
        typer.Option("--html", help="With --source: write a page with plots, without a network."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Check every op on the simulator against float64: cosine, SNR, worst error against its bound.

    Ends with exit code 8 and names the first op out of bound, in the model's words; with --against,
    where a figure is worse than --tolerance allows.
    """
    from tilewright.compiler.cli.compare_verb import run_compare

    run_compare(
        model,
        prompt_ids,
        function,
        source=source,
        against=against,
        tolerance=tolerance,
        data=data,
        samples=samples,
        seed=seed,
        all_ops=all_ops,
        sort=sort,
        html=html,
        json=json,
    )


@app.command(
    "perplexity",
    short_help="Measure how well an artifact predicts text.",
    epilog=example("tw perplexity chatglm2.twm --data text.jsonl"),
)
def perplexity_verb(
    model: Annotated[
        Path, typer.Argument(help="An artifact compiled with --top-passes add-score-function.")
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Token ids: .txt, .json, .jsonl or .npy, a sample a row.")
    ],
    backend: Annotated[
        str,
        typer.Option("--backend", help="What executes it: simulator, reference, or a plugin's."),
    ] = "simulator",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    json: JsonFlag = False,
) -> None:
    """Perplexity of the tokens in a file, in windows of the compiled length."""
    from tilewright.compiler.cli.perplexity_verb import run_perplexity

    run_perplexity(model, data, backend=backend, quiet=quiet, json=json)


@app.command(
    "quant-table",
    short_help="Write which weight gets which scheme, as a table to edit.",
    epilog=example("tw quant-table chatglm2-6b --quant w4a16 -o chatglm2.quant"),
)
def quant_table_verb(
    source: Annotated[Path, typer.Argument(help="What tw compile takes.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The table to write; stdout if left out.")
    ] = None,
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
        Path | None,
        typer.Option("--calibration", help="What tw calibrate wrote: errors are of its inputs."),
    ] = None,
    chip: ChipOption = "bm1684x",
    json: JsonFlag = False,
) -> None:
    """Write which weight gets which scheme: a table to edit, for tw compile --quant-table."""
    from tilewright.compiler.cli.quant_table_verb import run_quant_table, run_quant_target
    from tilewright.compiler.importers.packed.schemes import default_quant
    from tilewright.compiler.pipeline import CompileOptions

    check_chosen_once(quant, quant_target)
    options = CompileOptions(
        quant or default_quant(source, act, requantize),
        act,
        quant_head,
        quant_embedding,
        chip,
        quant_rules=tuple(quant_rule or ()),
        quant_table=str(quant_table or ""),
        calibration=str(calibration or ""),
        quant_target=quant_target,
        quant_target_per=quant_target_per,
        quant_candidates=listed(quant_candidates),
        requantize=requantize,
    )
    run = run_quant_target if quant_target else run_quant_table
    run(source, output, options, seq=seq, json=json)


@app.command(
    "sensitivity",
    short_help="Show what each layer would lose in each quantization scheme.",
    epilog=example("tw sensitivity chatglm2-6b --data tokens.jsonl --schemes w8a16,w4a16"),
)
def sensitivity_verb(
    source: Annotated[Path, typer.Argument(help="A model, as for tw compile.")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data",
            help="Token ids (.txt, .json, .jsonl, .npy), or a function's inputs (.npz).",
        ),
    ] = None,
    schemes: Annotated[
        str, typer.Option("--schemes", help="The schemes to look at, by commas.")
    ] = "w8a16,w4a16",
    calibration: Annotated[
        Path | None,
        typer.Option(
            "--calibration",
            help="What tw calibrate wrote: ranges for int8; with --hessian it can stand for "
            "--data.",
        ),
    ] = None,
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end",
            help="Also run the float model with one layer quantized at a time (a run for each "
            "layer, scheme and sample): error of the output, divergence of the predictions.",
        ),
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with plots, which needs no network.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Rows in the table, worst first.")] = 20,
    seq: SeqOption = 512,
    act: ActOption = "f16",
    samples: Annotated[
        int | None, typer.Option("--samples", help="Use the first so many; all if left out.")
    ] = None,
    function: Annotated[
        str, typer.Option("--function", help="Which function .npz inputs are for.")
    ] = "",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")] = False,
    json: JsonFlag = False,
) -> None:
    """What each linear layer loses in each scheme: predicted and measured, worst first."""
    from tilewright.compiler.cli.sensitivity_verb import run_sensitivity

    run_sensitivity(
        source,
        data,
        [name.strip() for name in schemes.split(",") if name.strip()],
        calibration=calibration,
        html=html,
        seq=seq,
        act=act,
        samples=samples,
        function=function,
        end_to_end=end_to_end,
        top=top,
        quiet=quiet,
        json=json,
    )
