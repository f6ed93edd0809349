"""What the verbs print: text, and the JSON that docs/json.md describes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from tests.compiler.cli.harness import ROOT, SEQ, Models, Tw, chip_file, names_in

from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.cli.failures import TERMINATED
from tilewright.compiler.pipeline import CompileOptions, kernel_passes, lowering_passes
from tilewright.dialects.context import parse_module
from tilewright.dialects.dominance import verify_module
from tilewright.passes.registry import PASSES, PIPELINES

PROMPT = "5,6,7"
BY_NAME = {"launches", "stages_s", "outputs", "model", "options", "inputs"}
"""Fields that hold objects with names of the model's, not of ours."""


def documented(verb: str) -> set[str]:
    """The fields that docs/json.md gives for a verb."""
    text = (ROOT / "docs" / "json.md").read_text()
    paragraph = next(p for p in text.split("\n\n") if f"`tw {verb}`" in p)
    paragraph = next(part for part in paragraph.split("`tw ") if part.startswith(f"{verb}`"))
    without_values = re.sub(r"\((of decode: |)`memory` or `compute`\)", "", paragraph)
    return set(re.findall(r"`([a-z][a-z0-9_]*)`", without_values)) - {verb}


def fields(document: Any) -> set[str]:
    """The names of all fields, inner ones too."""
    if isinstance(document, list):
        return {name for item in document for name in fields(item)}
    if not isinstance(document, dict):
        return set()
    names = set(document)
    for name, value in document.items():
        if name not in BY_NAME or isinstance(value, list):
            names |= fields(value)
    return names


# compile


def test_compile_says_what_it_made(models: Models) -> None:
    document = models.compiled
    assert set(document) == documented("compile")
    assert document["artifact"] == str(models.w8a16)
    assert document["artifact_bytes"] == models.w8a16.stat().st_size
    assert document["weight_bytes"] < document["artifact_bytes"]
    assert document["memory_bytes"] > document["weight_bytes"]
    assert (document["quant"], document["seq"], document["chip"]) == ("w8a16", SEQ, "bm1684x")
    program = open_artifact(models.w8a16).program
    assert document["kernels"] == len(program.kernels)
    assert document["launches"] == {f.name: len(f.launches) for f in program.functions}
    assert {each.name for each in kernel_passes("bm1684x")} <= set(document["stages_s"])
    assert all(seconds >= 0 for seconds in document["stages_s"].values())


def test_compile_logs_every_stage_and_weight_on_stderr(models: Models) -> None:
    assert "[weights]" in models.log
    for key in load_file(models.checkpoint / "model.safetensors"):
        assert key in models.log
    numbers = re.findall(r"^\[ *(\d+)/ *(\d+)\]", models.log, re.MULTILINE)
    assert [int(n) for n, _ in numbers] == list(range(1, len(numbers) + 1))
    assert {int(total) for _, total in numbers} == {len(numbers)}


