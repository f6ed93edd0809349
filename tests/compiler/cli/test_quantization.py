"""Schemes, rules, tables and targets through `tw`: what is printed, recorded and refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.compiler.cli.harness import SEQ, Models, Tw, assert_refused, names_in

LAYER = """
func.func @f(%x: tensor<1x64xf32>) -> tensor<1x128xf32> {
  %w = top.Weight "proj.weight" : tensor<128x64xf32>
  %y = top.MatMul %x, %w {right_transpose} :
    tensor<1x64xf32>, tensor<128x64xf32> -> tensor<1x128xf32>
  func.return %y : tensor<1x128xf32>
}
"""
DOWN = "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"


def compile_refused(
    tw: Tw, models: Models, folder: Path, code: int, options: tuple[object, ...], *said: str
) -> None:
    """Nothing is written: the message comes before anything else."""
    before = names_in(folder)
    result = tw("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", folder / "m.twm", *options)
    assert_refused(result, code, *said)
    assert names_in(folder) == before


def test_two_schemes_in_one_model(tw: Tw, models: Models, tmp_path: Path) -> None:
    artifact = tmp_path / "m.twm"
    rules = ("--quant-rule", "layers.*.mlp.*=w4a16-g32", "--quant-rule", "layers.1.*=f16")
    result = tw("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", artifact, *rules, "--json")
    assert result.json["weight_bytes"] > 0
    options = tw("inspect", artifact, "--json").json["options"]
    assert options["quant"] == "w8a16"
    assert options["quant_rules"] == [rules[1], rules[3]]
    module = tw.text("inspect", artifact, "--module")
    assert all(name in module for name in ("tpu.W4A16MatMul", "tpu.W8A16MatMul", "tpu.MatMul"))
    tokens = tw("run", artifact, "--prompt-ids", "5,6", "--max-new-tokens", 2, "--json")
    assert len(tokens.json["token_ids"]) == 2


def test_progress_names_the_scheme_of_each_weight(tw: Tw, models: Models, tmp_path: Path) -> None:
    rules = ("--quant-rule", "layers.*.mlp.*=w4a16-g32", "--quant-rule", "layers.0.*=f16")
    result = tw("compile", models.checkpoint, "--seq", SEQ, "-o", tmp_path / "m.twm", *rules)
    lines = {
        line.split("]")[1].split()[0]: line for line in result.err.splitlines() if "->" in line
    }
    assert re.search(r" 64 x 96 +f16 -> w4a16-g32 ", lines[DOWN])
    assert re.search(r" 64 x 96 +f16 -> f16 ", lines[DOWN.replace("1", "0")])
    attention = DOWN.replace("mlp.dense_4h_to_h", "self_attention.dense")
    assert re.search(r" -> w8a16 ", lines[attention])


def test_a_table_that_is_edited(tw: Tw, models: Models, tmp_path: Path) -> None:
    table, artifact = tmp_path / "t.quant", tmp_path / "m.twm"
    common = (models.checkpoint, "--seq", SEQ)
    printed = tw.text("quant-table", *common, "--quant", "w4a16-g32")
    assert tw("quant-table", *common, "--quant", "w4a16-g32", "-o", table).code == 0
    assert table.read_text() == printed
    assert f"{DOWN} = w4a16-g32  # 64 x 96" in printed
    table.write_text(printed.replace(f"{DOWN} = w4a16-g32", f"{DOWN} = f16"))
    again = tw("quant-table", *common, "--quant-table", table, "--json").json
    assert again["weights"][DOWN] == "f16"
    result = tw("compile", *common, "-q", "-o", artifact, "--quant-table", table)
    assert (result.code, result.err) == (0, "")


def test_a_table_of_another_model_is_refused(tw: Tw, models: Models, tmp_path: Path) -> None:
    table = tmp_path / "t.quant"
    table.write_text("model.layers.0.mlp.up_proj.weight = w8a16\n")
    options = ("--quant-table", table)
    compile_refused(tw, models, tmp_path, 2, options, "t.quant:1", "has no weight")
    table.write_text(f"{DOWN} = w8a16\n")
    compile_refused(tw, models, tmp_path, 2, options, "lacks 9 weights", "output_layer")


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("--quant-rule", "mlp.dense_4h=f16"), 2, ("matches no weight", "mlp.dense_4h_to_h")),
        (("--quant-rule", "nonsense"), 2, ("this is no rule", "PATTERN=SCHEME")),
        (("--quant-rule", "re:(=f16"), 2, ("not a regular expression",)),
        (
            ("--quant", "w4a16"),
            2,
            ("do not divide the inputs of 2 weights", "dense_4h_to_h", "96 inputs", "w4a16-g32"),
        ),
        (("--quant", "f8e5m2"), 4, ("bm1684x cannot dequantize", "bm1690")),
        (("--quant", "int8"), 2, ("8 layers are to be int8", "tw calibrate", "(2)")),
        (("--quant-target", "5bpp"), 2, ("is no target", "4.5bpw")),
        (("--quant-target", "5bpw", "--quant-table", "t.quant"), 2, ("leaves nothing to decide",)),
        (("--requantize",), 2, ("--requantize is for checkpoints that are quantized already",)),
        (("--tune", "gtpq"), 2, ("unknown pass 'gtpq'", "smooth-quant, awq-scale, gptq")),
        (("--tune", "fuse-silu"), 2, ("fuse-silu does not tune weights", "--top-passes")),
        (("--tune", "gptq"), 2, ("--tune needs a --calibration", "tw calibrate")),
        (("--quant-rule", "word_embeddings=w4a16"), 2, ("the embedding cannot be w4a16",)),
    ],
)
def test_what_is_refused(
    tw: Tw,
    models: Models,
    tmp_path: Path,
    options: tuple[object, ...],
    code: int,
    said: tuple[str, ...],
) -> None:
    compile_refused(tw, models, tmp_path, code, options, *said)


def test_every_scheme_is_estimated(tw: Tw, models: Models) -> None:
    """Bytes of codes, scales and zero points, to the byte."""
    schemes = ("f16", "w8a16", "w8a16-g32-zp", "w4a16-g32", "w4a16-channel-absmax", "f8e4m3")
    arguments = ("--seq", SEQ, "--chip", "bm1690", "--json")
    rows = tw("estimate", models.checkpoint, "--quant", ",".join(schemes), *arguments).json
    table = [
        tw("quant-table", models.checkpoint, "--quant", scheme, *arguments).json["weight_bytes"]
        for scheme in schemes
    ]
    assert [row["quant"] for row in rows] == list(schemes)
    assert len({row["weight_bytes"] - size for row, size in zip(rows, table, strict=True)}) == 1
    speed = {row["quant"]: row["decode_tokens_per_s"] for row in rows}
    assert speed["w4a16-channel-absmax"] > speed["w8a16"] > speed["f16"]


def test_a_size_is_reached_with_the_weights_at_hand(tw: Tw, models: Models, tmp_path: Path) -> None:
    table = tmp_path / "t.quant"
    common = (models.checkpoint, "--seq", SEQ, "--quant-target")
    tight, roomy = (
        tw("quant-table", *common, target, "-o", table, "--json").json
        for target in ("75kB", "90kB")
    )
    assert tight["artifact_weight_bytes"] <= 75_000 < roomy["artifact_weight_bytes"] <= 90_000
    assert tight["reached"] == tight["artifact_weight_bytes"], "costs add up exactly"
    assert tight["predicted_error"] > roomy["predicted_error"]
    artifact = tmp_path / "m.twm"
    compiled = tw(
        "compile", models.checkpoint, "-q", "--seq", SEQ, "--quant-table", table, "-o", artifact
    )
    assert compiled.code == 0, compiled.err
    printed = tw("quant-table", *common, "5bpw")
    assert printed.code == 0
    assert "layers.*.mlp.dense_4h_to_h.weight" in printed.out


def test_a_target_is_compiled_in_one_command(tw: Tw, models: Models, tmp_path: Path) -> None:
    """The same as by a table, byte for byte; said on stderr, and recorded."""
    table, by_table, at_once = (tmp_path / name for name in ("t.quant", "a.twm", "b.twm"))
    target = ("--quant-target", "80kB", "--quant-candidates", "w8a16,w4a16-g32,f16")
    common = (models.checkpoint, "--seq", SEQ)
    planned = tw("quant-table", *common, *target, "-o", table, "--json").json
    compiled = tw("compile", *common, "--quant-table", table, "-q", "-o", by_table, "--json").json
    result = tw("compile", *common, *target, "-o", at_once, "--json")
    assert "chosen for 80kB: " in result.err
    assert "layers.*.mlp.dense_4h_to_h.weight (2): " in result.err
    made = result.json
    assert made["weight_bytes"] == compiled["weight_bytes"]
    record = tw("inspect", at_once, "--json").json["options"]["quant_target"]
    assert record == made["quant_target"] | {"candidates": ["w8a16", "w4a16-g32", "f16"]}
    assert record["groups"] == planned["groups"]
    assert record["reached"] == planned["reached"] <= 80_000
    assert tw.text("inspect", at_once, "--module") == tw.text("inspect", by_table, "--module")
    assert len({each["scheme"] for each in record["groups"]}) > 1, "the test has a mixture"


def test_a_speed_is_reached_from_the_configuration_alone(tw: Tw, models: Models) -> None:
    common = ("quant-table", models.checkpoint / "config.json", "--seq", SEQ, "--json")
    dense, cheap = (
        tw(*common, "--quant-target", "1tok/s", "--quant-candidates", name).json
        for name in ("f16", "w4a16-channel")
    )
    middle = (dense["decode_tokens_per_s"] + cheap["decode_tokens_per_s"]) / 2
    for per in ("kind", "layer"):
        found = tw(*common, "--quant-target", f"{middle}tok/s", "--quant-target-per", per).json
        assert middle <= found["decode_tokens_per_s"] <= cheap["decode_tokens_per_s"]
        assert found["reached"] == pytest.approx(found["decode_tokens_per_s"], rel=1e-12)
        assert len(found["groups"]) == (4 if per == "kind" else 8)


@pytest.mark.parametrize(
    ("quant", "op"),
    [
        ("w4a16-g32", "tensor<128x32xi8>, tensor<128x2xf16> zero tensor<128x2xi8>"),
        ("w4a16-channel-absmax", "tensor<128x32xi8>, tensor<128x1xf16> ->"),
        ("w8a16-g16", "tensor<128x64xi8>, tensor<128x4xf16> ->"),
        ("f8e5m2", "format = #tpu<code_format f8e5m2>"),
    ],
)
def test_schemes_in_tw_opt(tw: Tw, tmp_path: Path, quant: str, op: str) -> None:
    source = tmp_path / "m.mlir"
    source.write_text(LAYER)
    assert op in tw.text("opt", source, "-p", f"convert-top-to-tpu{{quant={quant}}}")
    refused = tw("opt", source, "-p", "convert-top-to-tpu{quant=w4a16-g128}")
    assert_refused(refused, 4, "groups of 128 do not divide the 64 inputs", "w4a16-channel")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--quant-target", "4.5"), "is no target"),
        (("--quant-target", "0bpw"), "is no target"),
        (("--quant-target", "1bpw"), "no choice of schemes reaches 1bpw"),
        (("--quant-target", "1kB"), "no choice of schemes reaches 1kB"),
        (("--quant-target", "1e9tok/s"), "is no target"),
        (("--quant-target", "90000tok/s"), "the best that the candidates allow is 9"),
        (("--quant-target", "5bpw", "--quant-candidates", "int8"), "int8 cannot be a candidate"),
        (("--quant-target", "5bpw", "--quant-candidates", "w5"), "unknown quantization 'w5'"),
        (("--quant-target", "5bpw", "--quant-candidates", "f8e4m3"), "none of the candidates"),
        (("--quant-target", "5bpw", "--quant-target-per", "row"), "kind or layer"),
        (("--quant-target", "5bpw", "--quant-rule", "*=f16"), "no weight to decide about"),
        (("--quant-candidates", "w8a16"), "is for a --quant-target"),
    ],
)
def test_targets_that_make_no_sense(
    tw: Tw, models: Models, options: tuple[str, ...], said: str
) -> None:
    result = tw("quant-table", models.checkpoint, "--seq", SEQ, *options)
    assert (result.code, result.out) == (2, "")
    assert said in result.err


def test_the_proof_of_a_calibration_is_in_the_manifest(
    tw: Tw, models: Models, tmp_path: Path
) -> None:
    tokens, calibration = tmp_path / "tokens.json", tmp_path / "c.calib.json"
    tokens.write_text(json.dumps([[1, 2, 3, 4], [5, 6, 7]]))
    common = ("--seq", SEQ, "-q")
    made = tw("calibrate", models.checkpoint, "--data", tokens, "-o", calibration, *common)
    assert made.code == 0, made.err
    artifact = tmp_path / "m.twm"
    options = ("--calibration", calibration, "-o", artifact)
    assert tw("compile", models.checkpoint, *common, *options).code == 0
    record = tw("inspect", artifact, "--json").json["options"]["calibration"]
    assert record["samples"] == 2
    assert record["layers"][DOWN][2] == 7, "rows"


@pytest.mark.parametrize("verb", ["compile", "quant-table"])
def test_a_scheme_beside_a_target_is_refused(
    tw: Tw, models: Models, tmp_path: Path, verb: str
) -> None:
    output = tmp_path / "output"
    options = ("--quant", "w8a16", "--quant-target", "6bpw", "-o", output)
    result = tw(verb, models.checkpoint, *options)
    assert_refused(result, 2, "--quant w8a16 beside --quant-target 6bpw", "--quant-candidates")
    assert not output.exists()
