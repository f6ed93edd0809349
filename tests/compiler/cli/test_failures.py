"""No exception reaches the user as a traceback, whoever raises it."""

from __future__ import annotations

import re

import pytest
from tests.compiler.cli.harness import Models, Tw, assert_refused
from xdsl.parser import Parser
from xdsl.utils.arg_spec import parse_pipeline
from xdsl.utils.exceptions import (
    DiagnosticException,
    PassFailedException,
    VerifyException,
)

from tilewright.dialects.context import make_context
from tilewright.dialects.errors import FitError


def unparsable() -> None:
    Parser(make_context(), "module {", "m.mlir").parse_module()


def not_a_pipeline() -> None:
    list(parse_pipeline("a{"))


def full_disk() -> None:
    raise OSError(28, "No space left on device")


def out_of_memory() -> None:
    raise MemoryError


def interrupted() -> None:
    raise KeyboardInterrupt


def raising(error: BaseException) -> object:
    def run() -> None:
        raise error

    return run


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (unparsable, 3, "cannot be parsed"),
        (not_a_pipeline, 2, "pipeline"),
        (raising(VerifyException("a rule")), 5, "a rule"),
        (raising(PassFailedException("a pass")), 5, "a pass"),
        (raising(DiagnosticException("a remark")), 5, "a remark"),
        (full_disk, 10, "No space left on device"),
        (raising(FitError("too large", where="there")), 6, "there"),
        (raising(ValueError("odd")), 70, "unexpected ValueError"),
        (raising(RecursionError("deep")), 70, "unexpected RecursionError"),
        (raising(AssertionError()), 70, "unexpected AssertionError"),
    ],
)
@pytest.mark.parametrize(
    ("verb", "module"),
    [
        ("run", "cli.run_verb"),
        ("inspect", "cli.inspect_verb"),
        ("profile", "cli.profile_verb"),
        ("compare", "reports.artifact_runs"),
    ],
)
def test_any_exception(
    tw: Tw,
    models: Models,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    module: str,
    fault: object,
    code: int,
    said: str,
) -> None:
    def fail(_: object) -> None:
        assert callable(fault)
        fault()

    monkeypatch.setattr(f"tilewright.compiler.{module}.open_artifact", fail)
    assert_refused(tw(verb, models.f16), code, said)


def test_a_bug_says_where_and_what_to_do(
    tw: Tw, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilewright.compiler.cli.inspect_verb.Counter", None)
    arguments = ("inspect", models.f16, "--json")
    result = tw(*arguments)
    assert_refused(result, 70, "unexpected TypeError", "tw --traceback VERB", "please report it")
    assert re.search(r"where: compiler/cli/inspect_verb\.py:\d+ in _launch_counts\n", result.err)
    result = tw("--traceback", *arguments)
    assert result.code == 70
    assert result.out == "" or "format 1" in result.out
    assert "Traceback (most recent call last)" in result.err
    assert "tw: internal error [TW070]" in result.err


def test_traceback_of_an_expected_error(tw: Tw) -> None:
    result = tw("--traceback", "chips", "v9")
    assert result.code == 2
    assert "Traceback" in result.err
    assert result.err.rstrip().splitlines()[-2].startswith("tw: wrong option [TW002]: no chip 'v9'")


def test_an_interrupt(tw: Tw, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.compiler.cli.run_verb.open_artifact", lambda _: interrupted())
    result = tw("run", models.f16)
    assert result.code == 130
    assert result.err == "tw: interrupted; no half-written output is left\n"


def test_no_memory(tw: Tw, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.compiler.cli.run_verb.open_artifact", lambda _: out_of_memory())
    result = tw("run", models.f16)
    assert (result.code, result.out) == (12, "")
    assert result.err == "tw: out of host memory\n"


def test_an_exception_without_a_frame_of_ours() -> None:
    from tilewright.compiler.cli.failures import known_error

    error = known_error(ValueError("odd"))
    assert error.where is None