def test_equal_sources_give_equal_artifacts_that_stand_alone(
    models: Models, tmp_path: Path, tw: Tw, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "elsewhere" / models.checkpoint.name
    shutil.copytree(models.checkpoint, copy)
    artifact = tmp_path / "a.twm"
    text = tw.text("compile", copy, "--seq", SEQ, "-q", "-o", artifact)
    assert text.startswith(f"{artifact}: ")
    assert artifact.read_bytes() == models.w8a16.read_bytes()
    shutil.rmtree(copy)
    monkeypatch.chdir(tmp_path)
    here, there = (
        tw("run", path, "--prompt-ids", PROMPT, "--json").json for path in ("a.twm", models.w8a16)
    )
    assert here["token_ids"] == there["token_ids"]
    assert names_in(tmp_path) == ["a.twm", "elsewhere"]


# run, estimate, profile: the same cycles everywhere


def test_run(models: Models, tw: Tw) -> None:
    arguments = ("run", models.w8a16, "--prompt-ids", PROMPT, "--max-new-tokens", 4, "--ignore-eos")
    result = tw(*arguments, "--json")
    document = result.json
    assert set(document) == documented("run") - {
        "function", "cycles", "seconds", "outputs", "shape", "dtype"
    }  # fmt: skip
    assert document["model"] == "tiny"
    assert document["prompt_ids"] == [5, 6, 7]
    assert len(document["token_ids"]) == 4
    assert all(0 <= token < 128 for token in document["token_ids"])
    assert result.err.count("token ") == 4
    text = tw(*arguments)
    ids = ",".join(str(token) for token in document["token_ids"])
    assert text.out.splitlines()[0] == f"token ids: {ids}"
    assert f"{document['prefill_cycles']:,} cycles" in text.out
    assert f"{document['decode_cycles_per_token']:,} cycles a token" in text.out


def test_the_whole_length_can_be_used(models: Models, tw: Tw) -> None:
    longest = SEQ - 3 + 1
    arguments = ("run", models.w8a16, "--prompt-ids", PROMPT, "--ignore-eos", "--json")
    assert len(tw(*arguments, "--max-new-tokens", longest).json["token_ids"]) == longest
    assert tw(*arguments, "--max-new-tokens", longest + 1).code == 2


@pytest.mark.parametrize("quant", ["f16", "w8a16"])
def test_cycles_agree_in_run_estimate_and_profile(models: Models, tw: Tw, quant: str) -> None:
    artifact = getattr(models, quant)
    ran = tw("run", artifact, "--prompt-ids", "1", "--max-new-tokens", 1, "--json").json
    estimated = tw("estimate", models.checkpoint, "--seq", SEQ, "--quant", quant, "--json").json[0]
    profiled = {p["function"]: p for p in tw("profile", artifact, "--json").json}
    assert ran["prefill_cycles"] == estimated["prefill_cycles"] == profiled["prefill"]["cycles"]
    assert ran["prefill_s"] == estimated["prefill_s"] == profiled["prefill"]["seconds"]
    for document in (ran, estimated):
        assert document["decode_cycles_per_token"] == profiled["decode"]["cycles"]
        assert document["decode_tokens_per_s"] == 1 / profiled["decode"]["seconds"]
    for engine in ("gdma_busy", "bdc_busy"):
        assert estimated[engine] == profiled["decode"][engine]
        assert estimated[f"prefill_{engine}"] == profiled["prefill"][engine]


def test_estimate(models: Models, tw: Tw) -> None:
    config = models.checkpoint / "config.json"
    rows = tw("estimate", config, "--quant", "f16,w8a16", "--seq", SEQ, "--json").json
    assert [row["quant"] for row in rows] == ["f16", "w8a16"]
    assert all(set(row) == documented("estimate") for row in rows)
    assert rows[1]["memory_bytes"] == models.compiled["memory_bytes"]
    assert rows[0]["weight_bytes"] > rows[1]["weight_bytes"]
    for row in rows:
        assert row["model"] == "tiny"
        assert row["fits"]
        assert row["bound"] in ("memory", "compute")
        shares = [value for name, value in row.items() if name.endswith("_busy")]
        assert all(0 < share <= 1 for share in shares)
        assert len(shares) == 4
    text = tw.text("estimate", models.checkpoint, "--quant", "f16,w8a16", "--seq", SEQ)
    assert re.search(r"^f16 .* 1\.00 x$", text, re.MULTILINE)
    assert f"{rows[1]['decode_tokens_per_s']:.2f}" in text


def test_estimate_of_what_does_not_fit(models: Models, tw: Tw, tmp_path: Path) -> None:
    chip = chip_file(tmp_path, global_bytes=131072)
    arguments = ("estimate", models.checkpoint, "--seq", SEQ, "--quant", "f16", "--chip", chip)
    result = tw(*arguments)
    row = tw(*arguments, "--json").json[0]
    assert not row["fits"]
    more = row["memory_bytes"] - row["global_bytes"]
    assert result.err.startswith(f"f16 does not fit: {more:,} bytes more than the 131,072")


def test_profile(models: Models, tw: Tw, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    documents = tw("profile", models.w8a16, "--trace", trace, "--json").json
    assert fields(documents) == documented("profile")
    for document in documents:
        for group in ("layers", "kernels"):
            rows = document[group]
            assert sum(row["cycles"] for row in rows) == document["cycles"]
            assert sum(row["bytes"] for row in rows) == (
                document["bytes_in"] + document["bytes_out"]
            )
            launches = models.compiled["launches"][document["function"]]
            assert sum(row["launches"] for row in rows) == launches
            for row in rows:
                for engine in ("gdma", "bdc"):
                    assert 0 <= row[f"{engine}_busy"] <= 1
                    total = row[f"{engine}_busy"] + row[f"{engine}_waiting"]
                    assert total == pytest.approx(1)
                assert 0 < row["roofline"] <= 1
        names = [row["name"] for row in document["layers"]]
        assert sum("layers.1" in name for name in names) == 1
    one = tw("profile", models.w8a16, "--function", "decode", "--json").json
    assert one == [document for document in documents if document["function"] == "decode"]
    text = tw.text("profile", models.w8a16)
    assert f"prefill: {documents[0]['cycles']:,} cycles" in text
    events = json.loads(trace.read_text())["traceEvents"]
    kernels = [event for event in events if event["tid"] == "kernels"]
    assert len(kernels) == models.compiled["launches"]["decode"]
    end = max(event["ts"] + event["dur"] for event in events)
    assert end == pytest.approx(one[0]["cycles"] / 1e3)  # microseconds at 1 GHz


# compare


def test_compare(models: Models, tw: Tw) -> None:
    result = tw("compare", models.w8a16, "--prompt-ids", PROMPT, "--json")
    document = result.json
    assert fields(document) == documented("compare")
    assert document["ok"]
    rows = document["ops"]
    counts = models.compiled["launches"]
    assert len(rows) == sum(counts.values())
    assert [row["function"] for row in rows] == (
        ["prefill"] * counts["prefill"] + ["decode"] * counts["decode"]
    )
    for row in rows:
        assert row["in_bound"]
        assert 0 <= row["ratio"] <= 1
        assert row["cosine"] > 0.999
        assert row["source"].endswith(tuple("0123456789"))
    assert {"tpu.W8A16MatMul", "tpu.Attention"} <= {row["op"] for row in rows}
    text = tw.text("compare", models.w8a16, "--prompt-ids", PROMPT)
    assert text.endswith(f"{len(rows)} of {len(rows)} ops within their error bound of float64\n")
    detailed = tw.text("compare", models.w8a16, "--function", "decode", "--all")
    assert len(detailed.splitlines()) == len({r["name"] for r in rows[counts["prefill"] :]}) + 3


def test_compare_names_the_first_op_out_of_bound(
    models: Models, tw: Tw, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "tilewright.compiler.compare.bound",
        lambda op, inputs, exact: np.float64(0 if op.name == "tpu.SiLU" else 1),
    )
    result = tw("compare", models.f16, "--prompt-ids", PROMPT, "--json")
    assert result.code == 8
    assert not json.loads(result.out)["ok"]
    assert "accuracy below tolerance [TW008]" in result.err
    assert "encoder.layers.0.mlp (tpu.SiLU) is out of its error bound in prefill" in result.err
    assert re.search(r"where: .*\.py:\d+\n", result.err)
    assert "Traceback" not in result.err


# inspect


def test_inspect(models: Models, tw: Tw) -> None:
    document = tw("inspect", models.w8a16, "--json").json
    ports = {"shape", "element"}
    assert fields(document) == (documented("inspect") - {"kernel", "commands"}) | ports
    assert document["options"]["quant"] == "w8a16"
    kernel = [each.name for each in kernel_passes("bm1684x")]
    lowering = lowering_passes(CompileOptions("w8a16")).names()
    assert document["pipeline"].split(",") == [*lowering, *kernel]
    assert list(document["inputs"]) == ["model.safetensors"]
    assert [f["name"] for f in document["functions"]] == ["prefill", "decode"]
    used = max(b["address"] + b["size_bytes"] for b in document["memory"])
    assert used - min(b["address"] for b in document["memory"]) <= models.compiled["memory_bytes"]
    launches = sum(kernel["launches"] for kernel in document["kernels"])
    assert launches == sum(models.compiled["launches"].values())
    text = tw.text("inspect", models.w8a16)
    for kernel in document["kernels"]:
        assert kernel["name"] in text


def test_inspect_disassembles(models: Models, tw: Tw) -> None:
    kernels = tw("inspect", models.w8a16, "--json").json["kernels"]
    counts = {k["name"]: k["gdma_commands"] + k["bdc_commands"] for k in kernels}
    found = tw("inspect", models.w8a16, "--commands", "attention", "--json").json
    assert set(found[0]) == {"kernel", "commands"}
    assert {each["kernel"] for each in found} == {n for n in counts if n.startswith("attention")}
    for each in found:
        commands = [line for line in each["commands"] if re.search(r"\bid=|\b(gdma|bdc) \d+", line)]
        assert len(commands) == counts[each["kernel"]]
    text = tw.text("inspect", models.w8a16, "--commands", found[0]["kernel"])
    assert text.splitlines() == found[0]["commands"]


def test_inspect_prints_the_module(models: Models, tw: Tw) -> None:
    text = tw.text("inspect", models.w8a16, "--module")
    verify_module(parse_module(text, "module.mlir"))
    assert "tpu.W8A16MatMul" in text


# passes, ops, chips, doctor


def test_passes(tw: Tw) -> None:
    rows = tw("passes", "--json").json
    assert all(set(row) == {"name", "summary", "options", "package"} for row in rows)
    assert {row["name"] for row in rows} == set(PASSES)
    assert all(row["summary"] for row in rows)
    options = next(row["options"] for row in rows if row["name"] == "convert-top-to-tpu")
    assert options["quant"] == "w8a16"
    passes, pipelines = tw.text("passes").split("\n\n")
    assert len(passes.splitlines()) == len(PASSES) + 2
    assert len(pipelines.splitlines()) == len(PIPELINES) + 2


def test_ops(tw: Tw) -> None:
    rows = tw("ops", "--json").json
    assert all(set(row) == {"name", "summary", "documentation"} for row in rows)
    assert all(row["summary"] for row in rows)
    assert {"top.MatMul", "tpu.W8A16MatMul", "gdma.load", "bdc.mm"} <= {r["name"] for r in rows}
    one = tw.text("ops", "tpu.W8A16MatMul")
    assert "```mlir" in one
    assert tw("ops", "tpu.W8A16MatMul", "--json").json == [
        row for row in rows if row["name"] == "tpu.W8A16MatMul"
    ]


def test_chips(tw: Tw, tmp_path: Path) -> None:
    rows = tw("chips", "--json").json
    assert [row["name"] for row in rows] == ["bm1684x", "bm1688", "bm1690"]
    assert all(set(row["sources"]) <= set(row) for row in rows)
    assert tw("chips", "bm1684x", "--json").json == rows[:1]
    assert "64 GiB/s" in tw.text("chips", "bm1684x")
    assert tw.text("chips").splitlines()[2].startswith("bm1684x ")
    own = tw("chips", chip_file(tmp_path, lanes=32), "--json").json[0]
    assert own == {**rows[0], "lanes": 32}


def test_doctor(tw: Tw) -> None:
    result = tw("doctor", "--json")
    document = result.json
    assert fields(document) == documented("doctor")
    assert document["ok"]
    assert all(check["ok"] and check["detail"] for check in document["checks"])


def test_doctor_reports_what_is_broken(tw: Tw, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise KeyError("quant")

    monkeypatch.setattr("tilewright.compiler.cli.doctor_verb._small_model", broken)
    result = tw("doctor")
    assert result.code == 1
    assert re.search(r"^compile, run, compare +no +KeyError: 'quant'$", result.out, re.MULTILINE)


# The documents


def test_every_exit_code_is_documented() -> None:
    text = (ROOT / "docs" / "exit_codes.md").read_text()
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    numbers = {int(n) for row in rows for n in re.findall(r"\d+", row)}
    assert {0, 1, 12, 141, *TERMINATED} <= numbers
    from tilewright.dialects import errors

    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.TilewrightError):
            if kind is errors.TilewrightError:
                continue
            assert kind.exit_code in numbers
            assert re.search(rf"^\| {kind.exit_code} \| {kind.code} \|", text, re.MULTILINE)
