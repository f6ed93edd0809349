"""Whole graphs, compiled under the scheme and executed."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tilewright.testing.bounds.graphs import graph_error_bound, largest_weight_error
from tilewright.testing.quantizer import Subject
from tilewright.testing.strategies.graphs import TopGraph, top_graphs
from tilewright.testing.suite.property import (
    Array,
    Case,
    at,
    quantizer_property,
    require,
    require_each,
)

_NEEDS = ("run_lowered",)


def _graphs(subject: Subject) -> st.SearchStrategy[Case]:
    return st.tuples(top_graphs(subject.scheme))


def _no_int8(subject: Subject) -> str | None:
    return "activations are quantized" if subject.scheme.int8_activations else None


def _run(subject: Subject, graph: TopGraph) -> Array:
    assert subject.quantizer.run_lowered is not None
    (result,) = subject.quantizer.run_lowered(graph)
    return np.asarray(result)


@quantizer_property("lowering-is-sound", _graphs, needs=_NEEDS, applies=_no_int8, share=0.25)
def lowering_is_sound(subject: Subject, graph: TopGraph) -> None:
    """A model that is compiled under the scheme gives what the model gives, but for the error that
    quantization and the type of the activations may cause, composed through its ops.

    Catches weights that are mixed up, biases that are dropped, fusions that change the meaning,
    scales of another layer: what tests of single kernels cannot see.
    """
    errors = {key: largest_weight_error(graph.weights[key], subject.scheme) for key in graph.linear}
    ((value, bound),) = graph_error_bound(
        graph.module,
        [graph.x],
        graph.weights,
        weight_errors=errors,
        activations=subject.quantizer.activations,
    )
    made = _run(subject, graph).astype(np.float64)
    require(made.shape == value.shape, f"the result has shape {list(made.shape)}")
    error = np.abs(made - value)
    require_each(
        error <= bound,
        lambda i: (
            f"y{list(i)} = {at(made, i)}, exactly {at(value, i)}: off by {at(error, i)}, and "
            f"{at(bound, i)} is allowed"
        ),
    )


@quantizer_property("lowering-is-reproducible", _graphs, needs=_NEEDS, share=0.1)
def lowering_is_reproducible(subject: Subject, graph: TopGraph) -> None:
    """A model that is compiled and executed twice gives the same bits.

    Catches races between transfers and products, and memory that is read before it is written.
    """
    first, second = _run(subject, graph), _run(subject, graph)
    require(first.tobytes() == second.tobytes(), "the results differ")
