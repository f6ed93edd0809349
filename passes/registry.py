"""All passes by name, and which ops may remain after each.

Passes are imported when they are asked for: `tw --help` does not pay for the compiler.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import MappingProxyType

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation
from xdsl.irdl import IRDLOperation
from xdsl.passes import ModulePass

from tilewright.dialects import plugins
from tilewright.dialects.errors import InternalError, IRError, OptionError
from tilewright.dialects.levels import level_of
from tilewright.dialects.scopes import where_of

PassFactory = Callable[[], type[ModulePass]]


def _lazy(module: str, class_name: str) -> PassFactory:
    def load() -> type[ModulePass]:
        found = getattr(import_module(f"tilewright.passes.{module}"), class_name)
        if not (isinstance(found, type) and issubclass(found, ModulePass)):
            raise InternalError(f"{module}.{class_name} is not a pass")
        return found

    return load


PASSES: Mapping[str, PassFactory] = MappingProxyType(
    {
        "inline-calls": _lazy("inline_calls", "InlineCallsPass"),
        "eliminate-common-subexpressions": _lazy(
            "eliminate_common_subexpressions", "EliminateCommonSubexpressionsPass"
        ),
        "eliminate-dead-ops": _lazy("eliminate_dead_ops", "EliminateDeadOpsPass"),
        "canonicalize-top": _lazy("canonicalize_top", "CanonicalizeTopPass"),
        "fold-weight-transpose": _lazy("fold_weight_transpose", "FoldWeightTransposePass"),
        "simplify-arithmetic": _lazy("simplify_arithmetic", "SimplifyArithmeticPass"),
        "fuse-silu": _lazy("fuse_silu", "FuseSiLUPass"),
        "fuse-swiglu": _lazy("fuse_swiglu", "FuseSwiGLUPass"),
        "fuse-gelu": _lazy("fuse_gelu", "FuseGELUPass"),
        "fuse-softmax": _lazy("fuse_softmax", "FuseSoftmaxPass"),
        "fuse-rms-norm": _lazy("fuse_rms_norm", "FuseRMSNormPass"),
        "fuse-layer-norm": _lazy("fuse_layer_norm", "FuseLayerNormPass"),
        "fuse-rope": _lazy("fuse_rope", "FuseRopePass"),
        "fuse-attention": _lazy("fuse_attention", "FuseAttentionPass"),
        "fuse-bias": _lazy("fuse_bias", "FuseBiasPass"),
        "add-score-function": _lazy("add_score_function", "AddScoreFunctionPass"),
        "smooth-quant": _lazy("smooth_quant", "SmoothQuantPass"),
        "awq-scale": _lazy("awq_scale", "AwqScalePass"),
        "gptq": _lazy("gptq", "GptqPass"),
        "convert-top-to-tpu": _lazy("convert_top_to_tpu", "ConvertTopToTpuPass"),
        "simplify-casts": _lazy("simplify_casts", "SimplifyCastsPass"),
        "decompose-composites": _lazy("decompose_composites", "DecomposeCompositesPass"),
        "tile-for-local-memory": _lazy("tile_for_local_memory", "TileForLocalMemoryPass"),
        "double-buffer": _lazy("double_buffer", "DoubleBufferPass"),
        "allocate-local-memory": _lazy("allocate_local_memory", "AllocateLocalMemoryPass"),
        "insert-waits": _lazy("insert_waits", "InsertWaitsPass"),
        "emit-commands": _lazy("emit_commands", "EmitCommandsPass"),
    }
)
"""Every pass, in the order of the pipeline. A value imports and returns the pass's class."""


def find_pass(name: str) -> type[ModulePass]:
    """The class of a pass, Tilewright's or a plugin's.

    Raises `OptionError` where there is none of that name, `PluginError` where a plugin's cannot be
    loaded.
    """
    if name in PASSES:
        return PASSES[name]()
    giver = plugins.given("passes").get(name)
    if giver is None:
        raise OptionError(
            f"unknown pass {name!r}",
            why=plugins.left_out(),
            hint=f"one of {', '.join(sorted(pass_names()))}",
        )
    found = plugins.loaded(giver, "passes", name, type)
    if not issubclass(found, ModulePass) or found.name != name:
        problem = f"{found!r} is not a pass of that name"
        raise giver.failure(f"{name!r} of its passes cannot be loaded", problem)
    return found


