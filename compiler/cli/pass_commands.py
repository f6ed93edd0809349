"""The verbs of whoever writes passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tilewright.compiler.cli.app import JsonFlag, PipelineOption, app, example


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
    epilog=example("tw trace model.mlir -p compile --html trace.html"),
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
    epilog=example("tw replay tilewright-reproducers/double-buffer-miscompilation"),
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
    epilog=example("tw bisect model.mlir -p compile"),
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
    epilog=example("tw reduce model.mlir -p compile -o small.mlir"),
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
    epilog=example("tw passes double-buffer"),
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
    epilog=example("tw rules check mine.rules"),
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
    epilog=example("tw ops tpu.W8A16MatMul"),
)
def ops_verb(
    name: Annotated[str, typer.Argument(help="An op, e.g. tpu.W8A16MatMul; all if left out.")] = "",
    json: JsonFlag = False,
) -> None:
    """List the ops of all dialects, or document one."""
    from tilewright.compiler.cli.catalog_verbs import list_ops

    list_ops(name, json=json)


@app.command(
    "new-pass",
    short_help="Write a new pass with its tests and documentation row.",
    epilog=example("tw new-pass fuse-bias --package acme --dir acme-tilewright"),
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
