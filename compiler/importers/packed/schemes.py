"""How the weights of a packed checkpoint are compiled: as they are."""

from __future__ import annotations

from collections.abc import Mapping

from tilewright.compiler.importers.packed.checkpoint import PackedCheckpoint
from tilewright.compiler.importers.packed.config import READ_AS_THEY_ARE
from tilewright.compiler.weights.source import WeightSource
from tilewright.dialects.errors import OptionError


def packed_schemes(source: WeightSource) -> dict[str, str]:
    """The scheme of each weight that is packed, by resolved key; empty for other sources."""
    if not isinstance(source, PackedCheckpoint):
        return {}
    return {key: layer.scheme.name for key, layer in source.layers.items()}


def packed_marks(source: WeightSource, activation: str) -> dict[str, dict[str, str]]:
    """What `specialize_weights` marks on the packed weights: their scheme, and that scales which
    are not of the `activation` type are stored as f32, which holds them exactly."""
    marks = {key: {"top.quant": scheme} for key, scheme in packed_schemes(source).items()}
    if isinstance(source, PackedCheckpoint):
        for key, layer in source.layers.items():
            if source.container.info(f"{layer.name}.scales").element.name != activation:
                marks[key]["top.scale"] = "f32"
    return marks


def check_chosen(packed: Mapping[str, str], chosen: Mapping[str, str]) -> None:
    """Raises `OptionError` where the user has `chosen` another scheme for a weight that is packed.

    Both give schemes by resolved key.
    """
    for key, scheme in chosen.items():
        if key in packed and packed[key] != scheme:
            raise OptionError(
                f"weight {key!r} cannot be compiled as {scheme}",
                why=f"the checkpoint holds it quantized already, as {packed[key]}",
                hint="leave --quant out: weights that are quantized are compiled as they are "
                f"({READ_AS_THEY_ARE}); for another scheme, compile the checkpoint that this one "
                "was made from",
            )
