pytest -k "packing or product or noise"
