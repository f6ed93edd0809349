"""Checkpoints in the layout of the Hugging Face hub: `config.json` beside safetensors files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from tilewright.compiler.importers.packed.checkpoint import PackedCheckpoint
from tilewright.compiler.importers.packed.config import (
    AWQ_CONFIG_NAME,
    GPTQ_CONFIG_NAME,
    QUANTIZATION_FIELD,
    Packing,
    read_packing,
)
from tilewright.compiler.importers.packed.schemes import described_schemes, packed_schemes
from tilewright.compiler.language_model import LanguageModel
from tilewright.compiler.models.causal_lm import CausalLM
from tilewright.compiler.models.chatglm import ChatGLM
from tilewright.compiler.models.config import Fields
from tilewright.compiler.models.glm4 import GLM4
from tilewright.compiler.models.llama import Llama
from tilewright.compiler.models.qwen2 import Qwen2
from tilewright.dialects.errors import ModelReadError, OptionError, UnsupportedError
from tilewright.passes.apply_input_order import apply_input_order
from tilewright.passes.fold_input_order import fold_input_order

CONFIG_NAME = "config.json"
GENERATION_CONFIG_NAME = "generation_config.json"


class ModelClass(Protocol):
    """Makes a model for a number of positions from the fields of its configuration."""

    def __call__(self, fields: Fields, positions: int) -> CausalLM: ...


MODELS: dict[str, ModelClass] = {"chatglm": ChatGLM, "glm": GLM4, "llama": Llama, "qwen2": Qwen2}
"""The supported architectures by `model_type`."""


def load_model(path: Path | str, *, seq: int) -> LanguageModel:
    """The language model in the folder `path` (or with the configuration file `path`) for `seq`
    positions.

    Reads the configuration only; `LanguageModel.open_weights` opens the checkpoint. But where it is
    quantized already (GPTQ, AWQ), this does too, for the order of the inputs. Raises
    `ModelReadError` for a configuration that is missing, damaged, incomplete or contradicts itself,
    `UnsupportedError` for another architecture or setting, `OptionError` if the model does not have
    `seq` positions.
    """
    path = Path(path)
    file = path / CONFIG_NAME if path.is_dir() else path
    fields = read_config(file)
    generation = file.parent / GENERATION_CONFIG_NAME
    if generation.is_file():
        eos = read_config(generation).values.get("eos_token_id")
        if eos is not None:
            fields = Fields({**fields.values, "eos_token_id": eos}, fields.source)
    model = build_model(fields, seq)
    imported = LanguageModel(
        name=(path if path.is_dir() else path.parent).resolve().name,
        module=model.trace(),
        weights=file.parent,
        shapes=model.shapes(),
        ignorable=model.ignorable,
        tables=model.tables,
        packing=find_packing(fields, file.parent),
        summary=model.summary,
    )
    return _as_packed(imported)


def find_packing(fields: Fields, folder: Path) -> Packing | None:
    """How the weights of a checkpoint are quantized already: by its configuration, or by what
    AutoGPTQ or AutoAWQ wrote beside it. None where they are not. Raises as `read_packing`."""
    if fields.has(QUANTIZATION_FIELD):
        return read_packing(fields.child(QUANTIZATION_FIELD))
    for name in (GPTQ_CONFIG_NAME, AWQ_CONFIG_NAME):
        if (folder / name).is_file():
            return read_packing(read_config(folder / name))
    return None


def packing_of(path: Path) -> Packing | None:
    """How the weights of the checkpoint in the folder `path` are quantized already, if they are.

    None for what is no checkpoint in this layout. Raises as `read_packing` and `read_config`.
    """
    file = path / CONFIG_NAME
    return find_packing(read_config(file), path) if file.is_file() else None


def _as_packed(model: LanguageModel) -> LanguageModel:
    """The model with the schemes of the weights that its checkpoint holds quantized, and gathers
    where it has inputs in another order. Without weights, by the configuration alone."""
    if model.packing is None:
        return model
    if not any(model.weights.glob("*.safetensors")):
        return replace(model, packed=described_schemes(model.packing, model.module))
    with model.open_weights() as source:
        schemes = packed_schemes(source)
        orders = source.orders if isinstance(source, PackedCheckpoint) else {}
        folded = fold_input_order(model.module, orders, schemes)
        tables = apply_input_order(model.module, folded.left)
    computed = model.tables
    return replace(
        model,
        packed=schemes,
        rows=folded.rows,
        tables=lambda: {**computed(), **tables},
    )


def build_model(fields: Fields, seq: int) -> CausalLM:
    """The model that a configuration describes, not yet traced; raises as `load_model` does."""
    architecture = fields.text("model_type", "")
    fields.require(architecture != "", "field 'model_type' is missing")
    if architecture not in MODELS:
        raise UnsupportedError(
            f"models of type {architecture!r} are not supported",
            where=fields.source,
            hint=f"supported: {', '.join(MODELS)}",
        )
    if seq < 1:
        raise OptionError(f"{seq} positions: a model has at least one")
    model = MODELS[architecture](fields, seq)
    if seq > model.summary.max_positions:
        raise OptionError(
            f"{seq} positions are more than the model's {model.summary.max_positions}",
            where=fields.source,
        )
    return model


def read_config(file: Path) -> Fields:
    """The fields of a JSON file; raises `ModelReadError` if it is missing or not a JSON object."""
    try:
        values: Any = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ModelReadError(
            f"there is no {file.name}",
            where=str(file.parent),
            hint="give the folder of a checkpoint, with its configuration and safetensors files",
        ) from None
    except OSError as error:
        raise ModelReadError("cannot be read", where=str(file), why=error.strerror) from error
    except (ValueError, RecursionError) as error:
        raise ModelReadError("is not JSON", where=str(file), why=str(error)) from error
    if not isinstance(values, dict):
        raise ModelReadError("holds no JSON object", where=str(file))
    return Fields(values, str(file))
