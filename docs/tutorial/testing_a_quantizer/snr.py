"""Noise of weights and of outputs in dB, beside what the closed formula says."""

import numpy as np
import tinyquant

from tilewright.dialects.quantization import parse_scheme
from tilewright.testing.bounds import expected_snr_db, snr_db
from tilewright.testing.strategies import GAUSSIAN, LAPLACE, UNIFORM

SHAPE = (512, 1024)
rng = np.random.default_rng(0)
weights = {
    GAUSSIAN: rng.standard_normal(SHAPE),
    LAPLACE: rng.laplace(size=SHAPE),
    UNIFORM: rng.uniform(-1, 1, SHAPE),
}
x = rng.standard_normal((64, 1024))
print("bits  weights   expected  measured  outputs")
for bits, scheme in (8, "w8a16"), (4, "w4a16-channel-absmax"):
    for distribution, w in weights.items():
        made = tinyquant.dequantize(*tinyquant.quantize(w, bits))
        expected = expected_snr_db(distribution, parse_scheme(scheme), 1024)
        measured, outputs = snr_db(w, made), snr_db(x @ w.T, x @ made.T)
        print(f"{bits:4}  {distribution.name:8}  {expected:8.1f}  {measured:8.1f}  {outputs:7.1f}")
