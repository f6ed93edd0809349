"""`tw compile --top-passes ... --tpu-passes ...`: what the artifact says of them."""

from __future__ import annotations

from pathlib import Path

from tests.compiler.cli.harness import SEQ, Models, Tw, assert_refused, names_in

OPTIONS = {"quant", "act", "quant_head", "quant_embedding", "chip"}


def test_the_manifest_lists_them_in_order(tw: Tw, models: Models, tmp_path: Path) -> None:
    output = tmp_path / "m.twm"
    given = "decompose-composites{all=true}"
    assert tw(
        *("compile", models.checkpoint, "--quant", "f16", "--seq", SEQ, "-o", output),
        *("--top-passes", "decompose-composites", "--tpu-passes", given, "--quiet"),
    ).code == 0  # fmt: skip
    manifest = tw("inspect", output, "--json").json
    listed = manifest["pipeline"].split(",")
    assert listed[:3] == ["decompose-composites", "convert-top-to-tpu", given]
    assert listed[-1] == "emit-commands"
    chosen = {"top_passes": "decompose-composites", "tpu_passes": given}
    assert manifest["options"].items() >= chosen.items()


def test_without_any_the_artifact_does_not_speak_of_them(tw: Tw, models: Models) -> None:
    manifest = tw("inspect", models.f16, "--json").json
    assert set(manifest["options"]) == OPTIONS
    assert manifest["pipeline"].startswith("convert-top-to-tpu,")


def test_an_unknown_pass_is_refused_before_the_model_is_read(tw: Tw, tmp_path: Path) -> None:
    result = tw("compile", "no-such-model", "-o", tmp_path / "m.twm", "--top-passes", "fuse-all")
    assert_refused(result, 2, "unknown pass 'fuse-all'", "where: --top-passes 'fuse-all'")
    assert names_in(tmp_path) == []
