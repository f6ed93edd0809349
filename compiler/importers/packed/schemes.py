"""How the weights of a packed checkpoint are compiled: as they are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from xdsl.dialects.builtin import ModuleOp

from tilewright.compiler.importers.packed.checkpoint import (
    WEIGHT_SUFFIX,
    PackedCheckpoint,
    PackedLayer,
)
from tilewright.compiler.importers.packed.config import READ_AS_THEY_ARE, Packing
from tilewright.compiler.quantization.linear_weights import linear_weights
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import DEFAULT_SCHEME, DENSE


def packed_schemes(source: WeightSource) -> dict[str, str]:
    """The scheme of each weight that is packed, by resolved key; empty for other sources."""
    if not isinstance(source, PackedCheckpoint):
        return {}
    return {key: layer.scheme.name for key, layer in source.layers.items()}


def described_schemes(packing: Packing, module: ModuleOp) -> dict[str, str]:
    """What `packed_schemes` may be expected to give, by the configuration alone: all linear layers
    are packed but those that it says are not."""
    schemes: dict[str, str] = {}
    for key, weight in linear_weights(module).items():
        name = key.removesuffix(WEIGHT_SUFFIX)
        if weight.is_embedding or (weight.is_head and not packing.head):
            continue
        if not packing.says_dense(name):
            layer = PackedLayer(name, (weight.channels, weight.depth), packing.of_layer(name))
            schemes[key] = layer.scheme.name
    return schemes


def default_quant(source: Path, activation: str, requantize: bool = False) -> str:
    """What `--quant` is where it is left out: the `activation` type for a checkpoint that is
    quantized already, whose other weights stay dense; else, and to `requantize`, the scheme for
    everything.

    Raises as `read_packing`.
    """
    from tilewright.compiler.importers.huggingface import packing_of

    if requantize:
        return DEFAULT_SCHEME
    return DEFAULT_SCHEME if packing_of(source) is None else activation


def keep_packed(
    packed: Mapping[str, str], default: Mapping[str, str], chosen: Mapping[str, str]
) -> dict[str, str]:
    """`chosen` with the schemes of the weights that are packed.

    All give the scheme or dense type by resolved key: `default` what `--quant` says by itself,
    `chosen` what tables and rules make of it. A dense `--quant` speaks of the other weights only.
    Raises `OptionError` where anything else than its own scheme is wanted for a packed weight.
    """
    kept = dict(chosen)
    for key, scheme in packed.items():
        wanted = chosen.get(key, scheme)
        said = wanted != default.get(key) or wanted not in DENSE
        if said and wanted != scheme:
            raise OptionError(
                f"weight {key!r} cannot be compiled as {wanted}",
                why=f"the checkpoint holds it quantized already, as {scheme}",
                hint="leave it out of --quant, rules and tables: it is compiled as it is "
                f"({READ_AS_THEY_ARE}); for another scheme, compile the checkpoint that this one "
                "was made from, or quantize these values anew, which rounds twice: --requantize",
            )
        kept[key] = scheme
    return kept
