"""What passes that look at calibration data share: weights and statistics by resolved key, linear
layers over all scopes of calls, exact rescalings, and rounding errors as the output sees them."""
