"""`tw` itself: its options, and what its verbs have in common.

The verbs are in `model_commands`, `quantization_commands` and `pass_commands`. Each imports what it
needs when it runs: `tw --help` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from tilewright.compiler.cli.settings import Settings

_COMMANDS = (
    "tilewright.compiler.cli.model_commands",
    "tilewright.compiler.cli.quantization_commands",
    "tilewright.compiler.cli.pass_commands",
)
"""Their import adds the verbs to `app`."""

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

QUANT_HELP = (
    "f32, f16 or bf16, or a scheme: w8a16, w8a16-g128, w4a16 (groups of 64), w4a16-g32, "
    "w4a16-channel, w4a16-absmax, f8e4m3, f8e5m2, int8 (docs/quantization.md)."
)
QUANT_DEFAULT = " If left out: as the checkpoint is quantized already (GPTQ, AWQ), else w8a16."
ActOption = Annotated[
    str, typer.Option("--act", help="Type of activations where weights are quantized: f16 or bf16.")
]
QuantHeadFlag = Annotated[bool, typer.Option("--quant-head", help="Quantize the output head too.")]
QuantEmbeddingFlag = Annotated[
    bool, typer.Option("--quant-embedding", help="Quantize the embedding too (as w8a16).")
]
QuantRuleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--quant-rule",
        metavar="PATTERN=SCHEME",
        help="Another scheme for single weights, e.g. 'layers.*.mlp.down_proj=w8a16' or "
        "'re:layers\\.[0-3]\\.=f16'; the last that matches holds. May be repeated.",
    ),
]
QuantTableOption = Annotated[
    Path | None,
    typer.Option("--quant-table", help="A file that tw quant-table wrote: a scheme a weight."),
]
QuantTargetOption = Annotated[
    str,
    typer.Option(
        "--quant-target",
        help="Choose schemes of least predicted error for 4.5bpw, 3.2GB or 9tok/s.",
    ),
]
QuantTargetPerOption = Annotated[
    str,
    typer.Option(
        "--quant-target-per",
        help="Decide for each kind of weight in all layers, or for each layer: kind or layer.",
    ),
]
QuantCandidatesOption = Annotated[
    str, typer.Option("--quant-candidates", help="Schemes to choose from, by commas.")
]
RequantizeFlag = Annotated[
    bool,
    typer.Option(
        "--requantize",
        help="Quantize a GPTQ or AWQ checkpoint's weights anew (its rounding stays in them).",
    ),
]

PipelineOption = Annotated[
    str, typer.Option("-p", "--passes", help="'pass{option=value},...', as tw opt takes them.")
]


def check_chosen_once(quant: str | None, quant_target: str) -> None:
    """Raise `OptionError` where a scheme is given and is to be chosen, too."""
    from tilewright.dialects.errors import OptionError

    if quant is not None and quant_target:
        raise OptionError(
            f"--quant {quant} beside --quant-target {quant_target}",
            why="a target chooses the scheme of every linear layer",
            hint="leave one out; --quant-candidates says what a target chooses from, --quant-rule "
            "what some weights are in any case",
        )


def listed(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def example(command: str) -> str:
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


def invoke(arguments: list[str], settings: Settings) -> int:
    """Run the verb that `arguments` name; returns 0 or raises, `SystemExit` included.

    The options before the verb are put into `settings`.
    """
    for module in _COMMANDS:
        import_module(module)
    try:
        app(args=arguments, prog_name="tw", obj=settings)
    except SystemExit as end:
        if end.code:
            raise
    return 0