def pass_names() -> tuple[str, ...]:
    """The names that `find_pass` knows: ours in the order of the pipeline, then plugins'."""
    return (*PASSES, *plugins.given("passes"))


PIPELINES: Mapping[str, str] = MappingProxyType(
    {
        "simplify": "fold-weight-transpose,canonicalize-top,simplify-arithmetic,fuse-silu,"
        "fuse-swiglu,fuse-gelu,fuse-softmax,fuse-layer-norm,fuse-rms-norm,fuse-rope,"
        "fuse-attention,fuse-bias,eliminate-common-subexpressions,eliminate-dead-ops",
        "kernels": "decompose-composites,tile-for-local-memory,double-buffer,"
        "allocate-local-memory,insert-waits,emit-commands",
        "compile": "convert-top-to-tpu,kernels",
    }
)
"""Lists of passes, and of other pipelines, that have a name of their own; as `tw opt -p` takes
them."""


def find_pipeline(name: str) -> str | None:
    """The text of a named pipeline, Tilewright's or a plugin's; none if there is none."""
    if name in PIPELINES:
        return PIPELINES[name]
    giver = plugins.given("pipelines").get(name)
    return None if giver is None or giver.plugin is None else giver.plugin.pipelines[name]


def pipeline_names() -> tuple[str, ...]:
    """The names that `find_pipeline` knows."""
    return (*PIPELINES, *plugins.given("pipelines"))


@dataclass(frozen=True)
class Stage:
    """What a module consists of after a pass: ops or `level.*`, and the attributes they have.

    `tpu.*` are all `TpuOp`s, those of plugins too.
    """

    legal: tuple[str, ...]
    required: tuple[str, ...] = ()
    """Attributes without which a command op is illegal, where its definition has them."""


_MODULE = ("builtin.module", "func.func", "func.return")
_GRAPH = tuple(f"tpu.{name}" for name in ("Weight", "State", "Call", "Launch", "Reshape", "Slice"))
_KERNEL = (
    *("arith.constant", "arith.addi", "arith.subi", "arith.muli", "arith.divui", "arith.remui"),
    *("scf.for", "scf.yield", "gdma.*"),
    *(f"bdc.{name}" for name in ("fill", "view", "mm", "mm_accumulate", "dequant", "unary")),
    *(f"bdc.{name}" for name in ("binary", "scalar", "reduce", "transpose", "rotate")),
    *(f"bdc.{name}" for name in ("quantize", "dequantize", "requant")),
)

STAGES: Mapping[str, Stage] = MappingProxyType(
    {
        "convert-top-to-tpu": Stage((*_MODULE, "tpu.*")),
        "tile-for-local-memory": Stage((*_MODULE, *_GRAPH, *_KERNEL)),
        "double-buffer": Stage((*_MODULE, *_GRAPH, *_KERNEL)),
        "allocate-local-memory": Stage((*_MODULE, *_GRAPH, *_KERNEL), ("offsets",)),
        "insert-waits": Stage((*_MODULE, *_GRAPH, *_KERNEL), ("offsets", "waits")),
        "emit-commands": Stage((*_MODULE, *_GRAPH, "bdc.program")),
    }
)


def check_stage(module: ModuleOp, pass_name: str) -> None:
    """Check that `module` consists of what may remain after `pass_name`.

    A pass that is not in `STAGES` keeps the stage. Raises `IRError` that names the first op that
    may not, and its location.
    """
    if pass_name not in STAGES:
        return
    stage = STAGES[pass_name]
    legal = frozenset(stage.legal)

    def is_left_over(op: Operation) -> bool:
        return op.name not in legal and f"{level_of(op)}.*" not in legal

    for op in module.walk():
        if is_left_over(op):
            counts = Counter(each.name for each in module.walk() if is_left_over(each))
            raise IRError(
                f"{op.name} may not remain after {pass_name}",
                where=where_of(op),
                why="left over: " + ", ".join(f"{n} {name}" for name, n in counts.most_common()),
                hint=f"legal then: {', '.join(stage.legal)}",
            )
        for name in stage.required:
            if name in _properties(op) and name not in op.properties:
                raise IRError(f"{op.name} has no {name} after {pass_name}", where=where_of(op))


def _properties(op: Operation) -> Mapping[str, object]:
    if isinstance(op, IRDLOperation) and op.dialect_name() in ("gdma", "bdc"):
        return op.get_irdl_definition().properties
    return {}
