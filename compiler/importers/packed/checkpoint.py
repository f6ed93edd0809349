"""A packed checkpoint as a source of weights: `X.weight` stands for `X.qweight` and its company."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.compiler.importers.packed.config import (
    AWQ_CONFIG_NAME,
    GPTQ_CONFIG_NAME,
    QUANTIZATION_FIELD,
    Packing,
    ZeroOffset,
)
from tilewright.compiler.importers.packed.layouts import (
    WORD_BITS,
    awq_codes,
    gptq_codes,
    gptq_zeros,
    pack_nibbles,
    unpack_nibbles,
)
from tilewright.compiler.importers.packed.order import input_order
from tilewright.compiler.weights.container import TensorInfo, WeightContainer
from tilewright.compiler.weights.quantize import not_finite
from tilewright.compiler.weights.quantized import QuantizedWeight
from tilewright.dialects.element_types import ElementType
from tilewright.dialects.errors import ModelReadError, UnsupportedError
from tilewright.dialects.quantization import CodeFormat, Scheme

Array = npt.NDArray[Any]

WEIGHT_SUFFIX = ".weight"
_SIGN_BIT = {4: 0x88, 8: 0x80}
"""What turns unsigned codes into signed ones that are half the range lower, in a byte."""
_I8_MOST = 127


@dataclass(frozen=True)
class PackedLayer:
    """A linear layer whose weight is packed: `X`, the key of its tensors without the last part."""

    name: str
    shape: tuple[int, int]
    """`(N, K)`: output channels and inputs."""
    packing: Packing

    @property
    def key(self) -> str:
        """The key of the weight as the model knows it."""
        return self.name + WEIGHT_SUFFIX

    @property
    def groups(self) -> int:
        """Groups of a channel."""
        group, depth = self.packing.group, self.shape[1]
        return depth // group if 0 < group < depth else 1

    @property
    def scheme(self) -> Scheme:
        """The scheme in which codes, zero points and scales are used as they are."""
        bits, symmetric = self.packing.bits, self.packing.symmetric
        group = self.shape[1] // self.groups if self.groups > 1 else 0
        if bits == 8:
            return Scheme(CodeFormat.I8, group, zero_point=not symmetric)
        return Scheme(CodeFormat.I4 if symmetric else CodeFormat.U4, group, not symmetric)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """The shapes that the tensors of the layer must have, without `g_idx`.

        Raises `UnsupportedError` where words or groups do not come out even.
        """
        (channels, depth), packing, groups = self.shape, self.packing, self.groups
        a_word = WORD_BITS // packing.bits
        self._require_multiple("inputs", depth, packing.group if groups > 1 else 1, "groups of")
        if packing.method == "gptq":
            self._require_multiple("inputs", depth, a_word, "words of")
            qweight = (depth // a_word, channels)
        else:
            qweight = (depth, channels // a_word)
        self._require_multiple("output channels", channels, a_word, "words of")
        return {
            f"{self.name}.qweight": qweight,
            f"{self.name}.qzeros": (groups, channels // a_word),
            f"{self.name}.scales": (groups, channels),
        }

    def _require_multiple(self, of: str, count: int, multiple: int, what: str) -> None:
        if count % multiple:
            raise UnsupportedError(
                f"{what} {multiple} do not divide the {count} {of} of {self.name!r}",
                where=self.packing.source,
                hint="quantize this layer with other groups, or leave it dense",
            )


class PackedCheckpoint:
    """The tensors of a packed checkpoint as those of the model. A `WeightSource`.

    Packed weights are there under the key of the dense weight that they stand for: `quantized`
    gives their codes; `read_rows`, and all else that reads, their values in f32, exact for scales
    of 16 bits. The inputs of a weight with an entry in `orders` are in that order: column `j` is
    input `orders[key][j]` of the model. So are the output channels of one with an entry in `rows`.
    """

    def __init__(
        self,
        container: WeightContainer,
        layers: Sequence[PackedLayer],
        rows: Mapping[str, npt.NDArray[np.int32]],
    ) -> None:
        """Reads the groups of inputs; raises `ModelReadError` where they make no sense."""
        self.container = container
        self.layers: Mapping[str, PackedLayer] = {layer.key: layer for layer in layers}
        orders = {layer.key: self._order(layer) for layer in layers}
        self.orders: Mapping[str, npt.NDArray[np.int32]] = {
            key: order for key, order in orders.items() if order is not None
        }
        self.rows = rows
        self._lock = threading.Lock()
        self._dense: tuple[str, Array] | None = None

    def __enter__(self) -> PackedCheckpoint:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files; reading is over."""
        self.container.close()

    @property
    def path(self) -> Path:
        """The checkpoint's folder or file."""
        return self.container.path

    def keys(self) -> list[str]:
        """The names of the model's tensors, sorted."""
        packed = {layer.name for layer in self.layers.values()}
        stored = self.container.keys()
        return sorted([*(key for key in stored if not _is_part(key, packed)), *self.layers])

    def __contains__(self, key: str) -> bool:
        return key in self.layers or key in self.container

    def fingerprints(self) -> dict[str, str]:
        """As `WeightContainer.fingerprints`."""
        return self.container.fingerprints()

    def info(self, key: str) -> TensorInfo:
        """Shape and type of a tensor; of a packed one `(N, K)` and f32, as `read_rows` gives it."""
        layer = self.layers.get(key)
        if layer is None:
            return self.container.info(key)
        codes = self.container.info(f"{layer.name}.qweight")
        return TensorInfo(key, layer.shape, "F32", codes.file, codes.offset, codes.size_bytes)

    def quantized(self, key: str) -> QuantizedWeight | None:
        """The weight as the checkpoint holds it; none if it is dense.

        Raises `ModelReadError` for scales that are not finite, and zero points that contradict the
        configuration.
        """
        layer = self.layers.get(key)
        if layer is None:
            return None
        scheme, order = layer.scheme, self.orders.get(key)
        scale, element = self._scale(layer)
        weight = QuantizedWeight(
            scheme=scheme,
            shape=layer.shape,
            codes=_stored_codes(self._codes(layer, order), scheme, layer.packing.bits),
            scale=scale,
            scale_element=element,
            zero=self._zero(layer),
        )
        return _with_rows(weight, self.rows[key]) if key in self.rows else weight

    def read(self, key: str) -> Array:
        """The whole tensor, as `WeightContainer.read`; of a packed one its values in f32."""
        return self._values(key) if key in self.layers else self.container.read(key)

    def read_rows(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Rows, as `WeightContainer.read_rows`; of a packed weight its values in f32."""
        if key not in self.layers:
            return self.container.read_rows(key, start, stop, out)
        return _into(self._values(key)[start:stop], out)

    def read_columns(self, key: str, start: int, stop: int, out: Array | None = None) -> Array:
        """Columns, as `WeightContainer.read_columns`; of a packed weight its values in f32."""
        if key not in self.layers:
            return self.container.read_columns(key, start, stop, out)
        return _into(self._values(key)[:, start:stop], out)

    def _values(self, key: str) -> Array:
        """`(codes - zero) * scale` in f32; the last weight is kept, as rows are read in pieces."""
        with self._lock:
            if self._dense is None or self._dense[0] != key:
                weight = self.quantized(key)
                assert weight is not None
                self._dense = key, dequantize(weight)
            return self._dense[1]

    def _order(self, layer: PackedLayer) -> npt.NDArray[np.int32] | None:
        name = f"{layer.name}.g_idx"
        if name not in self.container:
            if layer.packing.act_order and layer.groups > 1:
                raise ModelReadError(
                    f"the checkpoint has no tensor {name!r}",
                    where=str(self.path),
                    why="desc_act says that inputs are not in the order of their groups",
                )
            return None
        info = self.container.info(name)
        if info.shape != layer.shape[1:]:
            raise ModelReadError(
                f"tensor {name!r} has shape {list(info.shape)}, not {[layer.shape[1]]}",
                where=str(info.file),
            )
        groups = self.container.read_integers(name)
        if not layer.packing.act_order and not groups.any():
            return None  # Some writers leave it empty where it says nothing.
        order = input_order(groups, layer.groups, name=name, where=str(info.file))
        if order is not None and not layer.packing.act_order:
            raise ModelReadError(
                f"tensor {name!r} is not in order, but desc_act is false",
                where=str(info.file),
                why="programs that trust desc_act and programs that trust g_idx would compute "
                "different layers",
                hint=f"set desc_act in {layer.packing.source} if the tensor is right",
            )
        return order

    def _codes(
        self, layer: PackedLayer, order: npt.NDArray[np.int32] | None
    ) -> npt.NDArray[np.uint8]:
        words = self.container.read_integers(f"{layer.name}.qweight")
        if layer.packing.method == "awq":
            codes = awq_codes(words)
        else:
            codes = gptq_codes(words, layer.packing.bits)
        return codes if order is None else np.take(codes, order, axis=1)

    def _zero(self, layer: PackedLayer) -> npt.NDArray[np.int8] | None:
        """The zero points `i8[N, G]`; none where all are in the middle, as `sym` promises."""
        packing, name = layer.packing, f"{layer.name}.qzeros"
        words, offset = self.container.read_integers(name), layer.packing.zero_offset
        if packing.method == "awq":
            stored = awq_codes(words)
        else:
            by_word = offset is ZeroOffset.WORD
            stored = gptq_zeros(words, packing.bits, add_to_words=by_word)
        zeros = stored.astype(np.int16) + int(offset is ZeroOffset.CODE)
        middle = 1 << (packing.bits - 1)
        if packing.symmetric:
            # GPTQModel also writes the zero points of gptq_v2 under the name of the first format.
            if not (np.all(zeros == middle) or np.all(stored == middle)):
                raise ModelReadError(
                    f"the zero points of {name!r} are {int(zeros.min())} to {int(zeros.max())}",
                    where=str(self.container.info(name).file),
                    why=f"sym is true, so that all of them are {middle}",
                    hint=f"the file and {packing.source} are not of one checkpoint",
                )
            return None
        if packing.bits == 8:
            zeros -= middle
        if zeros.size and int(zeros.max()) > _I8_MOST:
            channel, group = (int(i) for i in np.argwhere(zeros > _I8_MOST)[0])
            raise UnsupportedError(
                f"the zero point {int(zeros[channel, group]) + middle} of output channel {channel} "
                f"in {name!r} is not supported",
                where=str(self.container.info(name).file),
                why="8-bit zero points are 0 to 255",
            )
        return zeros.astype(np.int8)

    def _scale(self, layer: PackedLayer) -> tuple[Array, ElementType]:
        name = f"{layer.name}.scales"
        info = self.container.info(name)
        scale = np.ascontiguousarray(self.container.read(name).T)
        wrong = ~np.isfinite(scale.astype(np.float32))
        if wrong.any():
            channel, group = (int(i) for i in np.argwhere(wrong)[0])
            raise not_finite(name, scale[channel, group], (group, channel)).placed(str(info.file))
        return scale, info.element


def dequantize(weight: QuantizedWeight) -> npt.NDArray[np.float32]:
    """`(codes - zero) * scale` in f32, `[N, K]`: one rounding, none for scales of 16 bits."""
    scheme = weight.scheme
    if scheme.format.bits == 8:
        codes = weight.codes.astype(np.float32)
    else:
        nibbles = unpack_nibbles(weight.codes.view(np.uint8)).astype(np.int8)
        signed = nibbles - 16 * (nibbles > 7) if scheme.format == CodeFormat.I4 else nibbles
        codes = signed.astype(np.float32)
    grouped = codes.reshape(len(codes), weight.scale.shape[1], -1)
    if weight.zero is not None:
        grouped -= weight.zero[:, :, None].astype(np.float32)
    grouped *= weight.scale[:, :, None].astype(np.float32)
    return grouped.reshape(codes.shape)


def open_packed(
    container: WeightContainer,
    packing: Packing,
    shapes: Mapping[str, Sequence[int]],
    *,
    ignorable: Iterable[str] = (),
    rows: Mapping[str, npt.NDArray[np.int32]] | None = None,
) -> PackedCheckpoint:
    """The packed checkpoint in `container`, checked against the tensors `shapes` of the model.

    `rows` are the output channels of weights that are wanted in another order, by key.
    Layers are packed that have a `qweight`. Raises `ModelReadError` for tensors that are missing,
    superfluous or of the wrong shape or type, and where they contradict `packing`.
    """
    layers = [
        PackedLayer(name, (shape[0], shape[1]), packing.of_layer(name))
        for name, shape in _packed_names(container, shapes)
    ]
    expected = {key: tuple(shape) for key, shape in shapes.items()}
    for layer in layers:
        _check_layer(container, layer)
        del expected[layer.key]
        expected.update(layer.tensors())
        if f"{layer.name}.bias" not in shapes:
            _check_no_bias(container, f"{layer.name}.bias")
    extra = [f"{layer.name}.{part}" for layer in layers for part in ("g_idx", "bias")]
    container.check(expected, ignorable=[*ignorable, *extra])
    for layer in layers:
        _check_types(container, layer)
    return PackedCheckpoint(container, layers, rows or {})


def check_dense(container: WeightContainer) -> None:
    """Raises `ModelReadError` for packed tensors, where no configuration says how to read them."""
    keys = container.keys()
    packed = [key for key in keys if key.endswith(".qweight")]
    if packed:
        raise ModelReadError(
            f"tensor {packed[0]!r} is packed, but nothing says how",
            where=str(container.path),
            why=f"config.json has no field {QUANTIZATION_FIELD!r}, and there is neither "
            f"{GPTQ_CONFIG_NAME} nor {AWQ_CONFIG_NAME}",
            hint="download the file that is missing",
        )


def _packed_names(
    container: WeightContainer, shapes: Mapping[str, Sequence[int]]
) -> list[tuple[str, Sequence[int]]]:
    return [
        (name, shape)
        for key, shape in shapes.items()
        if key.endswith(WEIGHT_SUFFIX)
        and len(shape) == 2
        and f"{(name := key.removesuffix(WEIGHT_SUFFIX))}.qweight" in container
    ]


def _check_layer(container: WeightContainer, layer: PackedLayer) -> None:
    if layer.key in container:
        raise ModelReadError(
            f"{layer.name!r} is there twice: as {layer.key!r} and as '{layer.name}.qweight'",
            where=str(container.path),
            hint="remove one of them",
        )
    if layer.packing.says_dense(layer.name):
        raise ModelReadError(
            f"{layer.name!r} is packed, but its configuration says that it is not quantized",
            where=layer.packing.source,
            hint="the configuration and the tensors must be of one checkpoint",
        )


def _check_no_bias(container: WeightContainer, name: str) -> None:
    """AutoGPTQ has written biases of zeros for layers that have none."""
    if name in container and container.read(name).any():
        raise ModelReadError(
            f"tensor {name!r} is not zero, but the layer has no bias",
            where=str(container.info(name).file),
        )


def _check_types(container: WeightContainer, layer: PackedLayer) -> None:
    for part in ("qweight", "qzeros"):
        info = container.info(f"{layer.name}.{part}")
        if info.dtype not in ("I32", "U32"):
            raise ModelReadError(
                f"tensor {info.key!r} is stored as {info.dtype}, not as I32",
                where=str(info.file),
                why="codes are packed in words of 32 bits",
            )
    _ = container.info(f"{layer.name}.scales").element


def _is_part(key: str, packed: set[str]) -> bool:
    name, _, part = key.rpartition(".")
    return name in packed and part in ("qweight", "qzeros", "scales", "g_idx")


def _stored_codes(codes: npt.NDArray[np.uint8], scheme: Scheme, bits: int) -> npt.NDArray[np.int8]:
    """Codes `u8[N, K]` as the scheme stores them: signed where it is, two a byte if they are
    small."""
    packed = codes if bits == 8 else pack_nibbles(codes)
    if scheme.format != CodeFormat.U4:
        packed = packed ^ np.uint8(_SIGN_BIT[bits])
    return np.ascontiguousarray(packed).view(np.int8)


def _with_rows(weight: QuantizedWeight, rows: npt.NDArray[np.int32]) -> QuantizedWeight:
    """The weight with its output channels in the order `rows`."""
    zero = None if weight.zero is None else weight.zero[rows]
    return replace(weight, codes=weight.codes[rows], scale=weight.scale[rows], zero=zero)


def _into(values: Array, out: Array | None) -> Array:
    """`values` as a contiguous array, in the buffer `out` if it is given."""
    if out is None:
        return np.ascontiguousarray(values)
    held = out[: values.size * values.itemsize].view(values.dtype).reshape(values.shape)
    np.copyto(held, values)
    return held
