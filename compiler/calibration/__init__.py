"""Calibration: ranges and statistics of what flows through the linear layers on real data, and the
proof that they were taken.

    model = open_source(Path("chatglm2-6b"), seq=64)
    data = load_data(Path("tokens.jsonl"), model)
    calibration = calibrate(model, data, "kl")
    save_calibration(calibration, Path("chatglm2.calib.json"))

There are no made-up data to fall back to: without samples there is no calibration.
"""

from tilewright.compiler.calibration.calibration import (
    CALIBRATION_ATTRIBUTE,
    Calibration,
    DataRecord,
    LayerRange,
    calibration_record,
    check_model,
    mark_calibrated,
    model_fingerprint,
)
from tilewright.compiler.calibration.files import load_calibration, save_calibration
from tilewright.compiler.calibration.methods import DEFAULT_PERCENTILE, METHODS, Method
from tilewright.compiler.calibration.run import calibrate
from tilewright.compiler.calibration.samples import CalibrationData, load_data, token_data
from tilewright.compiler.calibration.statistics import InputStatistics

__all__ = [
    "CALIBRATION_ATTRIBUTE",
    "DEFAULT_PERCENTILE",
    "METHODS",
    "Calibration",
    "CalibrationData",
    "DataRecord",
    "InputStatistics",
    "LayerRange",
    "Method",
    "calibrate",
    "calibration_record",
    "check_model",
    "load_calibration",
    "load_data",
    "mark_calibrated",
    "model_fingerprint",
    "save_calibration",
    "token_data",
]
