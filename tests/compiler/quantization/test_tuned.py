"""Weights that passes have tuned, as a source of weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tests.compiler.calibration.models import language_model

from tilewright.backends.reference import numerics
from tilewright.compiler.calibration import Calibration, calibrate, token_data
from tilewright.compiler.language_model import LanguageModel
from tilewright.compiler.quantization.linear_weights import linear_weights
from tilewright.compiler.quantization.tuned import TunedWeights, tune
from tilewright.dialects.element_types import BF16, F16, F32, ElementType
from tilewright.dialects.errors import OptionError
from tilewright.dialects.quantization import parse_scheme

SEQ = 16
SCHEME = "w4a16-g16"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    return language_model(tmp_path_factory.mktemp("tuned"), SEQ)


@pytest.fixture(scope="module")
def calibration(model: LanguageModel) -> Calibration:
    return calibrated(model, None)


def calibrated(model: LanguageModel, weights: TunedWeights | None) -> Calibration:
    rng = np.random.default_rng(3)
    samples = [rng.integers(0, 50, SEQ).tolist() for _ in range(6)]
    return calibrate(model, token_data(model, samples), hessian=True, weights=weights)


def quant_of(model: LanguageModel, quant: str, key: str) -> str:
    return "f16" if linear_weights(model.module)[key].is_head else quant


def test_a_tuned_model_is_the_checkpoint_but_for_what_was_tuned(
    model: LanguageModel, calibration: Calibration
) -> None:
    with model.open_weights() as source:
        tuned, report = tune(
            model.module,
            source,
            calibration,
            "awq-scale,gptq",
            lambda key: quant_of(model, SCHEME, key),
        )
        layers = [key for key, each in linear_weights(model.module).items() if each.is_layer]
        assert set(tuned.codes) <= set(layers)
        assert len(tuned.codes) > len(layers) / 2
        names = source.keys()
        assert tuned.keys() == names
        for key in names:
            if key not in tuned.dense:
                np.testing.assert_array_equal(
                    tuned.read_rows(key, 0, 3), source.read_rows(key, 0, 3)
                )
                assert tuned.info(key) == source.info(key)
        assert "model.safetensors" in tuned.fingerprints()
        assert tuned.fingerprints()["tuned"] != TunedWeights(source).fingerprints()["tuned"]
    changed = {each.key for each in report.layers if each.pass_name == "gptq" and each.changed}
    assert changed == set(tuned.codes)
    for each in report.layers:
        if each.changed and each.before is not None and each.after is not None:
            assert each.after.output_db > each.before.output_db
    assert json.loads(json.dumps(report.to_json(), allow_nan=False))["passes"] == "awq-scale,gptq"
    assert len(report.lines()) == len(report.layers)


def test_ranges_and_statistics_are_those_of_the_tuned_model(
    model: LanguageModel, calibration: Calibration
) -> None:
    """The tuned model is calibrated on the same data; nothing but roundings to f32 may differ."""
    with model.open_weights() as source:
        tuned, report = tune(
            model.module,
            source,
            calibration,
            "smooth-quant",
            lambda key: quant_of(model, "int8", key),
        )
        again = calibrated(model, tuned)
    assert any(each.changed for each in report.layers)
    differs = 0
    for key, known in again.ranges.items():
        adjusted = report.ranges[key]
        assert adjusted.input_absmax == pytest.approx(known.input_absmax, rel=1e-4)
        assert adjusted.output_absmax == pytest.approx(known.output_absmax, rel=1e-4)
        before = calibration.ranges[key].input_absmax
        differs += known.input_absmax != pytest.approx(before, rel=1e-2)
    assert differs >= 2


def test_the_function_of_the_model_stays(model: LanguageModel, calibration: Calibration) -> None:
    """Scaled inputs and weights give the outputs that calibration saw before: AWQ on all kinds of
    producers, the head's range in the end."""
    with model.open_weights() as source:
        tuned, report = tune(
            model.module,
            source,
            calibration,
            "awq-scale",
            lambda key: quant_of(model, "w4a16-channel", key),
        )
        again = calibrated(model, tuned)
    assert sum(each.changed for each in report.layers) > 4
    head = next(key for key, each in linear_weights(model.module).items() if each.is_head)
    for name in ("absmax", "mean_abs", "hessian"):
        made, wanted = (getattr(each.statistics(head), name) for each in (again, calibration))
        np.testing.assert_allclose(made, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("element", [F16, BF16, F32])
def test_codes_are_kept_as_they_are(model: LanguageModel, element: ElementType) -> None:
    scheme = parse_scheme("w4a16-g16")
    key = next(iter(linear_weights(model.module)))
    with model.open_weights() as source:
        tuned = TunedWeights(source)
        weight = tuned.read(key)
        codes, scale, zero = numerics.quantize(weight, scheme, element)
        tuned.store(key, codes, scale, zero, scheme)
        kept = tuned.quantized(key)
    assert kept is not None
    assert kept.scale_element == element
    assert kept.shape == weight.shape
    plain = numerics.plain_codes(kept.codes, scheme.format, kept.shape[1])
    np.testing.assert_array_equal(plain, codes)
    np.testing.assert_array_equal(kept.scale, scale)


def test_replaced_tensors_are_read_in_parts(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a buffer or not, from memory or from a file."""
    key = next(iter(linear_weights(model.module)))
    with model.open_weights() as source:
        for most in (0, 1 << 20):
            monkeypatch.setattr("tilewright.compiler.quantization.tuned._MOST_IN_MEMORY", most)
            tuned = TunedWeights(source)
            wanted = tuned.read(key) * np.float32(1.5)
            tuned.replace(key, wanted)
            assert (tuned.info(key).dtype, tuned.info(key).shape) == ("F32", wanted.shape)
            np.testing.assert_array_equal(tuned.read(key), wanted)
            out = np.zeros(wanted.nbytes, np.uint8)
            for buffer in (None, out):
                np.testing.assert_array_equal(tuned.read_rows(key, 2, 5, buffer), wanted[2:5])
                columns = tuned.read_columns(key, 1, 4, buffer)
                np.testing.assert_array_equal(columns, wanted[:, 1:4])
                assert columns.flags.c_contiguous


def test_passes_that_do_not_tune_are_refused(
    model: LanguageModel, calibration: Calibration
) -> None:
    with model.open_weights() as source, pytest.raises(OptionError, match="fuse-silu does not"):
        tune(model.module, source, calibration, "gptq,fuse-silu", lambda key: SCHEME)
