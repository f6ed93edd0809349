"""Property tests of quantized arithmetic, for any quantizer: strategies, bounds and a suite."""
