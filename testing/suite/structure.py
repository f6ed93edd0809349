"""What a result may depend on: the values of a group, and nothing else."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from tilewright.dialects.quantization import Scheme
from tilewright.testing.quantizer import Quantized, Subject
from tilewright.testing.strategies import weights
from tilewright.testing.suite.accuracy import any_weight, ordinary_weight
from tilewright.testing.suite.property import (
    Array,
    Case,
    only_groups,
    quantizer_property,
    require,
    require_each,
)


def require_equal(made: Quantized, other: Quantized, what: str) -> None:
    """Fails unless codes, scales and zero points are the same."""
    for name in ("codes", "scale", "zero"):
        left, right = getattr(made, name), getattr(other, name)
        require(left.shape == right.shape, f"{name} has another shape {what}")
        require_each(
            left == right,
            lambda i, name=name, left=left, right=right: (
                f"{name}{list(i)} is {left[i]:.9g}, and {right[i]:.9g} {what}"
            ),
        )


@quantizer_property("shapes-and-types", any_weight)
def shapes_and_types(subject: Subject, weight: Array) -> None:
    """Codes are `[N, K]` integers, or 8-bit floats; scales are floats, one for each group; zero
    points are integers.

    Catches transposed results, dropped axes, groups counted along the wrong axis, int64 codes of
    which nobody sees that they are not packed.
    """
    made = subject.quantize(weight)
    codes, scale = made.parts[0], made.parts[1]
    require(codes.dtype.itemsize == 1, f"codes are {codes.dtype}, which takes more than a byte")
    # bfloat16 is of kind V for NumPy
    require(scale.dtype.kind in "fV", f"scales are {scale.dtype}")
    groups = len(weight) * subject.scheme.groups(weight.shape[1])
    require(scale.size == groups, f"there are {scale.size} scales for {groups} groups")
    if subject.scheme.zero_point:
        require(len(made.parts) == 3, "there are no zero points")
        require(bool(np.all(made.zero == np.trunc(made.zero))), "zero points are not integers")


@quantizer_property("determinism", any_weight)
def determinism(subject: Subject, weight: Array) -> None:
    """Equal weights have equal results, call after call.

    Catches stochastic rounding, races between threads, state from the call before.
    """
    first = subject.quantize(weight.copy())
    subject.quantize(np.ones_like(weight))
    require_equal(first, subject.quantize(weight.copy()), "the next time")


@quantizer_property("input-is-kept", any_weight)
def input_is_kept(subject: Subject, weight: Array) -> None:
    """The weight that is given is not written to.

    Catches division and rounding in place.
    """
    before = weight.tobytes()
    subject.quantize(weight)
    require(weight.tobytes() == before, "the weight has changed")


@quantizer_property("results-are-fresh", any_weight)
def results_are_fresh(subject: Subject, weight: Array) -> None:
    """The result of one call does not change with the next.

    Catches buffers that are used again, and results that are views of the weight.
    """
    first = subject.quantize(weight)
    copies = [part.tobytes() for part in first.parts]
    subject.quantize(np.where(weight == 0, np.asarray(1, weight.dtype), -weight))
    require(
        copies == [part.tobytes() for part in first.parts], "the next call overwrites the result"
    )


@quantizer_property("memory-layout", any_weight)
def memory_layout(subject: Subject, weight: Array) -> None:
    """Columns-first arrays, strided views and reversed ones give what a contiguous copy gives.

    Catches code that takes an array's memory for its elements in order.
    """
    plain = subject.quantize(weight)
    twice = np.repeat(np.repeat(weight, 2, axis=0), 3, axis=1)
    reverse = np.ascontiguousarray(weight[::-1, ::-1])
    layouts = {
        "in Fortran order": np.asfortranarray(weight),
        "as a strided view": twice[::2, ::3],
        "as a reversed view": reverse[::-1, ::-1],
    }
    for what, view in layouts.items():
        require_equal(plain, subject.quantize(view), what)


def _several_types(subject: Subject) -> str | None:
    return None if len(subject.dtypes) > 1 else "it takes weights of one type"


def _exact_in_all(subject: Subject) -> st.SearchStrategy[Case]:
    def narrow(weight: Array) -> Array:
        for dtype in subject.dtypes:
            with np.errstate(over="ignore"):
                weight = weight.astype(dtype).astype(np.float32)
        return np.where(np.isfinite(weight), weight, np.float32(1))

    return st.tuples(weights(scheme=subject.scheme, ordinary=True).map(narrow))


@quantizer_property("weight-types", _exact_in_all, applies=_several_types)
def weight_types(subject: Subject, weight: Array) -> None:
    """The same values in f32, f16 or bf16 have the same codes and scales.

    Catches division in the weight's own type: in f16 one code in a hundred is wrong.
    """
    first = subject.quantize(weight.astype(subject.dtypes[0]))
    for dtype in subject.dtypes[1:]:
        require_equal(first, subject.quantize(weight.astype(dtype)), f"as {dtype}")


@quantizer_property("channel-permutation", any_weight)
def channel_permutation(subject: Subject, weight: Array) -> None:
    """Channels in another order are quantized the same.

    Catches results that depend on a channel's place: remainders of blocks of rows, threads.
    """
    made, turned = subject.quantize(weight), subject.quantize(weight[::-1].copy())
    back = Quantized(turned.codes[::-1], turned.scale[::-1], turned.zero[::-1], turned.parts)
    require_equal(made, back, "when channels are in reverse order")


@quantizer_property("channel-locality", ordinary_weight)
def channel_locality(subject: Subject, weight: Array) -> None:
    """A channel alone is quantized as in its matrix.

    Catches scales of the whole tensor, and blocks that mix rows. (Weights are ordinary ones: that
    one tiny scale turns the type of all scales of a tensor is allowed.)
    """
    made = subject.quantize(weight)
    for row in range(len(weight)):
        alone = subject.quantize(weight[row : row + 1].copy())
        here = slice(row, row + 1)
        part = Quantized(made.codes[here], made.scale[here], made.zero[here], made.parts)
        require_equal(part, alone, f"when channel {row} is alone")


@quantizer_property("groups-are-channels", ordinary_weight, applies=only_groups)
def groups_are_channels(subject: Subject, weight: Array) -> None:
    """Each group is quantized as if it were a channel of its own.

    Catches groups along the wrong axis, scales in the wrong order, ranges that reach into the next
    group.
    """
    group = subject.scheme.group
    made, cut = subject.quantize(weight), subject.quantize(weight.reshape(-1, group).copy())
    joined = Quantized(
        cut.codes.reshape(weight.shape),
        cut.scale.reshape(made.scale.shape),
        cut.zero.reshape(made.zero.shape),
        cut.parts,
    )
    require_equal(made, joined, "when groups are channels")


@quantizer_property("group-permutation", ordinary_weight, applies=only_groups)
def group_permutation(subject: Subject, weight: Array) -> None:
    """Groups in another order are quantized the same.

    Catches a last group that is treated otherwise, and scales that stay where they were.
    """
    groups = subject.groups(weight)
    made = subject.quantize(weight)
    turned = subject.quantize(groups[:, ::-1].reshape(weight.shape).copy())
    back = Quantized(
        subject.groups(turned.codes)[:, ::-1].reshape(weight.shape),
        turned.scale[:, ::-1],
        turned.zero[:, ::-1],
        turned.parts,
    )
    require_equal(made, back, "when groups are in reverse order")


@quantizer_property(
    "group-of-all-is-per-channel", ordinary_weight, needs=["with_scheme"], applies=only_groups
)
def group_of_all_is_per_channel(subject: Subject, weight: Array) -> None:
    """One group as long as the channel gives what the scheme without groups gives.

    Catches two implementations, one for channels and one for groups, that differ.
    """
    part = np.ascontiguousarray(weight[:, : subject.scheme.group])
    made = subject.quantize(part)
    whole = _with_group(subject, 0)
    require_equal(made, whole.quantize(part), "without groups")


@quantizer_property(
    "finer-groups-have-smaller-scales",
    ordinary_weight,
    needs=["with_scheme"],
    applies=only_groups,
)
def finer_groups(subject: Subject, weight: Array) -> None:
    """No group has a larger scale than its channel has without groups.

    Catches ranges of groups that look at other groups, and scales that are searched for and get
    worse.
    """
    made, whole = subject.quantize(weight), _with_group(subject, 0).quantize(weight)
    nothing = np.all(subject.groups(weight) == 0, axis=-1)
    require_each(
        (made.scale <= whole.scale) | nothing,
        lambda i: (
            f"group {list(i)} has scale {made.scale[i]:.9g}, its channel {whole.scale[i[0], 0]:.9g}"
        ),
    )


def _with_group(subject: Subject, group: int) -> Subject:
    other = Scheme(
        subject.scheme.format,
        group,
        subject.scheme.zero_point,
        subject.scheme.int8_activations,
    )
    assert subject.quantizer.with_scheme is not None
    function = subject.quantizer.with_scheme(other)
    return Subject.of(function, other, subject.dtypes)


@quantizer_property("column-permutation", any_weight)
def column_permutation(subject: Subject, weight: Array) -> None:
    """Inputs in another order have their codes in that order, and the same scales.

    Catches remainders of vectorised loops: the last inputs of a channel that are rounded otherwise,
    or left out of the range.
    """
    groups = subject.groups(weight)[..., ::-1].reshape(weight.shape).copy()
    made, turned = subject.quantize(weight), subject.quantize(groups)
    back = Quantized(
        subject.groups(turned.codes)[..., ::-1].reshape(weight.shape),
        turned.scale,
        turned.zero,
        turned.parts,
    )
    require_equal(made, back, "when inputs are in reverse order")
