"""Passes made of rules: from a docstring, a file beside the module, a path."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.passes.rules.support import function, names

from tilewright.compiler import reference_pages
from tilewright.dialects.context import make_context
from tilewright.dialects.errors import InternalError, OptionError
from tilewright.passes.canonicalize_top import CanonicalizeTopPass
from tilewright.passes.rules.rule_pass import RulePass, rule_pass
from tilewright.passes.rules.source import RuleError

X = "tensor<4x8xf32>"
NEG_OF_NEG = """/// Two negations are none.
/// (More of it.)
rule NegOfNeg { match { y = top.Neg(top.Neg(x)) } replace y with x }
rule Untold { match { y = top.Abs(top.Abs(x)) } replace y with top.Abs(x) }
"""

MODULE = '''"""A module with passes."""

from dataclasses import dataclass

from tilewright.passes.rules.rule_pass import RulePass


@dataclass(frozen=True)
class BesidePass(RulePass):
    """Rules in a file."""

    name = "beside"
    rules_file = "beside.rules"


@dataclass(
    frozen=True,
)
class WrongPass(RulePass):
    """Rules with a mistake.

    ```mlir
    nothing
    ```

    ```rules
    rule Right { match { y = top.Neg(top.Neg(x)) } replace y with x }
    ```

    Text between them.

    ```rules
    rule Wrong {
      match { y = top.Nag(x) }
      replace y with x
    }
    ```
    """

    name = "wrong"


class EmptyPass(RulePass):
    """No rules at all."""

    name = "empty"
'''


def neg_neg_abs() -> str:
    return (
        f"%a = top.Neg %x : {X} -> {X}\n%b = top.Neg %a : {X} -> {X}\n%y = top.Abs %b : {X} -> {X}"
    )


@pytest.fixture
def module(tmp_path: Path) -> ModuleType:
    path = tmp_path / "acme_passes.py"
    path.write_text(MODULE)
    (tmp_path / "beside.rules").write_text(NEG_OF_NEG)
    spec = importlib.util.spec_from_file_location("acme_passes", path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["acme_passes"] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def test_rules_in_a_file_beside_the_module(module: ModuleType):
    target = function(neg_neg_abs())
    module.BesidePass().apply(make_context(), target)
    assert names(target) == ["Abs"]
    assert module.BesidePass.rule_list() == ("- `NegOfNeg`: Two negations are none.\n- `Untold`")


def test_the_documentation_of_a_pass_lists_its_rules(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(reference_pages, "PASSES", {"beside": lambda: module.BesidePass})
    document = reference_pages.document_pass("beside")
    assert document.summary == "Rules in a file."
    assert document.description == "Rules:\n\n" + module.BesidePass.rule_list()


def test_a_pass_without_any_python(tmp_path: Path):
    path = tmp_path / "some.rules"
    path.write_text(NEG_OF_NEG)
    made = rule_pass("drop-negations", path)
    assert issubclass(made, RulePass)
    assert made.name == "drop-negations"
    assert made.__name__ == "DropNegationsPass"
    assert made.__doc__ == "Apply the rules of some.rules."
    target = function(neg_neg_abs())
    made().apply(make_context(), target)
    assert names(target) == ["Abs"]
    other = rule_pass("drop-negations", tmp_path / "missing.rules")
    with pytest.raises(OptionError, match="cannot read the rules"):
        other().apply(make_context(), target)


def test_functions_of_a_module_beside_the_rules(tmp_path: Path):
    (tmp_path / "helpers_beside.py").write_text("def is_four(n):\n    return n == 4\n")
    path = tmp_path / "some.rules"
    path.write_text(
        "use helpers_beside: is_four\n"
        "rule Four { match { y = top.Neg(top.Neg(x)) } where is_four(dim(x, 0)) replace y with x }"
    )
    before = list(sys.path)
    target = function(neg_neg_abs())
    rule_pass("four", path)().apply(make_context(), target)
    assert names(target) == ["Abs"]
    assert sys.path == before


def test_a_mistake_in_a_docstring_is_shown_in_its_line(module: ModuleType, tmp_path: Path):
    with pytest.raises(RuleError) as caught:
        module.WrongPass.rules()
    line = next(i for i, text in enumerate(MODULE.splitlines(), 1) if "top.Nag" in text)
    column = MODULE.splitlines()[line - 1].index("top.Nag") + 1
    (problem,) = caught.value.problems
    assert problem.place == f"{tmp_path / 'acme_passes.py'}:{line}:{column}"
    shown, caret = problem.picture.splitlines()
    assert shown == MODULE.splitlines()[line - 1]
    assert caret == " " * (column - 1) + "^" * len("top.Nag")


def test_a_pass_without_rules(module: ModuleType):
    with pytest.raises(InternalError, match="EmptyPass has neither rules"):
        module.EmptyPass().apply(make_context(), function(neg_neg_abs()))


def test_one_round_only(tmp_path: Path):
    path = tmp_path / "grow.rules"
    path.write_text("rule G { match { y = top.Abs(x) } replace y with top.Abs(top.Neg(x)) }")
    made = rule_pass("grow", path)
    once = type("OncePass", (made,), {"to_fixpoint": False})
    target = function(f"%y = top.Abs %x : {X} -> {X}")
    once().apply(make_context(), target)
    assert names(target) == ["Neg", "Abs"]


def test_rules_are_read_once():
    assert CanonicalizeTopPass.pattern() is CanonicalizeTopPass.pattern()
    assert CanonicalizeTopPass.rules() is CanonicalizeTopPass.rules()


def test_passes_are_listed_without_the_parser():
    """`tw opt` without rules does not pay for lark."""
    code = (
        "import sys, tilewright.passes.canonicalize_top, tilewright.passes.fuse_bias\n"
        "print([name for name in sys.modules if name.split('.')[0] == 'lark'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
