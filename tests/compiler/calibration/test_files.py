"""Calibrations on disk, and what they prove."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.compiler.calibration.models import (
    LAYER_KEYS,
    language_model,
    layers_model,
    statistics_of,
)

from tilewright.compiler.calibration import (
    Calibration,
    LayerRange,
    Method,
    calibrate,
    calibration_record,
    check_model,
    load_calibration,
    load_data,
    mark_calibrated,
    save_calibration,
    token_data,
)
from tilewright.compiler.calibration.files import statistics_path
from tilewright.compiler.importers.synthetic import write_checkpoint
from tilewright.compiler.language_model import ImportedModel
from tilewright.dialects.errors import ModelReadError, OptionError

RNG = np.random.default_rng(9)


@pytest.fixture
def model(tmp_path: Path) -> ImportedModel:
    return layers_model(tmp_path)[0]


@pytest.fixture
def calibration(tmp_path: Path, model: ImportedModel) -> Calibration:
    x = RNG.standard_normal((3, 4, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x, bias=np.zeros((3, 8)))
    data = load_data(tmp_path / "x.npz", model)
    return calibrate(model, data, Method("percentile", 99), hessian=True)


@pytest.fixture
def path(tmp_path: Path, calibration: Calibration) -> Path:
    save_calibration(calibration, tmp_path / "m.calib.json", statistics=True)
    return tmp_path / "m.calib.json"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_round_trip(path: Path, calibration: Calibration) -> None:
    loaded = load_calibration(path)
    assert loaded == calibration
    assert loaded.digest == calibration.digest
    assert set(loaded.input_statistics) == set(LAYER_KEYS)
    for key in LAYER_KEYS:
        ours, theirs = statistics_of(loaded, key), statistics_of(calibration, key)
        for part in ("absmax", "mean_abs", "hessian"):
            np.testing.assert_array_equal(getattr(ours, part), getattr(theirs, part))
            assert getattr(ours, part).dtype == getattr(theirs, part).dtype
    assert loaded.statistics("none") is None


def test_statistics_are_written_when_asked_for(tmp_path: Path, calibration: Calibration) -> None:
    save_calibration(calibration, tmp_path / "plain.calib.json")
    assert not statistics_path(tmp_path / "plain.calib.json").exists()
    assert load_calibration(tmp_path / "plain.calib.json").statistics("a.up") is None


def test_a_shared_tensor_is_stored_once(path: Path) -> None:
    from safetensors.numpy import load_file

    arrays = load_file(statistics_path(path))
    assert {name.rpartition(".")[0] for name in arrays} == {"a.up", "a.down", "b.up", "b.down"}
    assert arrays["a.down.hessian"].shape == (12, 12)


def test_a_layer_is_a_line_of_the_file(path: Path) -> None:
    (line,) = [line for line in path.read_text().splitlines() if '"a.gate": {' in line]
    layer = json.loads(line.rstrip(",").split(":", 1)[1])
    assert layer["count"] == 12
    assert layer["input_absmax"] <= layer["input_largest"]


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["layers"]["a.up"].update(input_absmax=9.5),
        lambda c: c["layers"]["a.up"].update(count=13),
        lambda c: c["layers"].pop("b.down"),
        lambda c: c.update(samples=300),
        lambda c: c.update(tokens=300),
        lambda c: c["method"].update(percentile=98.0),
        lambda c: c["data"].update(sha256="0" * 64),
        lambda c: c["model"].update(fingerprint="0" * 64),
    ],
)
def test_a_change_is_noticed_and_can_be_accepted(
    path: Path, calibration: Calibration, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(path, change)
    with pytest.raises(ModelReadError, match="has been changed since it was written") as error:
        load_calibration(path)
    assert calibration.digest in (error.value.why or "")
    assert '"edited" to true' in (error.value.hint or "")
    edit(path, lambda c: c.update(edited=True))
    loaded = load_calibration(path)
    assert loaded.edited
    assert loaded.digest != calibration.digest
    assert calibration_record(loaded)["edited"] is True


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(version=2), "another format or version"),
        (lambda c: c.update(format="x"), "another format or version"),
        (lambda c: c.pop("layers"), "missing required field `layers`"),
        (lambda c: c.update(extra=1), "unknown field `extra`"),
        (lambda c: c["layers"]["a.up"].update(input_absmax="x"), "a.up|Expected `float`"),
        (lambda c: c["method"].update(name="mean"), "Invalid enum value 'mean'"),
        (lambda c: c["method"].update(name="kl"), "a percentile does not go with"),
        (lambda c: c["layers"]["a.up"].update(input_absmax=0.0), "input_absmax is 0.0"),
        (lambda c: c["layers"]["a.up"].update(output_absmax=-1.0), "output_absmax is -1.0"),
        (lambda c: c["layers"]["a.up"].update(count=0), "its count is 0"),
        (lambda c: c.update(layers={}), "the calibration is empty"),
        (lambda c: c.update(samples=0), "the calibration is empty"),
    ],
)
def test_files_that_are_no_calibrations(
    path: Path, change: Callable[[dict[str, Any]], object], said: str
) -> None:
    edit(path, change)
    edit(path, lambda c: c.update(edited=True))
    with pytest.raises(ModelReadError) as error:
        load_calibration(path)
    assert re.search(said, str(error.value)), str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": NaN}', "\xff"])
def test_files_that_are_not_json(path: Path, text: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelReadError, match="is not a calibration"):
        load_calibration(path)


def test_an_infinite_range(path: Path) -> None:
    text = path.read_text()
    path.write_text(text.replace('"input_absmax": ', '"input_absmax": 1e999, "x": ', 1))
    with pytest.raises(ModelReadError):
        load_calibration(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelReadError, match="cannot be read") as error:
        load_calibration(tmp_path / "no.calib.json")
    assert "tw calibrate" in (error.value.hint or "")


def test_statistics_of_another_calibration(path: Path) -> None:
    stored = statistics_path(path)
    stored.write_bytes(stored.read_bytes()[:-8] + b"\0" * 8)
    loaded = load_calibration(path)
    with pytest.raises(ModelReadError, match="not those of the calibration"):
        loaded.statistics("a.up")
    stored.unlink()
    with pytest.raises(ModelReadError, match="statistics of the calibration cannot be read"):
        load_calibration(path).statistics("a.up")


def test_a_name_that_is_not_json(tmp_path: Path, calibration: Calibration) -> None:
    with pytest.raises(OptionError, match=r"is written to a \.json file"):
        save_calibration(calibration, tmp_path / "m.calib")
    assert not (tmp_path / "m.calib").exists()


# What it proves.


def test_the_record_of_an_artifact(calibration: Calibration) -> None:
    record = json.loads(json.dumps(calibration_record(calibration)))
    assert record["digest"] == calibration.digest
    assert record["method"] == {"name": "percentile", "percentile": 99.0}
    assert (record["samples"], record["tokens"]) == (3, 12)
    assert record["data"]["name"] == "x.npz"
    layer = calibration.ranges["b.down"]
    assert record["layers"]["b.down"] == [layer.input_absmax, layer.output_absmax, 12]


def test_a_module_is_marked_with_the_digest(model: ImportedModel, calibration: Calibration) -> None:
    mark_calibrated(model.module, calibration)
    mark = model.module.attributes["top.calibration"]
    assert getattr(mark, "data", "") == calibration.digest


@pytest.mark.parametrize("count", [None, 0])
def test_layers_without_a_range_are_not_marked(
    model: ImportedModel, calibration: Calibration, count: int | None
) -> None:
    ranges = dict(calibration.ranges)
    del ranges["a.up"]
    if count is not None:
        ranges["a.up"] = LayerRange(1.0, 1.0, count)
    without = replace(calibration, ranges=ranges)
    with pytest.raises(OptionError, match=r"has no range for a\.up"):
        mark_calibrated(model.module, without)
    assert "top.calibration" not in model.module.attributes
    mark_calibrated(model.module, without, ["b.up"])
    assert "top.calibration" in model.module.attributes


def test_a_calibration_is_for_one_model(tmp_path: Path) -> None:
    model = language_model(tmp_path, 8)
    calibration = calibrate(model, token_data(model, [[1, 2, 3]]))
    longer = language_model(tmp_path, 16)
    with longer.open_weights() as weights:
        check_model(calibration, longer.module, weights)
    write_checkpoint(
        tmp_path / "chatglm",
        json.loads((tmp_path / "chatglm/config.json").read_text()),
        dtype="f32",
        seed=2,
    )
    with longer.open_weights() as weights:
        with pytest.raises(OptionError, match="is one of another model") as error:
            check_model(calibration, longer.module, weights)
        assert calibration.fingerprint in (error.value.why or "")
