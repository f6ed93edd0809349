"""Points the suite at a quantizer: `check_weight_quantizer` for tests, `examine_weight_quantizer`
for tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Flaky, Unsatisfiable

from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import Scheme
from tilewright.testing.quantizer import PropertyError, Quantizer, Subject, WeightQuantizer
from tilewright.testing.suite.property import PROPERTIES, Case, Property
from tilewright.testing.suite.report import PropertyReport, PropertyResult, Verdict

Array = npt.NDArray[Any]

_UNCHECKED = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
    HealthCheck.nested_given,
)
"""Of a quantizer that is slow, or seldom meets a condition, the report is to tell."""
Testable = Quantizer | WeightQuantizer | Callable[[Array], Sequence[Any]]


def check_weight_quantizer(
    quantizer: Testable,
    scheme: Scheme | str,
    *,
    examples: int | None = None,
    properties: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    dtypes: Sequence[npt.DTypeLike] = (np.float32,),
    report: Callable[[str], object] | None = None,
    name: str | None = None,
) -> PropertyReport:
    """Checks every property of `PROPERTIES` that applies to a quantizer; raises `PropertyError`
    with the smallest counterexample of each that fails.

    `quantizer` is a function `weight[N, K] -> (codes, scale[, zero])`, a `Quantizer`, or an object
    with methods of that name. `examples` is for each property (that of the Hypothesis profile if
    left out); `properties` and `exclude` choose by id; `dtypes` are the types of weights that it
    takes; `report` takes the table of results (`print`). Returns the report. Raises `OptionError`
    for ids that do not exist and schemes that cannot be read.

        def test_mine():
            check_weight_quantizer(my_quantizer, "w8a16")
    """
    __tracebackhide__ = True  # pytest points at the test
    made = examine_weight_quantizer(
        quantizer,
        scheme,
        examples=examples,
        properties=properties,
        exclude=exclude,
        dtypes=dtypes,
        name=name,
    )
    if report is not None:
        report(made.text())
    made.raise_failures()
    return made


def examine_weight_quantizer(
    quantizer: Testable,
    scheme: Scheme | str,
    *,
    examples: int | None = None,
    properties: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    dtypes: Sequence[npt.DTypeLike] = (np.float32,),
    name: str | None = None,
) -> PropertyReport:
    """As `check_weight_quantizer`, but failures are only in the report."""
    subject = Subject.of(quantizer, scheme, dtypes)
    rows = tuple(
        check_property(prop, subject, examples=examples) for prop in _chosen(properties, exclude)
    )
    title = name or getattr(quantizer, "__name__", type(quantizer).__name__)
    return PropertyReport(str(title), subject.scheme.name, rows)


def _chosen(properties: Iterable[str] | None, exclude: Iterable[str]) -> list[Property]:
    wanted = list(PROPERTIES) if properties is None else list(properties)
    unwanted = list(exclude)
    for unknown in (name for name in (*wanted, *unwanted) if name not in PROPERTIES):
        raise OptionError(
            f"there is no property {unknown!r}", hint=f"one of {', '.join(PROPERTIES)}"
        )
    return [PROPERTIES[name] for name in wanted if name not in unwanted]


def check_property(
    prop: Property, subject: Subject, *, examples: int | None = None, shrink: bool = True
) -> PropertyResult:
    """The verdict on one property: draws cases, and shrinks the first on which it fails (unless
    `shrink` is false: for who only wants to know whether it does)."""
    reason = prop.why_not(subject)
    if reason:
        return PropertyResult(prop.id, prop.meaning, Verdict.NOT_APPLICABLE, reason)
    tried: list[Case] = []
    count = 0

    @settings(
        max_examples=max(1, round((examples or settings().max_examples) * prop.share)),
        database=None,
        deadline=None,
        suppress_health_check=_UNCHECKED,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
    )
    @given(prop.cases(subject))
    def run(case: Case) -> None:
        nonlocal count
        count += 1
        tried[:] = [case]
        prop.check(subject, *case)

    why = ""
    try:
        run()
    except PropertyError as error:
        why = str(error)
    except Flaky:
        why = "fails on one call and not on the next with the same arguments"
    except Unsatisfiable:
        none = "no case met the property's condition"
        return PropertyResult(prop.id, prop.meaning, Verdict.NOT_APPLICABLE, none, examples=count)
    except Exception as error:
        why = f"raises {type(error).__name__}: {_first_line(error)}"
    if not why:
        return PropertyResult(prop.id, prop.meaning, Verdict.HOLDS, examples=count)
    example = _example(prop, tried[0]) if tried else ""
    return PropertyResult(prop.id, prop.meaning, Verdict.FAILS, why, example, count)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _example(prop: Property, case: Case) -> str:
    """A case, a line for each argument of the check."""
    _, *names = signature(prop.check).parameters
    return "\n".join(f"{name} = {shown(part)}" for name, part in zip(names, case, strict=True))


_MOST_ELEMENTS = 64


def shown(part: object) -> str:
    """A part of a case, short: small arrays whole, of others the rows that are not all zeros."""
    if not isinstance(part, np.ndarray):
        return repr(part)
    head = f"{part.dtype.name}{list(part.shape)} "
    if part.size <= _MOST_ELEMENTS:
        return head + str(part.tolist())
    nonzero = np.argwhere(part != 0)
    if len(nonzero) > _MOST_ELEMENTS // 4:
        return head + np.array2string(part, threshold=_MOST_ELEMENTS // 4, edgeitems=3)
    places = ", ".join(f"{i.tolist()}: {part[tuple(i)].item():.9g}" for i in nonzero)
    return head + f"zeros but for {places}"
