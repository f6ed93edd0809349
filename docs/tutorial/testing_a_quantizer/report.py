"""What holds and what fails, for the 8-bit codes."""

import tinyquant
from conftest import settings

from tilewright.testing import examine_weight_quantizer

settings.load_profile("same")
print(examine_weight_quantizer(tinyquant.quantize, "w8a16").text())
