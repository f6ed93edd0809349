"""`tw calibrate`, then `tw compile --tune`: the tuned weights are in the artifact and run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.compiler.cli.harness import SEQ, Models, Tw, assert_refused

from tilewright.backends.reference import numerics
from tilewright.compiler.artifact import open_artifact
from tilewright.compiler.calibration import load_calibration
from tilewright.compiler.importers.registry import open_source
from tilewright.compiler.quantization.linear_weights import linear_weights
from tilewright.compiler.quantization.tuned import tune
from tilewright.dialects.element_types import F16
from tilewright.dialects.quantization import parse_scheme

SCHEME = "w4a16-g32"


def calibrated(tw: Tw, models: Models, folder: Path, *more: str) -> Path:
    tokens, calibration = folder / "tokens.json", folder / "m.calib.json"
    rng = np.random.default_rng(1)
    tokens.write_text(json.dumps(rng.integers(0, 60, (12, SEQ)).tolist()))
    result = tw(
        *("calibrate", models.checkpoint, "-q", "--seq", SEQ, "--data", tokens),
        *("-o", calibration, *more),
    )
    assert result.code == 0
    return calibration


def test_tuned_weights_are_compiled(tw: Tw, models: Models, tmp_path: Path) -> None:
    """The codes, scales and zero points of the artifact are those that the passes have made."""
    calibration, artifact = calibrated(tw, models, tmp_path, "--hessian"), tmp_path / "m.twm"
    result = tw(
        *("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", artifact, "--json"),
        *("--quant", SCHEME, "--calibration", calibration, "--tune", "awq-scale,gptq"),
    )
    layers = result.json["tuning"]["layers"]
    rounded = [each["key"] for each in layers if each["pass_name"] == "gptq" and each["changed"]]
    assert len(rounded) >= 4
    model = open_source(models.checkpoint, SEQ)
    linear = linear_weights(model.module)
    with model.open_weights() as weights:
        tuned, _ = tune(
            model.module,
            weights,
            load_calibration(calibration),
            "awq-scale,gptq",
            lambda key: SCHEME if linear[key].is_layer else "f16",
        )
        plain = weights.read(rounded[0])
    stored = open_artifact(artifact)
    for key in rounded:
        kept = tuned.quantized(key)
        assert kept is not None
        for part in ("codes", "scale", "zero"):
            made = stored.weight(f"{key}.{SCHEME}.{part}")
            np.testing.assert_array_equal(made, getattr(kept, part))
    nearest = numerics.quantize(plain, parse_scheme(SCHEME), F16)[0]
    codes = stored.weight(f"{rounded[0]}.{SCHEME}.codes")
    assert not np.array_equal(codes, numerics.pack_nibbles(nearest))
    tokens = tw("run", artifact, "--prompt-ids", "5,6", "--max-new-tokens", 2, "--json")
    assert len(tokens.json["token_ids"]) == 2
    assert stored.manifest.options["tune"]["passes"] == "awq-scale,gptq"
    assert "tuned" in stored.manifest.inputs


def test_gptq_without_a_hessian_is_refused(tw: Tw, models: Models, tmp_path: Path) -> None:
    calibration = calibrated(tw, models, tmp_path, "--statistics")
    result = tw(
        *("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", tmp_path / "m.twm"),
        *("--quant", SCHEME, "--calibration", calibration, "--tune", "gptq"),
    )
    assert_refused(result, 2, "there is no Hessian of the inputs", "tw calibrate --hessian")
    assert not (tmp_path / "m.twm").exists()


def test_statistics_that_were_not_kept_are_said_to_be_missing(
    tw: Tw, models: Models, tmp_path: Path
) -> None:
    calibration = calibrated(tw, models, tmp_path)
    result = tw(
        *("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", tmp_path / "m.twm"),
        *("--quant", SCHEME, "--calibration", calibration, "--tune", "awq-scale"),
    )
    assert_refused(result, 2, "the calibration was written without", "tw calibrate --statistics")


@pytest.mark.parametrize(
    ("quant", "passes", "idle"),
    [
        ("f16", "gptq", "gptq"),
        ("f16", "awq-scale", "awq-scale"),
        (SCHEME, "gptq", ""),
        (SCHEME, "smooth-quant,gptq", "smooth-quant"),
    ],
)
def test_a_pass_without_a_layer_is_refused(
    quant: str, passes: str, idle: str, tw: Tw, models: Models, tmp_path: Path
) -> None:
    """Better rounding that was asked for and never took place is no success."""
    calibration, artifact = calibrated(tw, models, tmp_path, "--hessian"), tmp_path / "m.twm"
    result = tw(
        *("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", artifact),
        *("--quant", quant, "--calibration", calibration, "--tune", passes),
    )
    if idle:
        assert_refused(result, 2, f"{idle} finds no layer to change", f"--tune '{passes}'")
    assert artifact.exists() == (not idle)


def test_inspect_sums_up_what_has_many_parts(tw: Tw, models: Models, tmp_path: Path) -> None:
    """Method, data and number of layers are on the first line, the ranges are not."""
    calibration, artifact = calibrated(tw, models, tmp_path, "--statistics"), tmp_path / "m.twm"
    tw(
        *("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", artifact, "--quant", "int8"),
        *("--calibration", calibration, "--tune", "smooth-quant"),
    )
    layers = open_artifact(artifact).manifest.options["calibration"]["layers"]
    first = tw.text("inspect", artifact).splitlines()[0]
    assert "data: tokens.json," in first
    assert f"layers: {len(layers)} listed, method: minmax" in first
    assert "passes: smooth-quant" in first
    assert next(iter(layers)) not in first


def test_int8_takes_the_ranges_of_smoothed_inputs(tw: Tw, models: Models, tmp_path: Path) -> None:
    """The scales of inputs in the artifact follow from the adjusted ranges, and run."""
    calibration, artifact = calibrated(tw, models, tmp_path, "--statistics"), tmp_path / "m.twm"
    result = tw(
        *("compile", models.checkpoint, "-q", "--seq", SEQ, "-o", artifact, "--json"),
        *("--quant", "int8", "--calibration", calibration, "--tune", "smooth-quant"),
    )
    report = result.json["tuning"]
    smoothed = [each["key"] for each in report["layers"] if each["changed"]]
    assert smoothed
    stored, held = open_artifact(artifact), load_calibration(calibration)
    before = held.ranges
    record = stored.manifest.options["calibration"]
    assert record["digest"] == held.digest, "that of the file, though ranges have changed"
    assert record["layers"][smoothed[0]][0] == before[smoothed[0]].input_absmax
    for key in smoothed:
        range_ = report["ranges"][key]["input_absmax"]
        assert abs(range_ / before[key].input_absmax - 1) > 1e-3
        (scale,) = stored.weight(f"{key}.int8.input_scale").reshape(-1)
        np.testing.assert_allclose(scale, range_ / 127, rtol=1e-6)
    tokens = tw("run", artifact, "--prompt-ids", "5,6", "--max-new-tokens", 2, "--json")
    assert len(tokens.json["token_ids"]) == 2
